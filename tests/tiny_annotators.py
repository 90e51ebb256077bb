"""Serves the annotators of `tests/annotators/` as those of `models/annotators/` are served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.serve import Application

import deployments.app
import models.annotators
from deployments.annotator import Annotator

models.annotators.__path__.append(str(Path(__file__).parent / "annotators"))


class TinyAnnotator(Annotator):
    """A replica that imports this module, and so knows the tests' annotators."""


def build_annotator(args: dict[str, Any]) -> Application:
    """For `import_path` in a config."""
    setattr(deployments.app, "Annotator", TinyAnnotator)  # noqa: B010
    return deployments.app.build_annotator(args)
