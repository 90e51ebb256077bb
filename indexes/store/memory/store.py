"""A store in plain dicts, for tests: the model with which the other stores are compared."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from indexes.store.annotations import changed_row, without
from indexes.store.base import (
    ANNOTATE,
    ANNOTATIONS,
    Author,
    Changes,
    Guard,
    Image,
    ImageWrite,
    LogPage,
    Pending,
    Preview,
    Receipt,
    Space,
    Store,
)
from indexes.store.checks import (
    FIRST_UNCOUNTED_ID,
    check_claim,
    check_guard,
    check_space_inactive,
    check_version,
    check_writes,
    counted,
    dump_metadata,
    free_ids,
    is_unwanted,
    merged,
    wanted_kinds,
    wanted_terms,
)
from indexes.store.memory.image import StoredImage
from indexes.store.memory.records import MemoryRecords
from indexes.store.scan import Scan
from models.errors import StoreUnavailable


class MemoryStore(MemoryRecords, Store):
    """Every method holds one lock and is therefore a transaction."""

    def __init__(self, originals_bytes: int = 2 << 30) -> None:
        super().__init__()
        self._originals_bytes = originals_bytes
        self._uuid = uuid.uuid4().hex
        self._lock = threading.RLock()
        self._kept: dict[int, StoredImage] = {}
        self._log: dict[int, int] = {}
        self._leases: dict[str, tuple[str, float]] = {}
        self._active: dict[str, str | None] = {}
        self._marks: dict[str, tuple[int, float]] = {}
        self._claims: dict[str, tuple[int, str, float]] = {}
        self._seq = 0
        self._tail = 0
        self._next = 0
        self._closed = False

    # --- writes ----------------------------------------------------------------------------------

    def put_many(self, writes: Sequence[ImageWrite]) -> list[Receipt]:
        check_writes(writes)
        with self._open():
            # All or none are written: another version raises before the first write.
            for image_id, write in {one.image_id: one for one in reversed(writes)}.items():
                if image_id is not None:
                    self._check_version(image_id, write.if_version)
            return [self._put(write) for write in writes]

    def put_if(self, writes: Sequence[ImageWrite], guard: Guard) -> list[Receipt]:
        with self._open():
            check_guard(guard, self.changes(guard.space, guard.after))
            return self.put_many(writes)

    def delete(self, image_id: int, if_version: int | None = None) -> int | None:
        with self._open():
            self._check_version(image_id, if_version)
            return None if self._kept.pop(image_id, None) is None else self._entry(image_id)

    def delete_kind(self, image_id: int, kind: str) -> int | None:
        with self._open():
            kept = self._kept.get(image_id)
            if kept is None or kind not in kept.image.wanted:
                return None
            kept.image = replace(kept.image, wanted=kept.image.wanted - {kind})
            if is_unwanted(kept.image.wanted):
                return self.delete(image_id)
            if kind.startswith(ANNOTATE):
                row = kept.features.get(ANNOTATIONS)
                kept.annotated(without(row, kind.removeprefix(ANNOTATE)))
            kept.features = {at: data for at, data in kept.features.items() if at.kind != kind}
            kept.with_updated_row()
            return self._entry(image_id)

    def complete(
        self, image_id: int, generation: int, features: Mapping[Space, bytes]
    ) -> int | None:
        with self._open():
            kept = self._kept.get(image_id)
            if kept is None or kept.image.generation != generation:
                return None
            given = {at: data for at, data in features.items() if at.kind in kept.image.wanted}
            if not given:
                return None
            if given.items() <= kept.features.items():
                return self._seq
            kept.features.update(given)
            kept.with_updated_row()
            return self._entry(image_id)

    def annotate(
        self,
        image_id: int,
        generation: int,
        annotations: Mapping[str, Mapping[str, Any] | None],
        by: Author,
        metadata: Mapping[str, Any] | None = None,
        if_version: int | None = None,
    ) -> int | None:
        with self._open():
            self._check_version(image_id, if_version)
            kept = self._kept.get(image_id)
            if kept is None or kept.image.generation != generation:
                return None
            row = kept.features.get(ANNOTATIONS)
            changed = changed_row(row, annotations, by)
            now = orjson.loads(dump_metadata(merged(kept.image.metadata, metadata or {})))
            if changed == row and now == kept.image.metadata:
                return self._seq
            kept.image = replace(kept.image, metadata=now)
            kept.annotated(changed)
            return self._entry(image_id)

    def activate(self, kind: str, fingerprint: str | None) -> None:
        with self._open():
            self._active[kind] = fingerprint

    def drop_space(self, space: Space) -> int:
        with self._open():
            check_space_inactive(space, self.active())
            held = [at for at, kept in sorted(self._kept.items()) if space in kept.features]
            for image_id in held:
                del self._kept[image_id].features[space]
                self._kept[image_id].with_updated_row()
                self._entry(image_id)
            return len(held)

    def compact(self, through: int) -> None:
        with self._open():
            self._tail = max(self._tail, min(through, self._seq))
            self._log = {seq: at for seq, at in self._log.items() if seq > self._tail}

    def reserve_ids(self, following: int) -> int:
        with self._open():
            self._next = max(self._next, min(following, FIRST_UNCOUNTED_ID))
            return self._next

    def claim_id(self, key: str, sha256: str, seconds: float) -> int:
        with self._open():
            image_id, claimed, ends = self._claims.get(key, (0, "", 0.0))
            if ends > time.time():
                check_claim(claimed, sha256)
                return image_id
            image_id = self._take_id()
            self._claims[key] = image_id, sha256, time.time() + seconds
            return image_id

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        with self._open():
            other, expires = self._leases.get(name, (holder, 0.0))
            if other != holder and expires > time.time():
                return False
            self._leases[name] = (holder, time.time() + seconds)
            return True

    def release(self, name: str, holder: str) -> None:
        with self._open():
            if self._leases.get(name, ("", 0.0))[0] == holder:
                del self._leases[name]

    def mark(self, name: str, seq: int, seconds: float) -> None:
        with self._open():
            self._marks[name] = (seq, time.time() + seconds)

    def _put(self, write: ImageWrite) -> Receipt:
        self._next = counted(self._next, [write.image_id])
        image_id = self._take_id() if write.image_id is None else write.image_id
        self._check_version(image_id, write.if_version)
        old = self._kept.get(image_id)
        if old is not None and old.image.sha256 == write.sha256:
            return self._extend(image_id, old, write)
        seq = self._seq + 1
        self._kept[image_id] = self._filled(StoredImage.begun(image_id, seq, write), write)
        return Receipt(
            image_id, self._entry(image_id), seq, "created" if old is None else "replaced"
        )

    def _extend(self, image_id: int, old: StoredImage, write: ImageWrite) -> Receipt:
        generation = old.image.generation
        new = self._filled(replace(old, features=dict(old.features)), write)
        if replace(new, stored=old.stored) == old:
            return Receipt(image_id, generation, generation, "unchanged")
        self._kept[image_id] = new
        return Receipt(image_id, self._entry(image_id), generation, "replaced")

    def _filled(self, kept: StoredImage, write: ImageWrite) -> StoredImage:
        image = kept.image
        kept.features.update(write.features)
        kept.preview = write.preview if kept.preview is None else kept.preview
        metadata = image.metadata if write.metadata is None else write.metadata
        kept.image = replace(
            image,
            wanted=image.wanted | wanted_kinds(write),
            metadata=orjson.loads(dump_metadata(metadata)),
            source=image.source if write.source == "online" else write.source,
            upload_name=write.upload_name or image.upload_name,
            facts=write.facts or image.facts,
        )
        pending = kept.missing()
        if write.original is not None and kept.original is None and pending:
            self._keep_original(kept, write.original)
        return kept.with_updated_row()

    def _keep_original(self, kept: StoredImage, data: bytes) -> None:
        if len(data) > self._originals_bytes:
            return
        # The original of an image that is being replaced no longer counts.
        others = [one for at, one in self._kept.items() if at != kept.image.image_id]
        holders = sorted((one for one in others if one.original), key=lambda one: one.stored)
        held = sum(len(one.original or b"") for one in holders)
        for oldest in holders:
            if held + len(data) <= self._originals_bytes:
                break
            held -= len(oldest.original or b"")
            oldest.original = None
            oldest.with_updated_row()
        kept.original, kept.stored = data, self._seq + 1

    def _entry(self, image_id: int) -> int:
        self._seq += 1
        self._log[self._seq] = image_id
        if kept := self._kept.get(image_id):
            kept.image = replace(kept.image, version=self._seq)
        return self._seq

    def _take_id(self) -> int:
        (image_id,) = free_ids(self._next, 1, self._kept)
        self._next = image_id + 1
        return image_id

    def _check_version(self, image_id: int, expected: int | None) -> None:
        kept = self._kept.get(image_id)
        check_version(expected, None if kept is None else kept.image.version)

    # --- reads -----------------------------------------------------------------------------------

    @property
    def uuid(self) -> str:
        return self._uuid

    def head(self) -> int:
        with self._open():
            return self._seq

    def marks(self) -> dict[str, int]:
        with self._open():
            return {n: seq for n, (seq, until) in self._marks.items() if until > time.time()}

    def changes(self, space: Space, after: int, limit: int | None = None) -> Changes | None:
        with self._open():
            if not self._tail <= after <= self._seq:
                return None
            head = self._seq if limit is None else min(self._seq, after + limit)
            ids = {self._log[seq] for seq in range(after + 1, head + 1)}
            return Changes(head, {image_id: self._row(space, image_id) for image_id in ids})

    def log(self, after: int, limit: int) -> LogPage | None:
        with self._open():
            if not self._tail <= after <= self._seq:
                return None
            head = min(self._seq, after + limit)
            return LogPage(head, {self._log[seq]: seq for seq in range(after + 1, head + 1)})

    def scan(self, space: Space, batch: int = 4096) -> Scan:
        with self._open():
            found = [(image_id, self._row(space, image_id)) for image_id in sorted(self._kept)]
            rows = [(image_id, data) for image_id, data in found if data is not None]

            def batches() -> Iterator[list[tuple[int, bytes]]]:
                for start in range(0, len(rows), batch):
                    yield rows[start : start + batch]

            return Scan(self._seq, batches(), lambda: None)

    def rows(self, space: Space, image_ids: Sequence[int]) -> dict[int, bytes]:
        with self._open():
            found = ((int(image_id), self._row(space, image_id)) for image_id in image_ids)
            return {image_id: data for image_id, data in found if data is not None}

    def images(self, after: int = -1, limit: int = 100) -> list[Image]:
        with self._open():
            return list(
                self.images_by_id([at for at in sorted(self._kept) if at > after][:limit]).values()
            )

    def images_by_id(self, image_ids: Sequence[int]) -> dict[int, Image]:
        with self._open():
            return {
                int(image_id): self._kept[image_id].image
                for image_id in image_ids
                if image_id in self._kept
            }

    def ids_by_file_name(self, file_name: str) -> list[int]:
        with self._open():
            return sorted(at for at, one in self._kept.items() if one.image.file_name == file_name)

    def ids_by_sha256(self, sha256: str) -> list[int]:
        with self._open():
            return sorted(at for at, kept in self._kept.items() if kept.image.sha256 == sha256)

    def ids_by_metadata(self, metadata: Mapping[str, Any]) -> list[int]:
        terms = set(wanted_terms(metadata))
        with self._open():
            return sorted(at for at, one in self._kept.items() if terms <= one.terms())

    def previews(self, image_ids: Sequence[int]) -> dict[int, Preview]:
        with self._open():
            kept = {at: self._kept[at] for at in image_ids if at in self._kept}
            return {at: one.shown for at, one in kept.items() if one.shown is not None}

    def original(self, image_id: int, generation: int) -> bytes | None:
        with self._open():
            kept = self._kept.get(image_id)
            if kept is None or kept.image.generation != generation:
                return None
            return kept.original

    def pending(self, kind: str, after: int = -1, limit: int = 64) -> list[Pending]:
        with self._open():
            rows = [one.image for _, one in sorted(self._kept.items(), key=lambda item: item[0])]
            return [
                Pending(row.image_id, row.generation, row.has_original, row.has_preview)
                for row in rows
                if row.image_id > after and kind in row.pending
            ][:limit]

    def ids_by_source(self) -> dict[str, int]:
        with self._open():
            rows = (self._kept[at].image for at in sorted(self._kept))
            return {row.source: row.image_id for row in rows if row.source != "online"}

    def missing(self, kinds: Mapping[str, str], image_ids: Sequence[int]) -> dict[int, set[str]]:
        wanted = [Space(kind, fingerprint) for kind, fingerprint in kinds.items()]
        with self._open():
            return {
                int(image_id): {
                    space.kind for space in wanted if space not in self._kept[image_id].features
                }
                for image_id in image_ids
                if image_id in self._kept
            }

    def active(self) -> dict[str, str]:
        with self._open():
            return {kind: mark for kind, mark in self._active.items() if mark is not None}

    def spaces(self) -> list[Space]:
        with self._open():
            return sorted({space for kept in self._kept.values() for space in kept.features})

    def count(self) -> int:
        with self._open():
            return len(self._kept)

    def close(self) -> None:
        self._closed = True

    def _open(self) -> threading.RLock:
        if self._closed:
            raise StoreUnavailable("the store was closed: open it again")
        return self._lock

    def _row(self, space: Space, image_id: int) -> bytes | None:
        kept = self._kept.get(image_id)
        return None if kept is None else kept.features.get(space)
