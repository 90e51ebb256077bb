"""Registry of index types: a new type is one folder and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from indexes.base import Index, Rows
from models.errors import InvalidInput, UnknownName
from models.types import Options

MODULES = {
    "binary": "indexes.hamming.index",
    "histogram": "indexes.histogram.index",
    "local": "indexes.local.index",
    "text": "indexes.text.index",
    "vectors": "indexes.vectors.index",
}
"""Modules by name, imported on demand because each imports its own heavy library."""


def index_names() -> list[str]:
    """Every name that `make_index` accepts, sorted."""
    return sorted(MODULES)


def index_class(name: str) -> type[Index]:
    """Return the class of an index type. Raises UnknownName, listing the known names."""
    if name not in MODULES:
        raise UnknownName(f"no index {name!r}; there are {', '.join(index_names())}")
    kind: type[Index] = importlib.import_module(MODULES[name]).INDEX
    return kind


def index_options(name: str, options: Mapping[str, Any]) -> Options:
    """Check the options of an index. Raises UnknownName, listing the known names, and InvalidInput,
    naming a misspelt option."""
    try:
        return index_class(name).Config.model_validate(dict(options))
    except ValueError as exc:
        raise InvalidInput(f"options of index {name!r}: {exc}") from exc


def make_index(name: str, options: Mapping[str, Any], rows: Rows) -> Index:
    """Build an empty index that reads stored features through `rows`.

    Raises UnknownName, listing the known names, and InvalidInput, naming a misspelt option.
    """
    config = index_options(name, options)
    return index_class(name)(config, rows)
