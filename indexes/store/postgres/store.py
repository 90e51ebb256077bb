"""The store for clusters: a PostgreSQL database, shared by processes of any host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from indexes.store.base import (
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
    check_space_inactive,
    check_writes,
    counted,
    is_image_id,
    wanted_terms,
)
from indexes.store.postgres import records
from indexes.store.postgres.connections import Connection, ConnectionPool, PostgresOptions
from indexes.store.postgres.draft import Draft
from indexes.store.postgres.listener import Listener
from indexes.store.postgres.rows import HEAD, SPACE, Reader
from indexes.store.postgres.schema import migrate, read_uuid
from indexes.store.postgres.writes import (
    activate,
    change,
    claim_id,
    claim_ids,
    mark,
    number_spaces,
    reserve_ids,
    trim_originals,
)
from indexes.store.records import Record, RecordKey, check_records
from indexes.store.scan import Scan
from indexes.store.summary import Sizes
from models.errors import StoreUnavailable

T = TypeVar("T")

COMPACT_STEP = 10_000
"""Maximum number of log entries compacted in one transaction."""
DROP_STEP = 256
"""Maximum number of rows dropped in one transaction."""
TRIM_SHARE = 64
"""Divisor: the total of originals is checked after writes of 1/TRIM_SHARE of its limit."""


class PostgresStore(Store):
    """A store in a database, which processes of many hosts may open at the same time."""

    def __init__(self, url: str, options: PostgresOptions | None = None) -> None:
        self._options = options or PostgresOptions()
        self._connections = ConnectionPool(url, self._options)
        self._listener = Listener(self._connections)
        self._numbers: dict[Space, int] = {}
        self._claimed_below = 0
        """Ids below this one are known to be claimed; other processes may have claimed more."""
        self._kept = self._options.originals_bytes
        """Bytes of originals written since their total was last checked."""
        self._connections.check = migrate
        self._uuid = self._run(read_uuid)
        self._connections.check = self._check_same_store

    # --- writes ----------------------------------------------------------------------------------

    def put_many(self, writes: Sequence[ImageWrite]) -> list[Receipt]:
        return self._put(writes)

    def put_if(self, writes: Sequence[ImageWrite], guard: Guard) -> list[Receipt]:
        return self._put(writes, guard)

    def _put(self, writes: Sequence[ImageWrite], guard: Guard | None = None) -> list[Receipt]:
        check_writes(writes)
        spaces = {space for write in writes for space in write.features}

        def attempt(connection: Connection) -> tuple[list[Receipt], Callable[[int], int]]:
            ids = self._claim(connection, [write.image_id for write in writes])

            def work(draft: Draft) -> list[Receipt]:
                return [draft.put(at, write) for at, write in zip(ids, writes, strict=True)]

            return self._change(connection, ids, spaces, work, guard)

        receipts, seq = self._run(attempt)
        self._trim(sum(len(write.original or b"") for write in writes))
        return [
            Receipt(one.image_id, seq(one.seq), seq(one.generation), one.outcome)
            for one in receipts
        ]

    def delete(self, image_id: int, if_version: int | None = None) -> int | None:
        return self._change_one(image_id, (), lambda draft: draft.delete(image_id, if_version))

    def delete_kind(self, image_id: int, kind: str) -> int | None:
        return self._change_one(image_id, (), lambda draft: draft.delete_kind(image_id, kind))

    def complete(
        self, image_id: int, generation: int, features: Mapping[Space, bytes]
    ) -> int | None:
        return self._change_one(
            image_id, features, lambda draft: draft.complete(image_id, generation, features)
        )

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
        return self._change_one(
            image_id,
            (),
            lambda draft: draft.annotate(
                image_id, generation, annotations, by, changes, if_version
            ),
        )

    def activate(self, kind: str, fingerprint: str | None) -> None:
        self._run(lambda connection: activate(connection, kind, fingerprint))

    def drop_space(self, space: Space) -> int:
        def work(draft: Draft) -> int:
            check_space_inactive(space, self.active())  # `activate` waits for this transaction.
            return draft.drop_space(space)

        def step(connection: Connection) -> int:
            ids = Reader(connection).ids_in(space, DROP_STEP)
            return self._change(connection, ids, [space], work)[0] if ids else 0

        check_space_inactive(space, self.active())
        dropped = 0
        while more := self._run(step):
            dropped += more
        return dropped

    def compact(self, through: int) -> None:
        def step(connection: Connection) -> bool:
            with connection.transaction():
                ends = connection.execute(
                    f"SELECT tail, least(%s, {HEAD}) FROM store FOR UPDATE".encode(), [through]
                )
                tail, last = ends.fetchone() or (0, 0)
                until = min(last, tail + COMPACT_STEP)
                if until > tail:
                    connection.execute("DELETE FROM log WHERE seq <= %s", [until])
                    connection.execute("UPDATE store SET tail = %s", [until])
                return bool(until >= last)

        while not self._run(step):
            pass

    def reserve_ids(self, following: int) -> int:
        return self._run(lambda connection: reserve_ids(connection, following))

    def claim_id(self, key: str, sha256: str, seconds: float) -> int:
        return self._run(lambda connection: claim_id(connection, key, sha256, seconds))

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        def work(connection: Connection) -> bool:
            taken = connection.execute(
                "INSERT INTO leases AS l VALUES "
                "(%(name)s, %(holder)s, clock_timestamp() + %(seconds)s * interval '1 second') "
                "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, ends = excluded.ends "
                "WHERE l.holder = excluded.holder OR l.ends <= clock_timestamp() RETURNING 1",
                {"name": name, "holder": holder, "seconds": seconds},
            )
            return taken.fetchone() is not None

        return self._run(work)

    def release(self, name: str, holder: str) -> None:
        sql = "DELETE FROM leases WHERE name = %s AND holder = %s"
        self._run(lambda connection: connection.execute(sql, [name, holder]))

    def mark(self, name: str, seq: int, seconds: float) -> None:
        self._run(lambda connection: mark(connection, name, seq, seconds))

    def write_records(
        self,
        writes: Mapping[RecordKey, bytes | None],
        expected: Mapping[RecordKey, bytes | None] | None = None,
    ) -> None:
        check_records([*writes, *(expected or {})])
        self._run(lambda connection: records.write(connection, writes, expected or {}))

    # --- reads -----------------------------------------------------------------------------------

    @property
    def uuid(self) -> str:
        return self._uuid

    def head(self) -> int:
        return self._connections.run(
            lambda connection: Reader(connection).head(), self._options.head_timeout
        )

    def marks(self) -> dict[str, int]:
        return self._read(lambda reader: reader.marks())

    def wait(self, after: int, seconds: float, ended: threading.Event) -> None:
        self._listener.wait(after, seconds, ended)

    def changes(self, space: Space, after: int, limit: int | None = None) -> Changes | None:
        return self._read(lambda reader: reader.changes(space, after, limit))

    def log(self, after: int, limit: int) -> LogPage | None:
        return self._read(lambda reader: reader.log(after, limit))

    def scan(self, space: Space, batch: int = 4096) -> Scan:
        connection = self._connections.connect()

        def batches() -> Iterator[list[tuple[int, bytes]]]:
            with self._connections.translated():
                while rows := cursor.fetchmany(batch):
                    yield rows

        try:
            with self._connections.translated():
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                # The consumer of a scan may be slow; a dead one is found by the
                # connection's own checks.
                connection.execute("SET LOCAL idle_in_transaction_session_timeout TO 0")
                head = Reader(connection).head()
                cursor = connection.cursor("scan", withhold=False)
                sql = f"SELECT image_id, data FROM features WHERE space = {SPACE} ORDER BY image_id"
                cursor.execute(sql.encode(), space._asdict(), binary=True)
        except BaseException:
            connection.close()
            raise
        return Scan(head, batches(), connection.close)

    def rows(self, space: Space, image_ids: Sequence[int]) -> dict[int, bytes]:
        return self._read(lambda reader: reader.rows(space, image_ids))

    def images(self, after: int = -1, limit: int = 100) -> list[Image]:
        return self._read(lambda reader: reader.images(after, limit))

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
        return self._read(lambda reader: reader.original(image_id, generation))

    def pending(self, kind: str, after: int = -1, limit: int = 64) -> list[Pending]:
        return self._read(lambda reader: reader.pending(kind, after, limit))

    def ids_by_source(self) -> dict[str, int]:
        return self._read(lambda reader: reader.ids_by_source())

    def missing(self, kinds: Mapping[str, str], image_ids: Sequence[int]) -> dict[int, set[str]]:
        return self._read(lambda reader: reader.missing(kinds, image_ids))

    def active(self) -> dict[str, str]:
        return self._read(lambda reader: reader.active())

    def spaces(self) -> list[Space]:
        return self._read(lambda reader: reader.spaces())

    def count(self) -> int:
        return self._read(lambda reader: int(reader.one("SELECT count(*) FROM images")))

    def sizes(self) -> Sizes:
        return self._read(lambda reader: reader.sizes())

    def records_by_key(self, kind: str, keys: Collection[str]) -> dict[str, bytes]:
        return self._read(lambda reader: records.by_key(reader, kind, keys))

    def records(
        self, kind: str, after: str = "", limit: int = 100, prefix: str = ""
    ) -> list[Record]:
        return self._read(lambda reader: records.page(reader, kind, after, limit, prefix))

    def record_kinds(self) -> list[str]:
        return self._read(records.kinds)

    def close(self) -> None:
        self._listener.close()
        self._connections.close()

    # --- transactions ----------------------------------------------------------------------------

    def _read(self, work: Callable[[Reader], T]) -> T:
        timeout = self._options.read_timeout
        return self._connections.run(lambda connection: work(Reader(connection)), timeout)

    def _run(self, work: Callable[[Connection], T]) -> T:
        # The 2 s let the server's own time-out come first, because its error says more.
        return self._connections.run(work, self._options.write_timeout + 2)

    def _change(
        self,
        connection: Connection,
        image_ids: Sequence[int],
        spaces: Collection[Space],
        work: Callable[[Draft], T],
        guard: Guard | None = None,
    ) -> tuple[T, Callable[[int], int]]:
        wanted = {*spaces, ANNOTATIONS}
        numbers = self._numbers
        if not wanted <= numbers.keys():
            numbers = self._numbers = number_spaces(connection, wanted)
        room = self._options.originals_bytes
        return change(connection, image_ids, spaces, numbers, room, work, guard)

    def _change_one(
        self, image_id: int, spaces: Collection[Space], work: Callable[[Draft], int | None]
    ) -> int | None:
        if not is_image_id(image_id):
            return None
        done, seq = self._run(lambda connection: self._change(connection, [image_id], spaces, work))
        return None if done is None else seq(done)

    def _claim(self, connection: Connection, given: Sequence[int | None]) -> list[int]:
        known = [image_id for image_id in given if image_id is not None]
        if len(known) < len(given) or counted(0, known) > self._claimed_below:
            ids = claim_ids(connection, given)
            self._claimed_below = counted(self._claimed_below, ids)
            return ids
        return known

    def _trim(self, written: int) -> None:
        """Remove the oldest originals if they may exceed their limit.

        Raises nothing if the store is unavailable, because the write itself has succeeded.
        """
        self._kept += written
        room = self._options.originals_bytes
        if written and self._kept > room // TRIM_SHARE:
            try:
                self._run(lambda connection: trim_originals(connection, room))
            except StoreUnavailable:
                return  # The next write tries again.
            self._kept = 0

    def _check_same_store(self, connection: Connection) -> None:
        """Check that a new connection leads to the same store. Raises StoreUnavailable.

        Cached numbers and claimed ids are forgotten: the server may have lost the newest changes.
        """
        self._numbers, self._claimed_below = {}, 0
        migrate(connection)
        if read_uuid(connection) != self._uuid:
            raise StoreUnavailable(
                "the database holds another store than when this process started (a restored "
                "backup?): restart ambience"
            )
