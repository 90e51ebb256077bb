"""The records of one LMDB transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice

from indexes.store.lmdb.coordination import Coordination
from indexes.store.lmdb.rows import Reader
from indexes.store.records import MAX_KEY_BYTES, MAX_KIND_BYTES, Record, RecordKey, check_expected

TABLE = "records"
MAX_BYTES = MAX_KIND_BYTES + 1 + MAX_KEY_BYTES


def write(
    writer: Coordination,
    writes: Mapping[RecordKey, bytes | None],
    expected: Mapping[RecordKey, bytes | None],
) -> None:
    found = ((name, writer.get(TABLE, _stored(name))) for name in expected)
    check_expected(expected, {name: value for name, value in found if value is not None})
    for name, value in writes.items():
        if value is None:
            writer.drop(TABLE, _stored(name))
        else:
            writer.keep(TABLE, _stored(name), value)


def by_key(reader: Reader, kind: str, keys: Collection[str]) -> dict[str, bytes]:
    names = ((key, _stored(RecordKey(kind, key))) for key in keys)
    found = ((key, reader.get(TABLE, name)) for key, name in names if len(name) <= MAX_BYTES)
    return {key: value for key, value in found if value is not None}


def page(reader: Reader, kind: str, after: str, limit: int, prefix: str) -> list[Record]:
    start = _stored(RecordKey(kind, ""))
    beginning = start + prefix.encode()
    # No key is longer, so what follows a cut key are the same keys.
    after_key = start + after.encode()[:MAX_KEY_BYTES] + b"\0" if after else beginning
    first = max(beginning, after_key)
    return list(islice(_from(reader, first, beginning, len(start)), limit))


def kinds(reader: Reader) -> list[str]:
    found: list[str] = []
    after = b""
    while key := next(reader.from_key(TABLE, after), None):
        kind = key.partition(b"\0")[0]
        found.append(kind.decode())
        after = kind + b"\1"
    return found


def _from(reader: Reader, first: bytes, prefix: bytes, skipped: int) -> Iterator[Record]:
    with reader.txn.cursor(db=reader.tables[TABLE]) as cursor:
        found = cursor.set_range(first)
        while found and (key := cursor.key()).startswith(prefix):
            yield Record(key[skipped:].decode(), cursor.value())
            found = cursor.next()


def _stored(name: RecordKey) -> bytes:
    return name.kind.encode() + b"\0" + name.key.encode()
