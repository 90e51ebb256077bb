"""The row of what is said of an image: how writes change it, and how it is read.

A JSON object, annotator → annotation: `text`, `tags` and details as `models.annotator.Annotation`
has them, `by` (`machine` or `person`) and, of a machine, the `fingerprint` of what made it. An
annotation that has only `by: person` is a person's removal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from indexes.store.base import ANNOTATE, ANNOTATIONS, Author, Store
from models.errors import InvalidInput

Annotations = dict[str, dict[str, Any]]
MAX_NAME = 200
"""Bytes of an annotator's name."""


def read_annotations(row: bytes | None) -> Annotations:
    """All that a stored row says, removals included."""
    return orjson.loads(row) if row else {}


def shown_annotations(row: bytes | None) -> Annotations:
    """What is said: a person's removal is not shown."""
    return {name: said for name, said in read_annotations(row).items() if said != {"by": "person"}}


def annotations_of(store: Store, image_ids: Sequence[int]) -> dict[int, Annotations]:
    """What is said of these images; those of which nothing is said are left out."""
    rows = store.rows(ANNOTATIONS, image_ids)
    return {image_id: said for image_id in rows if (said := shown_annotations(rows[image_id]))}


def annotated_kinds(row: bytes | None) -> set[str]:
    """The kinds of annotators that have spoken, or were silenced by a person."""
    return {ANNOTATE + name for name in read_annotations(row)}


def tags_in(row: bytes | None) -> set[str]:
    """All tags of all annotators."""
    return {tag for said in read_annotations(row).values() for tag in said.get("tags", ())}


def changed_row(
    row: bytes | None, annotations: Mapping[str, Mapping[str, Any] | None], by: Author
) -> bytes | None:
    """The row after a write of `annotations`; None when nothing is left.

    Raises InvalidInput for what can't be kept.
    """
    said = read_annotations(row)
    for name, given in annotations.items():
        if not 0 < len(name.encode()) <= MAX_NAME or "\0" in name:
            raise InvalidInput(f"annotations: no name of an annotator: {name[:MAX_NAME]!r}")
        if by == "machine" and said.get(name, {}).get("by") == "person":
            continue
        if given is None and by == "machine":
            said.pop(name, None)
        else:
            said[name] = {**(given or {}), "by": by}
    return _dump(said) if said else None


def without(row: bytes | None, annotator: str) -> bytes | None:
    """The row without an annotator's word, a person's too; None when nothing is left."""
    said = read_annotations(row)
    said.pop(annotator, None)
    return _dump(said) if said else None


def _dump(said: Annotations) -> bytes:
    try:
        return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    except TypeError as exc:
        raise InvalidInput(f"annotations: not JSON: {exc}", "annotations") from exc
