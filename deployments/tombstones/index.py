"""An index over the tombstones of a store, which every ingress replica follows by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deployments.tombstones import records
from deployments.tombstones.pdq import SAME_BITS, from_hex
from deployments.tombstones.records import RememberedPicture, Tombstone
from indexes.base import Hit, Index, Query
from indexes.registry import make_index
from indexes.store.base import Preview, Space, Store
from models.base import Extractor
from models.errors import InvalidInput
from models.pictures.decoding import Picture, decode
from models.types import Features

log = logging.getLogger(__name__)


class FeatureKind(NamedTuple):
    """A retriever that proposes pictures."""

    space: Space
    extractor: Extractor
    in_ingress: bool
    """Whether it extracts features here; then they are made of previews where they are missing."""


class PdqMatch(NamedTuple):
    """A tombstone of which only the PDQ hash is known."""

    tombstone_id: str
    distance: int
    """Number of different bits, of 256."""


class TombstoneIndex:
    """Finds tombstones that may be a picture. Thread-safe; each search knows all tombstones that
    were acknowledged before it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._applied = 0
        self._kinds: dict[str, FeatureKind] = {}
        self._clear()

    def follow(self, kinds: Mapping[str, FeatureKind]) -> bool:
        """Apply what has changed. Returns whether there are tombstones. Raises StoreUnavailable."""
        with self._lock:
            if {name: one.space for name, one in kinds.items()} != {
                name: one.space for name, one in self._kinds.items()
            }:
                self._kinds, self._applied = dict(kinds), 0
            seq, ids = records.changes(self._store, self._applied)
            if ids is None:
                self._clear()
                after = ""
                while page := records.listed(self._store, after, records.AT_ONCE):
                    after = page[-1].tombstone_id
                    self._apply({one.tombstone_id: one for one in page})
            elif ids:
                there = records.by_id(self._store, ids)
                self._apply({at: there.get(at) for at in ids})
            self._applied = seq
            return bool(self._tombstones)

    def was_used(self) -> bool:
        """Whether there has ever been a tombstone. Raises StoreUnavailable."""
        return records.changes(self._store, 0).seq > 0

    def has(self, kind: str) -> bool:
        """Whether tombstones have features of this kind."""
        return bool(len(self._indexes.get(kind, ())))

    @property
    def has_pdq(self) -> bool:
        return bool(self._pdq)

    def by_file(self, sha256: str) -> Tombstone | None:
        """The tombstone of this very file."""
        return self._files.get(sha256)

    def propose(
        self, kind: str, variants: Sequence[Features], params: Mapping[str, Any]
    ) -> list[Hit]:
        """Hits whose image ids are the numbers of tombstones."""
        with self._lock:
            index = self._indexes.get(kind)
            if index is None:
                return []
            return index.search(Query(variants), index.Params.parse(params))

    def by_pdq(self, hashes: npt.NDArray[np.uint8]) -> PdqMatch | None:
        """The nearest tombstone by the PDQ hashes (n, 32) of a picture's flips and rotations."""
        with self._lock:
            if not self._pdq or not len(hashes):
                return None
            ids = list(self._pdq)
            stored = np.stack([self._pdq[one] for one in ids])
        distances = np.bitwise_count(stored[:, None] ^ hashes[None]).sum(axis=2).min(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] > SAME_BITS:
            return None
        return PdqMatch(ids[nearest], int(distances[nearest]))

    def tombstone(self, number: int) -> Tombstone | None:
        """A tombstone by its number."""
        return self._tombstones.get(self._ids.get(number, ""))

    def by_id(self, tombstone_id: str) -> Tombstone | None:
        return self._tombstones.get(tombstone_id)

    def previews(self, numbers: Sequence[int]) -> dict[int, Preview]:
        """Previews by number; those that were not kept are left out."""
        found: dict[int, Preview] = {}
        for number, picture in self._pictures(numbers).items():
            one = self.tombstone(number)
            preview = None if one is None else records.preview_of(one, picture)
            if preview is not None:
                found[number] = preview
        return found

    def _clear(self) -> None:
        self._tombstones: dict[str, Tombstone] = {}
        self._numbers: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._next = 0
        self._files: dict[str, Tombstone] = {}
        self._pdq: dict[str, npt.NDArray[np.uint8]] = {}
        self._indexes: dict[str, Index] = {}

    def _apply(self, entries: Mapping[str, Tombstone | None]) -> None:
        pictures = records.pictures(self._store, list(entries))
        changes: dict[str, dict[int, Features | None]] = {name: {} for name in self._kinds}
        for tombstone_id, one in entries.items():
            number = self._forget(tombstone_id)
            if number is not None:
                for change in changes.values():
                    change[number] = None
            if one is not None:
                self._add(one, pictures.get(tombstone_id), changes)
        for name, change in changes.items():
            if name not in self._indexes and any(row is not None for row in change.values()):
                extractor = self._kinds[name].extractor
                self._indexes[name] = make_index(extractor.index, {}, self._rows(name))
            if name in self._indexes:
                try:
                    self._indexes[name].apply(change)
                except InvalidInput as exc:
                    log.error("tombstones are not found by %s: %s", name, exc)

    def _forget(self, tombstone_id: str) -> int | None:
        one = self._tombstones.pop(tombstone_id, None)
        if one is None:
            return None
        if one.sha256 is not None:
            self._files.pop(one.sha256, None)
        self._pdq.pop(tombstone_id, None)
        number = self._numbers.pop(tombstone_id)
        del self._ids[number]
        return number

    def _add(
        self,
        one: Tombstone,
        picture: RememberedPicture | None,
        changes: Mapping[str, dict[int, Features | None]],
    ) -> None:
        # Every change takes a fresh number, so that a new tombstone never meets an old one's hits.
        number = self._next
        self._next += 1
        self._tombstones[one.tombstone_id] = one
        self._numbers[one.tombstone_id] = number
        self._ids[number] = one.tombstone_id
        if one.sha256 is not None:
            self._files[one.sha256] = one
        if one.pdq is not None:
            self._pdq[one.tombstone_id] = from_hex(one.pdq)
        if picture is None:
            return
        for name, features in features_of(picture, self._kinds).items():
            changes[name][number] = features

    def _rows(self, name: str) -> Callable[[Sequence[int]], Mapping[int, Features]]:
        def rows(numbers: Sequence[int]) -> Mapping[int, Features]:
            kind = {name: self._kinds[name]}
            found = {
                number: features_of(picture, kind).get(name)
                for number, picture in self._pictures(numbers).items()
            }
            return {number: features for number, features in found.items() if features is not None}

        return rows

    def _pictures(self, numbers: Sequence[int]) -> dict[int, RememberedPicture]:
        ids = {self._ids[number]: number for number in numbers if number in self._ids}
        found = records.pictures(self._store, list(ids))
        return {ids[tombstone_id]: picture for tombstone_id, picture in found.items()}


def features_of(
    picture: RememberedPicture, kinds: Mapping[str, FeatureKind]
) -> dict[str, Features]:
    """Features by kind, as they were kept or, where the model has changed, of the preview."""
    shown: Picture | None = None
    found: dict[str, Features] = {}
    for name, kind in kinds.items():
        row = picture.features.get(kind.space)
        try:
            if row is not None:
                found[name] = kind.extractor.from_row(row)
            elif kind.in_ingress and picture.preview is not None:
                shown = shown or decode(picture.preview)
                found[name] = kind.extractor.extract(shown.view(kind.extractor.view))
        except (ValueError, InvalidInput) as exc:
            log.error("a tombstone is not found by %s: %s", name, exc)
    return found
