"""Extractors and annotators by name; the listings of their folders are the registry."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, TypeVar

from models.annotator import Annotator
from models.base import Extractor
from models.errors import InvalidInput, UnknownName
from models.method import Method

M = TypeVar("M", bound=Method)


def extractor_names() -> tuple[str, ...]:
    """Names of the modules in `models/extractors/`, sorted."""
    return _modules("models.extractors")


def annotator_names() -> tuple[str, ...]:
    """Names of the modules in `models/annotators/`, sorted."""
    return _modules("models.annotators")


def make_extractor(name: str, options: Mapping[str, Any] | None = None) -> Extractor:
    """Build the extractor of `models/extractors/{name}.py`, not yet loaded.

    Raises UnknownName, listing the known ones, and InvalidInput, naming a misspelt option.
    """
    if name not in extractor_names():
        raise UnknownName(f"no extractor {name!r}; there are {', '.join(extractor_names())}")
    kind: type[Extractor] = importlib.import_module(f"models.extractors.{name}").EXTRACTOR
    return _build(kind, f"extractor {name!r}", options)


def make_annotator(name: str, options: Mapping[str, Any] | None = None) -> Annotator:
    """Build the annotator of `models/annotators/{name}.py`, not yet loaded.

    Raises UnknownName, listing the known ones, and InvalidInput, naming a misspelt option.
    """
    if name not in annotator_names():
        raise UnknownName(f"no annotator {name!r}; there are {', '.join(annotator_names())}")
    kind: type[Annotator] = importlib.import_module(f"models.annotators.{name}").ANNOTATOR
    return _build(kind, f"annotator {name!r}", options)


def _modules(package: str) -> tuple[str, ...]:
    folder = importlib.import_module(package).__path__
    return tuple(sorted(found.name for found in pkgutil.iter_modules(folder)))


def _build(kind: type[M], what: str, options: Mapping[str, Any] | None) -> M:
    try:
        return kind(kind.Config.model_validate(dict(options or {})))
    except ValueError as exc:
        raise InvalidInput(f"options of {what}: {exc}") from exc
