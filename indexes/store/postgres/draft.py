"""The changes of one transaction of the PostgreSQL store, collected and then written together."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from indexes.store.annotations import annotated_kinds, changed_row, without
from indexes.store.base import ANNOTATE, ANNOTATIONS, Author, ImageWrite, Receipt, Space
from indexes.store.checks import (
    check_version,
    dump_metadata,
    image_terms,
    is_unwanted,
    merged,
    wanted_kinds,
)
from models.types import FileFacts

Numbers = Mapping[Space, int]


@dataclass(slots=True)
class Row:
    """An image as it is stored; a generation or version below 0 is a log entry of the draft."""

    generation: int
    sha256: str
    width: int
    height: int
    source: str
    created: float
    wanted: frozenset[str]
    have: Mapping[str, list[int]] = field(default_factory=dict)
    """Kind → numbers of the spaces with its features; an annotator's kind has an empty list."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    annotations: bytes | None = None
    preview: bool = False
    original: bool = False
    version: int = 0
    upload_name: str | None = None
    facts: FileFacts | None = None

    @property
    def pending(self) -> frozenset[str]:
        return self.wanted - self.have.keys()

    @property
    def spaces(self) -> set[int]:
        return {number for numbers in self.have.values() for number in numbers}

    @property
    def terms(self) -> set[bytes]:
        return image_terms(self.metadata, self.annotations)


class Draft:
    """Image rows as they were read and as they will be written, and all related changes.

    Seqs are assigned at the very end; until then -1 stands for the first log entry, -2 for the
    second. `digests` are the SHA-256 digests of stored features by space number and image id;
    `numbers` holds the number of every space.
    """

    def __init__(
        self,
        rows: Mapping[int, Row],
        digests: Mapping[tuple[int, int], bytes],
        numbers: Numbers,
        head: int,
        originals_bytes: int,
    ) -> None:
        self.before = rows
        self.rows: dict[int, Row | None] = {at: replace(row) for at, row in rows.items()}
        self.head = head
        self.features: dict[tuple[int, int], bytes | None] = {}
        self.previews: dict[int, bytes | None] = {}
        self.originals: dict[int, bytes | None] = {}
        self.entries: list[tuple[int, set[int]]] = []
        """Log entries: image id and the numbers of the touched spaces."""
        self._digests = digests
        self._numbers = numbers
        self._originals_bytes = originals_bytes

    def put(self, image_id: int, write: ImageWrite) -> Receipt:
        row = self._checked(image_id, write.if_version)
        if row is not None and row.sha256 == write.sha256:
            return self._extend(image_id, row, write)
        touched = self._remove(image_id, row) if row is not None else set()
        generation = -len(self.entries) - 1
        fresh = Row(
            generation=generation,
            sha256=write.sha256,
            width=write.width,
            height=write.height,
            source=write.source,
            created=time.time() if write.created is None else write.created,
            wanted=frozenset(),
        )
        self.rows[image_id] = fresh
        touched |= self._fill(image_id, fresh, write)
        seq = self._log(image_id, touched)
        return Receipt(image_id, seq, generation, "created" if row is None else "replaced")

    def delete(self, image_id: int, if_version: int | None = None) -> int | None:
        row = self._checked(image_id, if_version)
        return None if row is None else self._log(image_id, self._remove(image_id, row))

    def delete_kind(self, image_id: int, kind: str) -> int | None:
        row = self.rows.get(image_id)
        if row is None or kind not in row.wanted:
            return None
        row.wanted -= {kind}
        if is_unwanted(row.wanted):
            return self.delete(image_id)
        if kind.startswith(ANNOTATE):
            left = without(row.annotations, kind.removeprefix(ANNOTATE))
            return self._log(image_id, self._annotate(image_id, row, left))
        touched = set(row.have.get(kind, []))
        row.have = {name: numbers for name, numbers in row.have.items() if name != kind}
        self.features.update(dict.fromkeys((number, image_id) for number in touched))
        return self._log(image_id, touched)

    def complete(
        self, image_id: int, generation: int, features: Mapping[Space, bytes]
    ) -> int | None:
        row = self.rows.get(image_id)
        if row is None or row.generation != generation:
            return None
        given = {space: data for space, data in features.items() if space.kind in row.wanted}
        if not given:
            return None
        touched = self._write_features(image_id, row, given)
        return self._log(image_id, touched) if touched else self.head

    def annotate(
        self,
        image_id: int,
        generation: int,
        annotations: Mapping[str, Mapping[str, Any] | None],
        by: Author,
        metadata: Mapping[str, Any],
        if_version: int | None,
    ) -> int | None:
        row = self._checked(image_id, if_version)
        if row is None or row.generation != generation:
            return None
        stored = dump_metadata(row.metadata)
        changed = dump_metadata(merged(row.metadata, metadata))
        touched = self._annotate(image_id, row, changed_row(row.annotations, annotations, by))
        if not touched and changed == stored:
            return self.head
        row.metadata = orjson.loads(changed)
        return self._log(image_id, touched)

    def drop_space(self, space: Space) -> int:
        """Remove the rows of a space from all images of the draft. Returns the number of rows."""
        number = self._numbers[space]
        for image_id, row in self.rows.items():
            if row is None or number not in row.have.get(space.kind, ()):
                continue
            left = [other for other in row.have[space.kind] if other != number]
            kept = {kind: at for kind, at in row.have.items() if kind != space.kind}
            row.have = kept | ({space.kind: left} if left else {})
            self.features[number, image_id] = None
            self._log(image_id, {number})
        return len(self.entries)

    def _extend(self, image_id: int, row: Row, write: ImageWrite) -> Receipt:
        stored, metadata = replace(row), dump_metadata(row.metadata)
        if write.source != "online":
            row.source = write.source
        touched = self._fill(image_id, row, write)
        same = replace(row, metadata={}) == replace(stored, metadata={})
        if not touched and same and dump_metadata(row.metadata) == metadata:
            return Receipt(image_id, row.generation, row.generation, "unchanged")
        return Receipt(image_id, self._log(image_id, touched), row.generation, "replaced")

    def _fill(self, image_id: int, row: Row, write: ImageWrite) -> set[int]:
        """Add the given features, metadata, preview and original.

        Returns the numbers of the spaces whose row changed.
        """
        row.wanted |= wanted_kinds(write)
        row.upload_name = write.upload_name or row.upload_name
        row.facts = write.facts or row.facts
        touched = self._write_features(image_id, row, write.features)
        if write.metadata is not None:
            row.metadata = write.metadata
        if write.preview is not None and not row.preview:
            row.preview = True
            self.previews[image_id] = write.preview
        fits = write.original is not None and len(write.original) <= self._originals_bytes
        if fits and row.pending and not row.original:
            row.original = True
            self.originals[image_id] = write.original
        return touched

    def _remove(self, image_id: int, row: Row) -> set[int]:
        touched = row.spaces
        self.features.update(dict.fromkeys((number, image_id) for number in touched))
        self.previews[image_id] = self.originals[image_id] = None
        self.rows[image_id] = None
        return touched

    def _write_features(self, image_id: int, row: Row, features: Mapping[Space, bytes]) -> set[int]:
        touched = set()
        for space, data in features.items():
            number = self._numbers[space]
            if self._holds(number, image_id, data):
                continue
            self.features[number, image_id] = data
            row.have = {**row.have, space.kind: sorted({*row.have.get(space.kind, ()), number})}
            touched.add(number)
        return touched

    def _holds(self, number: int, image_id: int, data: bytes) -> bool:
        if (number, image_id) in self.features:
            return self.features[number, image_id] == data
        return self._digests.get((number, image_id)) == hashlib.sha256(data).digest()

    def _annotate(self, image_id: int, row: Row, data: bytes | None) -> set[int]:
        """Set the row of annotations. Returns the numbers of the spaces whose row changed."""
        if data == row.annotations:
            return set()
        number = self._numbers[ANNOTATIONS]
        row.annotations = data
        row.have = {kind: at for kind, at in row.have.items() if not kind.startswith(ANNOTATE)}
        self.features[number, image_id] = data
        if data is None:
            row.have = {kind: at for kind, at in row.have.items() if kind != ANNOTATIONS.kind}
        else:
            spoken: dict[str, list[int]] = {kind: [] for kind in annotated_kinds(data)}
            row.have = {**row.have, **spoken, ANNOTATIONS.kind: [number]}
        return {number}

    def _log(self, image_id: int, touched: set[int]) -> int:
        """Add a log entry, and remove the original if no kind is pending. Returns the entry's
        provisional seq."""
        row = self.rows[image_id]
        if row is not None and row.original and not row.pending:
            row.original = False
            self.originals[image_id] = None
        self.entries.append((image_id, touched))
        if row is not None:
            row.version = -len(self.entries)
        return -len(self.entries)

    def _checked(self, image_id: int, if_version: int | None) -> Row | None:
        row = self.rows.get(image_id)
        check_version(if_version, None if row is None else row.version)
        return row
