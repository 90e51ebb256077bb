"""On the path of a process, this adds the tests' annotators to those of `models/annotators/`."""

from pathlib import Path

import models.annotators

models.annotators.__path__.append(str(Path(__file__).parents[1]))
