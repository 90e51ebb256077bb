"""The writes of one LMDB transaction, which writes rows together with their log entry."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from indexes.store.annotations import annotated_kinds, changed_row, without
from indexes.store.base import (
    ANNOTATE,
    ANNOTATIONS,
    Author,
    Guard,
    ImageWrite,
    Receipt,
    Space,
    file_name_of,
)
from indexes.store.checks import (
    check_guard,
    check_space_inactive,
    check_version,
    dump_metadata,
    image_terms,
    is_unwanted,
    merged,
    name_hash,
    wanted_kinds,
)
from indexes.store.lmdb.coordination import Coordination
from indexes.store.lmdb.rows import (
    ACTIVE,
    ImageRow,
    entry,
    feature_key,
    number,
    pending_key,
    space_key,
    unpack_number,
)


class Writer(Coordination):
    """Performs the writes of one transaction."""

    originals_bytes: int
    """Maximum total bytes of originals."""

    # --- images ----------------------------------------------------------------------------------

    def put(self, write: ImageWrite) -> Receipt:
        image_id = self.take_id(write.image_id)
        row = self.row(image_id)
        check_version(write.if_version, None if row is None else row.version)
        if row is not None and row.sha256 == write.sha256:
            return self._extend(image_id, row, write)
        touched = self._remove(image_id, row) if row is not None else set()
        seq = self.meta(b"seq") + 1
        fresh = ImageRow(
            generation=seq,
            sha256=write.sha256,
            width=write.width,
            height=write.height,
            source=write.source,
            created=time.time() if write.created is None else write.created,
            wanted=set(),
        )
        self._name(image_id, write.source)
        self.keep("contents", name_hash(write.sha256) + number(image_id))
        touched |= self._fill(image_id, fresh, write)
        self._save(image_id, fresh, before=set())
        self._log(b"p", image_id, touched)
        return Receipt(image_id, seq, seq, "created" if row is None else "replaced")

    def put_if(self, writes: Sequence[ImageWrite], guard: Guard) -> list[Receipt]:
        check_guard(guard, self.changes(guard.space, guard.after, None))
        return [self.put(write) for write in writes]

    def delete(self, image_id: int, if_version: int | None = None) -> int | None:
        row = self.row(image_id)
        check_version(if_version, None if row is None else row.version)
        if row is None:
            return None
        return self._log(b"d", image_id, self._remove(image_id, row))

    def delete_kind(self, image_id: int, kind: str) -> int | None:
        row = self.row(image_id)
        if row is None or kind not in row.wanted:
            return None
        before = row.pending
        row.wanted.discard(kind)
        if is_unwanted(row.wanted):
            return self.delete(image_id)
        if kind.startswith(ANNOTATE):
            left = without(self._annotations(image_id), kind.removeprefix(ANNOTATE))
            touched = self._write_annotations(image_id, row, left)
        else:
            touched = set(row.have.pop(kind, []))
            self._drop_features(image_id, touched)
        self._save(image_id, row, before)
        return self._log(b"k", image_id, touched)

    def complete(
        self, image_id: int, generation: int, features: Mapping[Space, bytes]
    ) -> int | None:
        row = self.row(image_id)
        if row is None or row.generation != generation:
            return None
        given = {space: data for space, data in features.items() if space.kind in row.wanted}
        if not given:
            return None
        before = row.pending
        touched = self._write_features(image_id, row, given)
        if not touched:
            return self.meta(b"seq")
        self._save(image_id, row, before)
        return self._log(b"c", image_id, touched)

    def annotate(
        self,
        image_id: int,
        generation: int,
        annotations: Mapping[str, Mapping[str, Any] | None],
        by: Author,
        metadata: Mapping[str, Any],
        if_version: int | None,
    ) -> int | None:
        row = self.row(image_id)
        check_version(if_version, None if row is None else row.version)
        if row is None or row.generation != generation:
            return None
        changed = changed_row(self._annotations(image_id), annotations, by)
        before = row.pending
        touched = self._write_annotations(image_id, row, changed)
        stored = self.get("metadata", number(image_id))
        self._set_metadata(image_id, merged(orjson.loads(stored or b"{}"), metadata))
        if not touched and self.get("metadata", number(image_id)) == stored:
            return self.meta(b"seq")
        self._save(image_id, row, before)
        return self._log(b"a", image_id, touched)

    def _extend(self, image_id: int, row: ImageRow, write: ImageWrite) -> Receipt:
        stored, before = row.encode(), row.pending
        if write.source not in ("online", row.source):
            self._unname(image_id, row.source)
            self._name(image_id, write.source)
            row.source = write.source
        old_metadata = self.get("metadata", number(image_id))
        touched = self._fill(image_id, row, write)
        same_metadata = self.get("metadata", number(image_id)) == old_metadata
        if not touched and same_metadata and row.encode() == stored:
            return Receipt(image_id, row.generation, row.generation, "unchanged")
        self._save(image_id, row, before)
        seq = self._log(b"p", image_id, touched)
        return Receipt(image_id, seq, row.generation, "replaced")

    def _fill(self, image_id: int, row: ImageRow, write: ImageWrite) -> set[int]:
        """Write the given features, metadata, preview and original.

        Returns the numbers of the spaces whose row changed.
        """
        row.wanted |= wanted_kinds(write)
        row.upload_name = write.upload_name or row.upload_name
        row.facts = write.facts or row.facts
        touched = self._write_features(image_id, row, write.features)
        if write.metadata is not None:
            self._set_metadata(image_id, write.metadata)
        if write.preview is not None and not row.preview:
            self.keep("previews", number(image_id), write.preview)
            row.preview = True
        if write.original is not None and row.pending and not row.original:
            self._keep_original(image_id, row, write.original)
        return touched

    def _remove(self, image_id: int, row: ImageRow) -> set[int]:
        touched = row.space_numbers
        self._set_metadata(image_id, {})
        self._write_annotations(image_id, row, None)
        self._drop_features(image_id, touched)
        self._unname(image_id, row.source)
        self.drop("contents", name_hash(row.sha256) + number(image_id))
        self._mark_pending(image_id, row.pending, set())
        self._drop_original(image_id, row)
        self.drop("previews", number(image_id))
        self.drop("images", number(image_id))
        return touched

    def _save(self, image_id: int, row: ImageRow, before: set[str]) -> None:
        """Write the row, and update its pending entries from `before` to the current ones.

        The original is removed if no kind is pending. A log entry must follow; its seq becomes the
        row's version.
        """
        self._mark_pending(image_id, before, row.pending)
        row.version = self.meta(b"seq") + 1
        if not row.pending:
            self._drop_original(image_id, row)
        self.keep("images", number(image_id), row.encode())

    def _mark_pending(self, image_id: int, before: set[str], after: set[str]) -> None:
        for kind in before - after:
            self.drop("pending", pending_key(kind) + number(image_id))
        for kind in after - before:
            self.keep("pending", pending_key(kind) + number(image_id))

    def _name(self, image_id: int, source: str) -> None:
        if source != "online":
            self.keep("names", name_hash(file_name_of(image_id, source)) + number(image_id))

    def _unname(self, image_id: int, source: str) -> None:
        self.drop("names", name_hash(file_name_of(image_id, source)) + number(image_id))

    def _set_metadata(self, image_id: int, metadata: Mapping[str, object]) -> None:
        key = number(image_id)
        data = dump_metadata(metadata) if metadata else None
        if data == self.get("metadata", key):
            return
        before = self._terms(image_id)
        if data is None:
            self.drop("metadata", key)
        else:
            self.keep("metadata", key, data)
        self._mark_terms(image_id, before)

    def _annotations(self, image_id: int) -> bytes | None:
        return self.feature(self.space_number(ANNOTATIONS), image_id)

    def _write_annotations(self, image_id: int, row: ImageRow, data: bytes | None) -> set[int]:
        """Set the row of annotations to `data`, and update the kinds and terms that depend on it.

        Returns the numbers of the spaces whose row changed.
        """
        if data == self._annotations(image_id):
            return set()
        before = self._terms(image_id)
        known = self._space_number(ANNOTATIONS)
        row.have = {kind: at for kind, at in row.have.items() if not kind.startswith(ANNOTATE)}
        if data is None:
            row.have.pop(ANNOTATIONS.kind, None)
            self._drop_features(image_id, [known])
        else:
            self.keep("features", feature_key(known, image_id), data)
            row.have[ANNOTATIONS.kind] = [known]
            row.have.update({kind: [] for kind in annotated_kinds(data)})
        self._mark_terms(image_id, before)
        return {known}

    def _terms(self, image_id: int) -> set[bytes]:
        metadata = self.get("metadata", number(image_id))
        return image_terms(orjson.loads(metadata) if metadata else {}, self._annotations(image_id))

    def _mark_terms(self, image_id: int, before: set[bytes]) -> None:
        after = self._terms(image_id)
        for term in before - after:
            self.drop("terms", term + number(image_id))
        for term in after - before:
            self.keep("terms", term + number(image_id))

    # --- features --------------------------------------------------------------------------------

    def _write_features(
        self, image_id: int, row: ImageRow, features: Mapping[Space, bytes]
    ) -> set[int]:
        touched = set()
        for space, data in features.items():
            known = self._space_number(space)
            if self.feature(known, image_id) == data:
                continue
            self.keep("features", feature_key(known, image_id), data)
            row.have[space.kind] = sorted({*row.have.get(space.kind, []), known})
            touched.add(known)
        return touched

    def _space_number(self, space: Space) -> int:
        known = self.space_number(space)
        if known is None:
            # Numbers are never reused, because no entry is ever removed from this table.
            known = int(self.txn.stat(self.tables["spaces"])["entries"]) + 1
            self.keep("spaces", space_key(space), known.to_bytes(4, "big"))
        return known

    def _drop_features(self, image_id: int, spaces: Iterable[int]) -> None:
        for space in spaces:
            self.drop("features", feature_key(space, image_id))

    def activate(self, kind: str, fingerprint: str | None) -> None:
        if fingerprint is None:
            self.drop("meta", ACTIVE + kind.encode())
        else:
            self.keep("meta", ACTIVE + kind.encode(), fingerprint.encode())

    def drop_space(self, space: Space, limit: int) -> int:
        """Remove at most `limit` rows of a space. Returns their number."""
        check_space_inactive(space, self.active())
        known = self.space_number(space)
        if known is None:
            return 0
        ids = list(islice(self.ids_under("features", known.to_bytes(4, "big")), limit))
        for image_id in ids:
            row = self.row(image_id)
            assert row is not None, image_id
            before = row.pending
            left = [other for other in row.have.pop(space.kind) if other != known]
            row.have |= {space.kind: left} if left else {}
            self._drop_features(image_id, [known])
            self._save(image_id, row, before)
            self._log(b"c", image_id, {known})
        return len(ids)

    # --- originals -------------------------------------------------------------------------------

    def _keep_original(self, image_id: int, row: ImageRow, data: bytes) -> None:
        held = self.meta(b"originals") + len(data)
        if len(data) > self.originals_bytes:
            return
        while held > self.originals_bytes:
            held -= self._drop_oldest_original()
        row.original = self.meta(b"seq") + 1
        self.keep("originals", number(row.original) + number(image_id), data)
        self.put_meta(b"originals", held)

    def _drop_oldest_original(self) -> int:
        key = next(self.from_key("originals", b""))
        dropped = self.pop("originals", key)
        image_id = unpack_number(key[8:])
        row = self.row(image_id)
        assert row is not None, image_id
        row.original = 0
        self.keep("images", number(image_id), row.encode())
        return len(dropped)

    def _drop_original(self, image_id: int, row: ImageRow) -> None:
        if not row.original:
            return
        key = number(row.original) + number(image_id)
        dropped = self.pop("originals", key)
        self.put_meta(b"originals", self.meta(b"originals") - len(dropped))
        row.original = 0

    # --- log -------------------------------------------------------------------------------------

    def _log(self, op: bytes, image_id: int, touched: set[int]) -> int:
        seq = self.meta(b"seq") + 1
        self.keep("log", number(seq), entry(op, image_id, touched))
        self.put_meta(b"seq", seq)
        return seq

    def compact(self, through: int, limit: int) -> bool:
        """Compact log entries up to `through`, at most `limit` of them.

        Returns whether all of them are compacted.
        """
        through = min(through, self.meta(b"seq"))
        if through <= self.meta(b"tail"):
            return True
        until = min(through, self.meta(b"tail") + limit)
        for seq in range(self.meta(b"tail") + 1, until + 1):
            self.drop("log", number(seq))
        self.put_meta(b"tail", until)
        return until == through
