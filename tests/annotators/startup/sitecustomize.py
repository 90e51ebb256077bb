"""Adds the tests' annotators to `models.annotators` in a process with this folder on its path."""

from pathlib import Path

import models.annotators

models.annotators.__path__.append(str(Path(__file__).parents[1]))
