"""The row of an image's annotations: how it is read, and how writes change it.

The row is a JSON object, annotator → annotation. An annotation has `text`, `tags` and details as in
`models.annotator.Annotation`; `by` (`machine` or `person`); and, if made by a machine, the
annotator's `fingerprint`. An annotation with only `by: person` records that a person removed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from indexes.store.base import ANNOTATE, ANNOTATIONS, Author, Store
from models.errors import InvalidInput

Annotations = dict[str, dict[str, Any]]
MAX_NAME = 200
"""Maximum length of an annotator's name in bytes."""


def read_annotations(row: bytes | None) -> Annotations:
    """All annotations of a stored row, including records of removals."""
    return orjson.loads(row) if row else {}


def shown_annotations(row: bytes | None) -> Annotations:
    """The annotations of a stored row, without records of removals."""
    return {name: said for name, said in read_annotations(row).items() if said != {"by": "person"}}


def annotations_of(store: Store, image_ids: Sequence[int]) -> dict[int, Annotations]:
    """The annotations of these images; images without any are left out."""
    rows = store.rows(ANNOTATIONS, image_ids)
    return {image_id: said for image_id in rows if (said := shown_annotations(rows[image_id]))}


def annotated_kinds(row: bytes | None) -> set[str]:
    """Kinds of the annotators with an annotation or a record of its removal."""
    return {ANNOTATE + name for name in read_annotations(row)}


def tags_in(row: bytes | None) -> set[str]:
    """Tags of all annotations of a stored row."""
    return {tag for said in read_annotations(row).values() for tag in said.get("tags", ())}


def changed_row(
    row: bytes | None, annotations: Mapping[str, Mapping[str, Any] | None], by: Author
) -> bytes | None:
    """The row after a write of `annotations`; None if nothing is left.

    Raises InvalidInput for values that can't be stored.
    """
    said = read_annotations(row)
    for name, given in annotations.items():
        if not 0 < len(name.encode()) <= MAX_NAME or "\0" in name:
            raise InvalidInput(f"annotations: invalid annotator name: {name[:MAX_NAME]!r}")
        if by == "machine" and said.get(name, {}).get("by") == "person":
            continue
        if given is None and by != "person":
            said.pop(name, None)
        else:
            said[name] = dict(given or {}) if by == "restored" else {**(given or {}), "by": by}
    return _dump(said) if said else None


def without(row: bytes | None, annotator: str) -> bytes | None:
    """The row without one annotator's annotation, even a person's; None if nothing is left."""
    said = read_annotations(row)
    said.pop(annotator, None)
    return _dump(said) if said else None


def _dump(said: Annotations) -> bytes:
    try:
        return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    except TypeError as exc:
        raise InvalidInput(f"annotations: not JSON: {exc}", "annotations") from exc
