"""The records in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from indexes.store.postgres.connections import Connection
from indexes.store.postgres.rows import Reader
from indexes.store.records import Record, RecordKey, check_expected, keys_of

LOCK = 0x7265636F726473
"""Key of the advisory lock that writers of records hold until their transaction ends."""


def write(
    connection: Connection,
    writes: Mapping[RecordKey, bytes | None],
    expected: Mapping[RecordKey, bytes | None],
) -> None:
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        stored = {
            RecordKey(kind, key): value
            for kind, keys in keys_of(expected).items()
            for key, value in by_key(Reader(connection), kind, keys).items()
        }
        check_expected(expected, stored)
        gone = [name for name, value in writes.items() if value is None]
        kept = {name: value for name, value in writes.items() if value is not None}
        connection.execute(
            "DELETE FROM records USING unnest(%s::text[], %s::bytea[]) AS gone (kind, key) "
            "WHERE records.kind = gone.kind AND records.key = gone.key",
            [[name.kind for name in gone], [name.key.encode() for name in gone]],
        )
        connection.execute(
            "INSERT INTO records SELECT * FROM unnest(%s::text[], %b::bytea[], %b::bytea[]) "
            "ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
            [
                [name.kind for name in kept],
                [name.key.encode() for name in kept],
                list(kept.values()),
            ],
        )
        connection.committing = True
    connection.committing = False


def by_key(reader: Reader, kind: str, keys: Collection[str]) -> dict[str, bytes]:
    rows = reader.all(
        "SELECT key, value FROM records WHERE kind = %(kind)s AND key = ANY (%(keys)s::bytea[])",
        {"kind": kind, "keys": [key.encode() for key in keys]},
    )
    return {key.decode(): value for key, value in rows}


def page(reader: Reader, kind: str, after: str, limit: int, prefix: str) -> list[Record]:
    first = prefix.encode()
    given = {"kind": kind, "after": after.encode(), "first": first, "limit": limit}
    given["end"] = _end(first)
    below = "AND key < %(end)s " if given["end"] else ""
    rows = reader.all(
        "SELECT key, value FROM records WHERE kind = %(kind)s AND key > %(after)s "
        f"AND key >= %(first)s {below}ORDER BY key LIMIT %(limit)s",
        given,
    )
    return [Record(key.decode(), value) for key, value in rows]


def kinds(reader: Reader) -> list[str]:
    return [kind for (kind,) in reader.all("SELECT DISTINCT kind FROM records ORDER BY kind")]


def _end(prefix: bytes) -> bytes:
    """The first key above all that begin with a prefix; UTF-8 has no byte 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else b""
