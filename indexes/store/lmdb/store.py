"""The embedded store: an LMDB environment in one folder of one host, shared by its processes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from indexes.store.base import (
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
from indexes.store.checks import check_writes, name_hash, wanted_terms
from indexes.store.lmdb import records
from indexes.store.lmdb.environment import Environment, LmdbOptions, acquire, release
from indexes.store.lmdb.rows import BACKUP, SCHEMA, Reader, number, pending_key
from indexes.store.lmdb.writes import Writer
from indexes.store.records import Record, RecordKey, check_records
from indexes.store.scan import Scan
from indexes.store.summary import Sizes, Summary
from models.errors import StoreUnavailable

T = TypeVar("T")

COMPACT_STEP = 10_000
"""Maximum number of log entries compacted in one transaction, to block other writers only
briefly."""
DROP_STEP = 500
"""Maximum number of rows dropped in one transaction, for the same reason."""


class LmdbStore(Store):
    """A store in a folder, which all processes of this host may open at the same time."""

    def __init__(self, folder: Path, options: LmdbOptions | None = None) -> None:
        self._options = options or LmdbOptions()
        self._opened: Environment | None = acquire(folder, self._options)
        try:
            self._uuid = self._write(_read_or_create_uuid)
        except BaseException:
            self.close()
            raise

    # --- writes ----------------------------------------------------------------------------------

    def put_many(self, writes: Sequence[ImageWrite]) -> list[Receipt]:
        check_writes(writes)
        return self._write(lambda writer: [writer.put(write) for write in writes])

    def put_if(self, writes: Sequence[ImageWrite], guard: Guard) -> list[Receipt]:
        check_writes(writes)
        return self._write(lambda writer: writer.put_if(writes, guard))

    def delete(self, image_id: int, if_version: int | None = None) -> int | None:
        return self._write(lambda writer: writer.delete(image_id, if_version))

    def delete_kind(self, image_id: int, kind: str) -> int | None:
        return self._write(lambda writer: writer.delete_kind(image_id, kind))

    def complete(
        self, image_id: int, generation: int, features: Mapping[Space, bytes]
    ) -> int | None:
        return self._write(lambda writer: writer.complete(image_id, generation, features))

    def annotate(
        self,
        image_id: int,
        generation: int,
        annotations: Mapping[str, Mapping[str, Any] | None],
        by: Author,
        metadata: Mapping[str, Any] | None = None,
        if_version: int | None = None,
    ) -> int | None:
        changes = metadata or {}
        return self._write(
            lambda writer: writer.annotate(
                image_id, generation, annotations, by, changes, if_version
            )
        )

    def activate(self, kind: str, fingerprint: str | None) -> None:
        self._write(lambda writer: writer.activate(kind, fingerprint))

    def drop_space(self, space: Space) -> int:
        dropped = 0
        while more := self._write(lambda writer: writer.drop_space(space, DROP_STEP)):
            dropped += more
        return dropped

    def compact(self, through: int) -> None:
        while not self._write(lambda writer: writer.compact(through, COMPACT_STEP)):
            pass

    def reserve_ids(self, following: int) -> int:
        return self._write(lambda writer: writer.reserve_ids(following))

    def claim_id(self, key: str, sha256: str, seconds: float) -> int:
        return self._write(lambda writer: writer.claim_id(name_hash(key), sha256, seconds))

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        return self._write(lambda writer: writer.lease(name, holder, seconds))

    def release(self, name: str, holder: str) -> None:
        self._write(lambda writer: writer.release(name, holder))

    def mark(self, name: str, seq: int, seconds: float) -> None:
        self._write(lambda writer: writer.mark(name, seq, seconds))

    def write_records(
        self,
        writes: Mapping[RecordKey, bytes | None],
        expected: Mapping[RecordKey, bytes | None] | None = None,
    ) -> None:
        check_records([*writes, *(expected or {})])
        self._write(lambda writer: records.write(writer, writes, expected or {}))

    # --- reads -----------------------------------------------------------------------------------

    @property
    def uuid(self) -> str:
        return self._uuid

    def head(self) -> int:
        return self._read(lambda reader: reader.meta(b"seq"))

    def marks(self) -> dict[str, int]:
        return self._read(lambda reader: reader.marks())

    def changes(self, space: Space, after: int, limit: int | None = None) -> Changes | None:
        return self._read(lambda reader: reader.changes(space, after, limit))

    def log(self, after: int, limit: int) -> LogPage | None:
        return self._read(lambda reader: reader.log(after, limit))

    def scan(self, space: Space, batch: int = 4096) -> Scan:
        environment = self._environment
        txn, close = environment.snapshot()
        reader = Reader(txn, environment.tables)

        def batches() -> Iterator[list[tuple[int, bytes]]]:
            with environment.translated():
                yield from reader.space_rows(reader.space_number(space), batch)

        try:
            with environment.translated():
                return Scan(reader.meta(b"seq"), batches(), close)
        except BaseException:
            close()
            raise

    def rows(self, space: Space, image_ids: Sequence[int]) -> dict[int, bytes]:
        def work(reader: Reader) -> dict[int, bytes]:
            return reader.features(reader.space_number(space), map(int, image_ids))

        return self._read(work)

    def images(self, after: int = -1, limit: int = 100) -> list[Image]:
        def work(reader: Reader) -> list[Image]:
            return list(
                reader.images_by_id(
                    list(islice(reader.ids_under("images", b"", after), limit))
                ).values()
            )

        return self._read(work)

    def summaries(self, after: int = -1, limit: int = 100) -> list[Summary]:
        return self._read(lambda reader: list(islice(reader.summaries(after), limit)))

    def images_by_id(self, image_ids: Sequence[int]) -> dict[int, Image]:
        return self._read(lambda reader: reader.images_by_id(image_ids))

    def ids_by_file_name(self, file_name: str) -> list[int]:
        return self._read(lambda reader: reader.ids_by_file_name(file_name))

    def ids_by_sha256(self, sha256: str) -> list[int]:
        return self._read(lambda reader: reader.ids_by_sha256(sha256))

    def ids_by_metadata(self, metadata: Mapping[str, Any]) -> list[int]:
        terms = wanted_terms(metadata)
        return self._read(lambda reader: reader.ids_by_metadata(terms))

    def previews(self, image_ids: Sequence[int]) -> dict[int, Preview]:
        return self._read(lambda reader: reader.previews(image_ids))

    def original(self, image_id: int, generation: int) -> bytes | None:
        def work(reader: Reader) -> bytes | None:
            row = reader.row(image_id)
            if row is None or row.generation != generation or not row.original:
                return None
            return reader.original(image_id, row)

        return self._read(work)

    def pending(self, kind: str, after: int = -1, limit: int = 64) -> list[Pending]:
        def work(reader: Reader) -> list[Pending]:
            ids = islice(reader.ids_under("pending", pending_key(kind), after), limit)
            return [reader.pending(image_id) for image_id in ids]

        return self._read(work)

    def ids_by_source(self) -> dict[str, int]:
        def work(reader: Reader) -> dict[str, int]:
            rows = reader.image_rows()
            return {row.source: image_id for image_id, row in rows if row.source != "online"}

        return self._read(work)

    def missing(self, kinds: Mapping[str, str], image_ids: Sequence[int]) -> dict[int, set[str]]:
        def work(reader: Reader) -> dict[int, set[str]]:
            spaces = {kind: reader.space_number(Space(kind, mark)) for kind, mark in kinds.items()}
            rows = ((int(image_id), reader.row(image_id)) for image_id in image_ids)
            return {
                image_id: {kind for kind in spaces if spaces[kind] not in row.have.get(kind, [])}
                for image_id, row in rows
                if row is not None
            }

        return self._read(work)

    def active(self) -> dict[str, str]:
        return self._read(lambda reader: reader.active())

    def spaces(self) -> list[Space]:
        return self._read(lambda reader: reader.spaces())

    def count(self) -> int:
        return self._read(lambda reader: int(reader.txn.stat(reader.tables["images"])["entries"]))

    def sizes(self) -> Sizes:
        return Sizes(
            self._environment.file_bytes(), self._read(lambda reader: reader.preview_bytes())
        )

    def records_by_key(self, kind: str, keys: Collection[str]) -> dict[str, bytes]:
        return self._read(lambda reader: records.by_key(reader, kind, keys))

    def records(
        self, kind: str, after: str = "", limit: int = 100, prefix: str = ""
    ) -> list[Record]:
        return self._read(lambda reader: records.page(reader, kind, after, limit, prefix))

    def record_kinds(self) -> list[str]:
        return self._read(records.kinds)

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            release(opened)

    # --- transactions ----------------------------------------------------------------------------

    @property
    def _environment(self) -> Environment:
        if self._opened is None:
            raise StoreUnavailable("the store was closed: open it again")
        return self._opened

    def _read(self, work: Callable[[Reader], T]) -> T:
        environment = self._environment
        return environment.read(lambda txn: work(Reader(txn, environment.tables)))

    def _write(self, work: Callable[[Writer], T]) -> T:
        environment = self._environment

        def attempt(txn: lmdb.Transaction[bytes]) -> T:
            writer = Writer(txn, environment.tables)
            writer.originals_bytes = self._options.originals_bytes
            return work(writer)

        return environment.write(attempt)


def _read_or_create_uuid(writer: Writer) -> str:
    """Read the UUID of the store, or create it in a new store and in each restored backup.

    Raises StoreUnavailable for a store with another layout.
    """
    known = writer.get("meta", b"uuid")
    if known is None:
        writer.put_meta(b"schema", SCHEMA)
    if known is None or writer.meta(BACKUP):
        writer.put_meta(BACKUP, 0)
        known = uuid.uuid4().hex.encode()
        writer.keep("meta", b"uuid", known)
    layout = writer.meta(b"schema")
    if layout != SCHEMA:
        advice = (
            "start the version of ambience that wrote it, or a newer one"
            if layout > SCHEMA
            else "copy it to PostgreSQL with the version that wrote it (`ambience store copy`), "
            "and back with this one"
        )
        raise StoreUnavailable(
            f"the store has layout {layout}, this version reads {SCHEMA}: {advice}"
        )
    if not writer.meta(b"contents"):  # An older version did not index contents.
        for image_id, row in list(writer.image_rows()):
            writer.keep("contents", name_hash(row.sha256) + number(image_id))
        writer.put_meta(b"contents", 1)
    return known.decode()
