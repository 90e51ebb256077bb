"""The reads of the PostgreSQL store, each of which is one statement and so reads one snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from indexes.store.base import Changes, Image, LogPage, Pending, Preview, Space
from indexes.store.checks import is_image_id, name_hash
from indexes.store.postgres.connections import Connection
from indexes.store.summary import Sizes
from models.types import MAX_IMAGE_ID, FileFacts

HEAD = "coalesce((SELECT max(seq) FROM log), (SELECT tail FROM store))"
SPACE = "(SELECT number FROM spaces WHERE kind = %(kind)s AND fingerprint = %(fingerprint)s)"
"""The number of a space, read in the same statement as its rows, because a space may be created at
any time."""
IMAGE = """
    id, generation, sha256, width, height, source, created, wanted, have, metadata,
    EXISTS (SELECT FROM previews p WHERE p.image_id = id),
    EXISTS (SELECT FROM originals o WHERE o.image_id = id),
    coalesce(version, generation), upload_name, facts
"""
_CHANGES = f"""
    WITH span AS (
        SELECT seq, image_id, spaces FROM log WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s
    ), touched AS (
        SELECT DISTINCT image_id FROM span WHERE {SPACE} = ANY (spaces)
    )
    SELECT (SELECT tail FROM store), {HEAD}, (SELECT max(seq) FROM span), t.image_id, f.data
    FROM (VALUES (1)) AS one LEFT JOIN touched t ON true
    LEFT JOIN features f ON f.image_id = t.image_id AND f.space = {SPACE}
"""

_LOG = f"""
    WITH span AS (
        SELECT seq, image_id FROM log WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s
    )
    SELECT (SELECT tail FROM store), {HEAD}, changed.image_id, changed.seq
    FROM (VALUES (1)) AS one
    LEFT JOIN (SELECT image_id, max(seq) AS seq FROM span GROUP BY image_id) changed ON true
"""

SIZES = """
    SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint,
        pg_total_relation_size('previews')
    FROM pg_class WHERE relnamespace = 'ambience'::regnamespace AND relkind = 'r'
"""


class Reader:
    """Performs reads on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self, sql: str, given: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql.encode(), given, binary=True).fetchall()

    def one(self, sql: str, given: Mapping[str, Any] | None = None) -> Any:
        """The first column of the first row; None without a row."""
        row = self._connection.execute(sql.encode(), given, binary=True).fetchone()
        return None if row is None else row[0]

    def sizes(self) -> Sizes:
        (found,) = self.all(SIZES)
        return Sizes(*found)

    def ids(self, sql: str, given: Mapping[str, Any]) -> list[int]:
        return [row[0] for row in self.all(sql, given)]

    def head(self) -> int:
        return int(self.one(f"SELECT {HEAD}"))

    def changes(self, space: Space, after: int, limit: int | None) -> Changes | None:
        found = self.all(_CHANGES, {**space._asdict(), "after": after, "limit": limit})
        tail, head, last = found[0][:3]
        if not tail <= after <= head:
            return None
        rows = {at: data for *_, at, data in found if at is not None}
        return Changes(after if last is None else last, rows)

    def log(self, after: int, limit: int) -> LogPage | None:
        found = self.all(_LOG, {"after": after, "limit": limit})
        tail, head = found[0][:2]
        if not tail <= after <= head:
            return None
        seqs = {image_id: seq for *_, image_id, seq in found if image_id is not None}
        return LogPage(max(seqs.values(), default=after), seqs)

    def rows(self, space: Space, image_ids: Iterable[int]) -> dict[int, bytes]:
        sql = f"SELECT image_id, data FROM features WHERE space = {SPACE}"
        ids = " AND image_id = ANY (%(ids)s)"
        return dict(self.all(sql + ids, {**space._asdict(), "ids": valid_ids(image_ids)}))

    def images_by_id(self, image_ids: Iterable[int]) -> dict[int, Image]:
        ids = valid_ids(image_ids)
        rows = self.all(f"SELECT {IMAGE} FROM images WHERE id = ANY (%(ids)s)", {"ids": ids})
        images = {row[0]: image_of(row) for row in rows}
        return {at: images[at] for at in ids if at in images}

    def images(self, after: int, limit: int) -> list[Image]:
        sql = f"SELECT {IMAGE} FROM images WHERE id > %(after)s ORDER BY id LIMIT %(limit)s"
        return [image_of(row) for row in self.all(sql, {"after": _id(after), "limit": limit})]

    def ids_by_file_name(self, file_name: str) -> list[int]:
        digits, _, ending = file_name.partition(".")
        plain = len(digits) <= 15 and digits.isascii() and digits.isdecimal()
        upload = int(digits) if plain and ending == "online" and str(int(digits)) == digits else -1
        return self.ids(
            "SELECT id FROM images WHERE name = %(name)s "
            "UNION SELECT id FROM images WHERE id = %(upload)s AND name IS NULL ORDER BY 1",
            {"name": name_hash(file_name), "upload": upload},
        )

    def ids_by_sha256(self, sha256: str) -> list[int]:
        return self.ids("SELECT id FROM images WHERE sha256 = %(at)s ORDER BY id", {"at": sha256})

    def ids_by_metadata(self, terms: list[bytes]) -> list[int]:
        if not terms:
            return self.ids("SELECT id FROM images ORDER BY id", {})
        return self.ids(
            "SELECT image_id FROM terms WHERE term = ANY (%(terms)s) "
            "GROUP BY image_id HAVING count(*) = %(count)s ORDER BY image_id",
            {"terms": list(set(terms)), "count": len(set(terms))},
        )

    def previews(self, image_ids: Sequence[int]) -> dict[int, Preview]:
        rows = self.all(
            "SELECT id, width, height, data FROM previews JOIN images ON id = image_id "
            "WHERE id = ANY (%(ids)s)",
            {"ids": valid_ids(image_ids)},
        )
        return {image_id: Preview(*row) for image_id, *row in rows}

    def original(self, image_id: int, generation: int) -> bytes | None:
        data: bytes | None = self.one(
            "SELECT data FROM originals JOIN images ON id = image_id "
            "WHERE id = ANY (%(ids)s) AND generation = %(generation)s",
            {"ids": valid_ids([image_id]), "generation": generation},
        )
        return data

    def pending(self, kind: str, after: int, limit: int) -> list[Pending]:
        rows = self.all(
            "SELECT id, generation, "
            "EXISTS (SELECT FROM originals o WHERE o.image_id = id), "
            "EXISTS (SELECT FROM previews p WHERE p.image_id = id) "
            "FROM pending JOIN images ON id = image_id "
            "WHERE kind = %(kind)s AND image_id > %(after)s ORDER BY image_id LIMIT %(limit)s",
            {"kind": kind, "after": _id(after), "limit": limit},
        )
        return [Pending(*row) for row in rows]

    def ids_by_source(self) -> dict[str, int]:
        rows = self.all("SELECT source, id FROM images WHERE name IS NOT NULL ORDER BY id")
        return {source_of(source): image_id for source, image_id in rows}

    def missing(self, kinds: Mapping[str, str], image_ids: Sequence[int]) -> dict[int, set[str]]:
        rows = self.all(
            "SELECT i.id, w.kind FROM images i "
            "LEFT JOIN unnest(%(kinds)s::text[], %(marks)s::text[]) w (kind, mark) ON NOT EXISTS ("
            "SELECT FROM features f JOIN spaces s ON s.number = f.space WHERE f.image_id = i.id "
            "AND s.kind = w.kind AND s.fingerprint = w.mark) "
            "WHERE i.id = ANY (%(ids)s)",
            {"kinds": list(kinds), "marks": list(kinds.values()), "ids": valid_ids(image_ids)},
        )
        lacking: dict[int, set[str]] = {image_id: set() for image_id, _ in rows}
        for image_id, kind in rows:
            if kind is not None:
                lacking[image_id].add(kind)
        return lacking

    def ids_in(self, space: Space, limit: int) -> list[int]:
        """The lowest `limit` ids that have a row in a space."""
        sql = f"SELECT image_id FROM features WHERE space = {SPACE} ORDER BY image_id LIMIT %(n)s"
        return self.ids(sql, {**space._asdict(), "n": limit})

    def marks(self) -> dict[str, int]:
        return dict(self.all("SELECT name, seq FROM marks WHERE ends > clock_timestamp()"))

    def active(self) -> dict[str, str]:
        return dict(self.all("SELECT kind, fingerprint FROM active"))

    def spaces(self) -> list[Space]:
        rows = self.all(
            "SELECT kind, fingerprint FROM spaces WHERE EXISTS "
            "(SELECT FROM features WHERE space = number)"
        )
        return sorted(Space(*row) for row in rows)


def image_of(row: Sequence[Any]) -> Image:
    """Build an image from the columns `IMAGE`."""
    image_id, generation, sha256, width, height, source, created, wanted, have, metadata = row[:10]
    return Image(
        image_id=image_id,
        generation=generation,
        sha256=sha256,
        width=width,
        height=height,
        source=source_of(source),
        created=created,
        wanted=frozenset(wanted),
        pending=frozenset(wanted) - have.keys(),
        metadata=metadata,
        has_preview=row[10],
        has_original=row[11],
        version=row[12],
        upload_name=row[13],
        facts=facts_of(row[14]),
    )


def facts_of(stored: Mapping[str, Any] | None) -> FileFacts | None:
    return FileFacts(**stored) if stored else None


def source_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def valid_ids(image_ids: Iterable[int]) -> list[int]:
    """The ids that lie in the valid range; PostgreSQL's bigint ends at 2^63."""
    return [int(image_id) for image_id in image_ids if is_image_id(image_id)]


def _id(after: int) -> int:
    return min(max(after, -1), MAX_IMAGE_ID)
