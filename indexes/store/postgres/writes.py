"""The write transactions of the PostgreSQL store.

A transaction locks its ids in order and reads their rows, then writes, and takes the log's single
lock last. Seqs are assigned under that lock, so a seq becomes visible only after all lower ones. No
round trip happens while the lock is held, except for the check of a guarded write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from indexes.store.base import ANNOTATIONS, Guard, Space, file_name_of
from indexes.store.checks import (
    FIRST_UNCOUNTED_ID,
    check_claim,
    check_guard,
    counted,
    dump_metadata,
    free_ids,
    name_hash,
)
from indexes.store.postgres.connections import Connection
from indexes.store.postgres.draft import Draft, Row
from indexes.store.postgres.rows import HEAD, Reader, facts_of, source_of
from models.types import MAX_IMAGE_ID

T = TypeVar("T")

CHANNEL = "ambience_log"
ALL, IMAGE, OF_LOG, OF_IDS = 0x616D6200, 0x616D6201, 0x616D6202, 0x616D6203
"""First keys of the advisory locks on all images, one image, the log and the id counter."""
MAX_SINGLE_LOCKS = 256
"""Number of ids above which a transaction locks all images with one lock, because the server has
room for only some thousand locks."""

_ROWS = """
    SELECT id, generation, sha256, width, height, source, created, wanted, have, metadata,
        (SELECT data FROM features f WHERE f.image_id = id AND f.space = %(annotations)s),
        EXISTS (SELECT FROM previews p WHERE p.image_id = id),
        EXISTS (SELECT FROM originals o WHERE o.image_id = id),
        coalesce(version, generation), upload_name, facts
    FROM images WHERE id = ANY (%(ids)s)
"""
_DIGESTS = """
    SELECT space, image_id, sha256(data) FROM features
    WHERE space = ANY (%(spaces)s) AND image_id = ANY (%(ids)s)
"""
_APPEND = f"""
    WITH base AS (SELECT {HEAD} AS seq), entries AS (
        INSERT INTO log (seq, image_id, spaces)
        SELECT base.seq + n, image_id, spaces::integer[]
        FROM base, unnest(%(entries)b::bigint[], %(touched)s::text[])
            WITH ORDINALITY AS e (image_id, spaces, n)
    ), written AS (
        INSERT INTO images AS i (id, generation, version, sha256, width, height, source, name,
            created, wanted, have, metadata, upload_name, facts)
        SELECT r.id, CASE WHEN r.generation < 0 THEN base.seq - r.generation ELSE r.generation END,
            CASE WHEN r.version < 0 THEN base.seq - r.version ELSE r.version END,
            r.sha256, r.width, r.height, r.source, r.name, r.created,
            r.wanted::jsonb, r.have::jsonb, r.metadata::json,
            r.upload_name, r.facts::json
        FROM base, unnest(%(id)b::bigint[], %(generation)b::bigint[], %(version)b::bigint[],
            %(sha256)s::text[], %(width)s::integer[], %(height)s::integer[], %(source)b::bytea[],
            %(name)b::bytea[], %(created)b::float8[], %(wanted)s::text[], %(have)s::text[],
            %(metadata)s::text[], %(upload_name)s::text[], %(facts)s::text[])
            AS r (id, generation, version, sha256, width, height, source, name, created, wanted,
                have, metadata, upload_name, facts)
        ON CONFLICT (id) DO UPDATE SET generation = excluded.generation,
            version = excluded.version, sha256 = excluded.sha256, width = excluded.width,
            height = excluded.height,
            source = excluded.source, name = excluded.name, created = excluded.created,
            wanted = excluded.wanted, have = excluded.have, metadata = excluded.metadata,
            upload_name = excluded.upload_name, facts = excluded.facts
    )
    SELECT seq FROM base
"""


def number_spaces(connection: Connection, spaces: Collection[Space]) -> dict[Space, int]:
    """Assign permanent numbers to these spaces. Returns the numbers of all spaces."""
    given = {"kinds": [at.kind for at in spaces], "marks": [at.fingerprint for at in spaces]}
    connection.execute(
        "INSERT INTO spaces (kind, fingerprint) "
        "SELECT * FROM unnest(%(kinds)s::text[], %(marks)s::text[]) ON CONFLICT DO NOTHING",
        given,
    )
    rows = connection.execute("SELECT kind, fingerprint, number FROM spaces").fetchall()
    return {Space(kind, fingerprint): number for kind, fingerprint, number in rows}


def claim_ids(connection: Connection, given: Sequence[int | None]) -> list[int]:
    """Claim the ids of a group of writes: each None becomes a new id above every id ever seen.

    This runs in its own transaction before the group is written; a claimed id is never assigned
    again. Raises InvalidInput if all are used up.
    """
    count = sum(image_id is None for image_id in given)
    with connection.transaction():
        following = counted(_counter(connection), given)
        ids = _free_ids(connection, following, count)
        after = ids[-1] + 1 if ids else following
        connection.execute("SELECT setval('next_id', %s, false)", [after])
    fresh = iter(ids)
    return [next(fresh) if image_id is None else image_id for image_id in given]


def claim_id(connection: Connection, key: str, sha256: str, seconds: float) -> int:
    """See `Store.claim_id`; expired claims are removed."""
    given: dict[str, Any] = {"key": name_hash(key), "sha256": sha256, "seconds": seconds}
    with connection.transaction():
        following = _counter(connection)
        connection.execute("DELETE FROM claims WHERE ends <= clock_timestamp()")
        found = connection.execute("SELECT id, sha256 FROM claims WHERE key = %(key)s", given)
        if row := found.fetchone():
            check_claim(row[1], sha256)
            return int(row[0])
        (given["id"],) = _free_ids(connection, following, 1)
        connection.execute("SELECT setval('next_id', %s, false)", [given["id"] + 1])
        connection.execute(
            "INSERT INTO claims VALUES (%(key)s, %(id)s, %(sha256)s, "
            "clock_timestamp() + %(seconds)s * interval '1 second')",
            given,
        )
    return given["id"]  # type: ignore[no-any-return]


def activate(connection: Connection, kind: str, fingerprint: str | None) -> None:
    """See `Store.activate`; it waits for all write transactions in progress."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", [ALL])
        connection.execute("DELETE FROM active WHERE kind = %s", [kind])
        if fingerprint is not None:
            connection.execute("INSERT INTO active VALUES (%s, %s)", [kind, fingerprint])


def mark(connection: Connection, name: str, seq: int, seconds: float) -> None:
    """See `Store.mark`; expired marks are removed."""
    with connection.transaction():
        connection.execute("DELETE FROM marks WHERE ends <= clock_timestamp()")
        connection.execute(
            "INSERT INTO marks VALUES (%s, %s, clock_timestamp() + %s * interval '1 second') "
            "ON CONFLICT (name) DO UPDATE SET seq = excluded.seq, ends = excluded.ends",
            [name, seq, seconds],
        )


def reserve_ids(connection: Connection, following: int) -> int:
    """See `Store.reserve_ids`."""
    with connection.transaction():
        reserved = max(min(following, FIRST_UNCOUNTED_ID), _counter(connection))
        connection.execute("SELECT setval('next_id', %s, false)", [reserved])
    return reserved


def _counter(connection: Connection) -> int:
    """The id counter; no other transaction changes it before this one ends.

    Earlier versions let a chosen id push it to its end; then it goes on where chosen ids don't move
    it.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", [OF_IDS])
    row = connection.execute("SELECT last_value FROM next_id").fetchone()
    following = int((row or (0,))[0])
    return following if following <= MAX_IMAGE_ID else FIRST_UNCOUNTED_ID


def _free_ids(connection: Connection, following: int, count: int) -> list[int]:
    if following + count <= FIRST_UNCOUNTED_ID or not count:
        return list(range(following, following + count))
    ahead = connection.execute("SELECT id FROM images WHERE id >= %s", [following])
    return free_ids(following, count, {row[0] for row in ahead})


def change(
    connection: Connection,
    image_ids: Iterable[int],
    spaces: Collection[Space],
    numbers: Mapping[Space, int],
    originals_bytes: int,
    work: Callable[[Draft], T],
    guard: Guard | None = None,
) -> tuple[T, Callable[[int], int]]:
    """Run one write transaction.

    Returns the result of `work`, and a function that turns a provisional seq of the draft into the
    final one.
    """
    draft = _begin(connection, sorted(set(image_ids)), spaces, numbers, originals_bytes)
    done = work(draft)
    if not draft.entries:
        connection.execute("ROLLBACK")
        return done, lambda number: number
    base = _commit(connection, draft, guard)
    return done, lambda number: base - number if number < 0 else number


def _begin(
    connection: Connection,
    ids: list[int],
    spaces: Collection[Space],
    numbers: Mapping[Space, int],
    originals_bytes: int,
) -> Draft:
    """Begin a transaction: lock the ids and read their rows."""
    few = len(ids) <= MAX_SINGLE_LOCKS
    one = "pg_advisory_xact_lock_shared" if few else "pg_advisory_xact_lock"
    given = {"ids": ids, "annotations": numbers[ANNOTATIONS]}
    with connection.pipeline():
        connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        connection.execute(f"SELECT {one}(%s, 0)".encode(), [ALL])
        if few:
            keys = sorted({image_id & 0x7FFFFFFF for image_id in ids})
            connection.execute(
                "SELECT pg_advisory_xact_lock(%s, k) FROM unnest(%s::integer[]) AS k",
                [IMAGE, keys],
            )
        rows = connection.execute(_ROWS, given, binary=True)
        digests = connection.execute(
            _DIGESTS, {"spaces": [numbers[at] for at in spaces], "ids": ids}, binary=True
        )
        head = connection.execute(f"SELECT {HEAD}".encode())
    return Draft(
        {row[0]: _row_of(row) for row in rows},
        {(space, image_id): digest for space, image_id, digest in digests},
        numbers,
        int((head.fetchone() or (0,))[0]),
        originals_bytes,
    )


def _commit(connection: Connection, draft: Draft, guard: Guard | None) -> int:
    """Write and commit the draft. Returns the head before its log entries."""
    if guard is not None:
        # Under the log's lock, everything that the log names is committed.
        connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", [OF_LOG])
        check_guard(guard, Reader(connection).changes(guard.space, guard.after, None))
    connection.committing = True
    with connection.pipeline():
        _write_parts(connection, draft)
        _write_index_entries(connection, draft)
        connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", [OF_LOG])
        base = connection.execute(_APPEND, _append_arguments(draft))
        connection.execute("SELECT pg_notify(%s, (SELECT max(seq) FROM log)::text)", [CHANNEL])
        connection.execute("COMMIT")
    connection.committing = False
    return int((base.fetchone() or (0,))[0])


def _write_parts(connection: Connection, draft: Draft) -> None:
    """Write features, previews and originals; None removes a row, any other value replaces it."""
    gone = [at for at, data in draft.features.items() if data is None]
    kept = {at: data for at, data in draft.features.items() if data is not None}
    if gone:
        connection.execute(
            "DELETE FROM features f USING unnest(%s::integer[], %s::bigint[]) AS d (space, id) "
            "WHERE f.space = d.space AND f.image_id = d.id",
            [[space for space, _ in gone], [image_id for _, image_id in gone]],
        )
    if kept:
        connection.execute(
            "INSERT INTO features SELECT * FROM unnest(%s::integer[], %s::bigint[], %b::bytea[]) "
            "ON CONFLICT (space, image_id) DO UPDATE SET data = excluded.data",
            [[space for space, _ in kept], [at for _, at in kept], list(kept.values())],
        )
    _write_blobs(connection, "previews", draft, draft.previews)
    _write_blobs(connection, "originals", draft, draft.originals)


def _write_blobs(
    connection: Connection, table: str, draft: Draft, blobs: Mapping[int, bytes | None]
) -> None:
    held = {image_id: data for image_id, data in blobs.items() if data is not None}
    if any(image_id in draft.before for image_id in blobs):
        connection.execute(f"DELETE FROM {table} WHERE image_id = ANY (%s)".encode(), [[*blobs]])
    if held:
        connection.execute(
            f"INSERT INTO {table} (image_id, data) "
            "SELECT * FROM unnest(%s::bigint[], %b::bytea[])".encode(),
            [[*held], [*held.values()]],
        )


def _write_index_entries(connection: Connection, draft: Draft) -> None:
    """Update search terms and pending kinds, and delete the rows of removed images."""
    for table, column, kind, marks in (
        ("terms", "term", "bytea", lambda row: row.terms),
        ("pending", "kind", "text", lambda row: row.pending),
    ):
        less, more = _changed_entries(draft, marks)
        columns = f"unnest(%s::{kind}[], %s::bigint[])"
        if less:
            connection.execute(
                f"DELETE FROM {table} t USING {columns} AS d (mark, id) "
                f"WHERE t.{column} = d.mark AND t.image_id = d.id".encode(),
                [[mark for mark, _ in less], [image_id for _, image_id in less]],
            )
        if more:
            connection.execute(
                f"INSERT INTO {table} SELECT * FROM {columns}".encode(),
                [[mark for mark, _ in more], [image_id for _, image_id in more]],
            )
    gone = [at for at, row in draft.rows.items() if row is None and at in draft.before]
    if gone:
        connection.execute("DELETE FROM images WHERE id = ANY (%s)", [gone])


IndexEntries = list[tuple[Any, int]]
"""Search terms or pending kinds, each with its image id."""


def _changed_entries(
    draft: Draft, marks: Callable[[Row], Collection[Any]]
) -> tuple[IndexEntries, IndexEntries]:
    """The marks to delete, and those to insert."""
    less: IndexEntries = []
    more: IndexEntries = []
    for image_id, row in draft.rows.items():
        old = draft.before.get(image_id)
        before = set(marks(old)) if old is not None else set()
        after = set(marks(row)) if row is not None else set()
        less += [(mark, image_id) for mark in before - after]
        more += [(mark, image_id) for mark in after - before]
    return less, more


def _append_arguments(draft: Draft) -> dict[str, list[Any]]:
    """The arguments of `_APPEND`."""
    changed = {image_id for image_id, _ in draft.entries}
    rows = {at: row for at, row in draft.rows.items() if row is not None and at in changed}
    images = rows.values()
    return {
        "entries": [image_id for image_id, _ in draft.entries],
        "touched": [f"{{{','.join(map(str, sorted(at)))}}}" for _, at in draft.entries],
        "id": [*rows],
        "generation": [row.generation for row in images],
        "version": [row.version for row in images],
        "sha256": [row.sha256 for row in images],
        "width": [row.width for row in images],
        "height": [row.height for row in images],
        "source": [row.source.encode("utf-8", "surrogateescape") for row in images],
        "name": [_name_of(at, row.source) for at, row in rows.items()],
        "created": [row.created for row in images],
        "wanted": [orjson.dumps(sorted(row.wanted)).decode() for row in images],
        "have": [orjson.dumps(row.have).decode() for row in images],
        "metadata": [dump_metadata(row.metadata).decode() for row in images],
        "upload_name": [row.upload_name for row in images],
        "facts": [orjson.dumps(row.facts).decode() if row.facts else None for row in images],
    }


def _name_of(image_id: int, source: str) -> bytes | None:
    return None if source == "online" else name_hash(file_name_of(image_id, source))


def _row_of(found: Sequence[Any]) -> Row:
    return Row(
        generation=found[1],
        sha256=found[2],
        width=found[3],
        height=found[4],
        source=source_of(found[5]),
        created=found[6],
        wanted=frozenset(found[7]),
        have=found[8],
        metadata=found[9],
        annotations=found[10],
        preview=found[11],
        original=found[12],
        version=found[13],
        upload_name=found[14],
        facts=facts_of(found[15]),
    )


def trim_originals(connection: Connection, room: int) -> None:
    """Remove the oldest originals until the others fit into `room` bytes."""
    connection.execute(
        "DELETE FROM originals WHERE image_id IN (SELECT image_id FROM ("
        "SELECT image_id, sum(octet_length(data)) OVER (ORDER BY kept DESC) AS held "
        "FROM originals) AS o WHERE held > %s)",
        [room],
    )
