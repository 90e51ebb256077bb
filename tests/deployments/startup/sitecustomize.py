"""Adds the tests' extractors to `models.extractors` in a process with this folder on its path."""

from pathlib import Path

import models.extractors

models.extractors.__path__.append(str(Path(__file__).parents[1] / "extractors"))
