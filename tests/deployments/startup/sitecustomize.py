"""On the path of a process, this adds the tests' extractors to those of `models/extractors/`."""

from pathlib import Path

import models.extractors

models.extractors.__path__.append(str(Path(__file__).parents[1] / "extractors"))
