"""The layout of the rows in LMDB, and the reads of one transaction.

Numbers in keys are big-endian, so that keys sort numerically, and have 8 bytes unless noted.

    meta       name                    → seq, tail, next id, bytes of originals, uuid, schema,
                                          whether it is a backup
               "active" 0 kind         → fingerprint
    images     id                      → ImageRow
    features   space no. (4) id        → features
    spaces     kind 0 fingerprint      → space no.
    log        seq                     → op (1) id, space nos. touched
    originals  seq id                  → upload's bytes, oldest first
    previews   id                      → JPEG
    metadata   id                      → JSON, only of images with metadata
    terms      term (16) id            → nothing
    names      hash of file name (16) id → nothing
    contents   hash of sha256 (16) id  → nothing
    pending    kind 0 id               → nothing
    leases     name                    → JSON [holder, expires]
    marks      name                    → JSON [seq, expires]
    claims     hash of key (16)        → JSON [id, sha256, expires]
    records    kind 0 key              → value
"""

from __future__ import annotations

import struct
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import lmdb
import orjson

from indexes.store.base import Changes, Image, LogPage, Pending, Preview, Space, file_name_of
from indexes.store.checks import is_image_id, name_hash
from indexes.store.summary import Summary
from models.types import MAX_IMAGE_ID, FileFacts

SCHEMA = 1
BACKUP = b"backup"
"""Key in `meta`: whether the store is a backup, which gets a UUID of its own when it is opened."""
ACTIVE = b"active\0"
_NUMBER = struct.Struct(">Q")
_SPACE = struct.Struct(">I")
_FEATURE = struct.Struct(">IQ")


def number(value: int) -> bytes:
    return _NUMBER.pack(value)


def unpack_number(key: bytes) -> int:
    return int(_NUMBER.unpack(key)[0])


@dataclass(slots=True)
class ImageRow:
    """An image as it is stored; `have` maps kinds to the numbers of the spaces with its features.

    The kind of an annotator has an empty list, because all annotations share one row.
    """

    generation: int
    sha256: str
    width: int
    height: int
    source: str
    created: float
    wanted: set[str]
    have: dict[str, list[int]] = field(default_factory=dict)
    original: int = 0
    """The seq under which the original is stored; 0 for none."""
    preview: bool = False
    version: int = 0
    """The seq of the newest change; rows that older versions wrote begin with their generation."""
    upload_name: str | None = None
    facts: FileFacts | None = None

    def __post_init__(self) -> None:
        self.version = self.version or self.generation

    @property
    def pending(self) -> set[str]:
        return self.wanted - self.have.keys()

    @property
    def space_numbers(self) -> set[int]:
        return {space for spaces in self.have.values() for space in spaces}

    def encode(self) -> bytes:
        wanted = sorted(self.wanted)
        return orjson.dumps(
            [
                *(self.generation, self.sha256, self.width, self.height, _latin(self.source)),
                *(self.created, wanted, self.have, self.original, self.preview, self.version),
                *(self.upload_name, self.facts),
            ],
            option=orjson.OPT_SORT_KEYS,
        )

    @classmethod
    def decode(cls, data: bytes) -> ImageRow:
        row = cls(*orjson.loads(data))
        row.wanted = set(row.wanted)
        facts: Any = row.facts
        row.facts = FileFacts(**facts) if facts else None
        row.source = row.source.encode("latin-1").decode("utf-8", "surrogateescape")
        return row


class Reader:
    """The reads of one transaction."""

    def __init__(self, txn: lmdb.Transaction[bytes], tables: Mapping[str, Any]) -> None:
        self.txn = txn
        self.tables = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        return self.txn.get(key, db=self.tables[table])

    def meta(self, name: bytes) -> int:
        found = self.get("meta", name)
        return unpack_number(found) if found else 0

    def row(self, image_id: int) -> ImageRow | None:
        found = self.get("images", number(image_id)) if is_image_id(image_id) else None
        return ImageRow.decode(found) if found else None

    def from_key(self, table: str, start: bytes, prefix: bytes = b"") -> Iterator[bytes]:
        """Yield the keys with this prefix in order, from `start` on."""
        with self.txn.cursor(db=self.tables[table]) as cursor:
            found = cursor.set_range(start)
            while found and (key := cursor.key()).startswith(prefix):
                yield key
                found = cursor.next()

    def ids_under(self, table: str, prefix: bytes, after: int = -1) -> Iterator[int]:
        """Yield the ids at the end of the keys with this prefix, ascending, above `after`."""
        first = min(max(after, -1), MAX_IMAGE_ID) + 1
        for key in self.from_key(table, prefix + number(first), prefix):
            yield unpack_number(key[len(prefix) :])

    def marks(self) -> dict[str, int]:
        with self.txn.cursor(db=self.tables["marks"]) as cursor:
            found = [(key.decode(), *orjson.loads(value)) for key, value in cursor]
        return {name: seq for name, seq, expires in found if expires > time.time()}

    # --- features --------------------------------------------------------------------------------

    def space_number(self, space: Space) -> int | None:
        found = self.get("spaces", space_key(space))
        return _SPACE.unpack(found)[0] if found else None

    def feature(self, space: int | None, image_id: int) -> bytes | None:
        if space is None or not is_image_id(image_id):
            return None
        return self.get("features", feature_key(space, image_id))

    def features(self, space: int | None, image_ids: Iterable[int]) -> dict[int, bytes]:
        """Features by id; missing ids are left out.

        One call of LMDB reads all, in a fraction of the time of single reads.
        """
        if space is None:
            return {}
        keys = [feature_key(space, image_id) for image_id in image_ids if is_image_id(image_id)]
        with self.txn.cursor(db=self.tables["features"]) as cursor:
            return {_FEATURE.unpack(key)[1]: data for key, data in cursor.getmulti(keys)}

    def space_rows(self, space: int | None, batch: int) -> Iterator[list[tuple[int, bytes]]]:
        """Yield all rows of a space by ascending id, in lists of at most `batch`."""
        if space is None:
            return
        prefix = _SPACE.pack(space)
        rows: list[tuple[int, bytes]] = []
        with self.txn.cursor(db=self.tables["features"]) as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key().startswith(prefix):
                rows.append((unpack_number(cursor.key()[4:]), cursor.value()))
                if len(rows) == batch:
                    yield rows
                    rows = []
                found = cursor.next()
        if rows:
            yield rows

    def active(self) -> dict[str, str]:
        named = [(key, self.get("meta", key)) for key in self.from_key("meta", ACTIVE, ACTIVE)]
        return {key[len(ACTIVE) :].decode(): (mark or b"").decode() for key, mark in named}

    def spaces(self) -> list[Space]:
        with self.txn.cursor(db=self.tables["spaces"]) as cursor:
            named = [(Space(*key.decode().split("\0")), prefix) for key, prefix in cursor]
        held = (space for space, prefix in named if any(self.from_key("features", prefix, prefix)))
        return sorted(held)

    def changes(self, space: Space, after: int, limit: int | None) -> Changes | None:
        read = self._entries(after, limit)
        if read is None:
            return None
        head, entries = read
        wanted = self.space_number(space)
        sought = b"" if wanted is None else _SPACE.pack(wanted)
        ids = {entry_image_id(data) for _, data in entries if entry_names_space(data, sought)}
        rows = self.features(wanted, sorted(ids))
        return Changes(head, {image_id: rows.get(image_id) for image_id in ids})

    def log(self, after: int, limit: int) -> LogPage | None:
        read = self._entries(after, limit)
        if read is None:
            return None
        head, entries = read
        return LogPage(head, {entry_image_id(data): unpack_number(key) for key, data in entries})

    def _entries(
        self, after: int, limit: int | None
    ) -> tuple[int, list[tuple[bytes, bytes]]] | None:
        """The seq up to which the log was read, and its entries; None if `after` lies outside."""
        head = self.meta(b"seq")
        if not self.meta(b"tail") <= after <= head:
            return None
        with self.txn.cursor(db=self.tables["log"]) as cursor:
            found = cursor.set_range(number(after + 1))
            entries = list(islice(cursor, limit)) if found else []
        return (unpack_number(entries[-1][0]) if len(entries) == limit else head), entries

    # --- images ----------------------------------------------------------------------------------

    def image(self, image_id: int, row: ImageRow) -> Image:
        metadata = self.get("metadata", number(image_id))
        return Image(
            image_id=image_id,
            generation=row.generation,
            sha256=row.sha256,
            width=row.width,
            height=row.height,
            source=row.source,
            created=row.created,
            wanted=frozenset(row.wanted),
            pending=frozenset(row.pending),
            metadata=orjson.loads(metadata) if metadata else {},
            has_preview=row.preview,
            has_original=row.original > 0,
            version=row.version,
            upload_name=row.upload_name,
            facts=row.facts,
        )

    def images_by_id(self, image_ids: Collection[int]) -> dict[int, Image]:
        rows = ((int(image_id), self.row(image_id)) for image_id in image_ids)
        return {image_id: self.image(image_id, row) for image_id, row in rows if row is not None}

    def preview_bytes(self) -> int:
        """What the previews take in the store's file, in bytes."""
        found = self.txn.stat(self.tables["previews"])
        pages = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
        return pages * found["psize"]

    def previews(self, image_ids: Collection[int]) -> dict[int, Preview]:
        found = {}
        for image_id in image_ids:
            row = self.row(image_id)
            jpeg = None if row is None else self.get("previews", number(image_id))
            if row is not None and jpeg is not None:
                found[int(image_id)] = Preview(row.width, row.height, jpeg)
        return found

    def image_rows(self) -> Iterator[tuple[int, ImageRow]]:
        with self.txn.cursor(db=self.tables["images"]) as cursor:
            for key, value in cursor:
                yield unpack_number(key), ImageRow.decode(value)

    def summaries(self, after: int) -> Iterator[Summary]:
        """Yield the summaries of all rows with ids above `after`, without making whole rows."""
        with self.txn.cursor(db=self.tables["images"]) as cursor:
            found = cursor.set_range(number(min(max(after, -1), MAX_IMAGE_ID) + 1))
            for key, value in cursor if found else ():
                _, _, width, height, _, created, *more = orjson.loads(value)
                # The facts are the last of all fields; rows of older versions have fewer.
                facts = FileFacts(**more[6]) if len(more) > 6 and more[6] else None
                yield Summary(unpack_number(key), width, height, created, facts)

    def original(self, image_id: int, row: ImageRow) -> bytes | None:
        return self.get("originals", number(row.original) + number(image_id))

    def pending(self, image_id: int) -> Pending:
        row = self.row(image_id)
        assert row is not None, image_id
        return Pending(image_id, row.generation, row.original > 0, row.preview)

    def ids_by_file_name(self, file_name: str) -> list[int]:
        ids = set(self.ids_under("names", name_hash(file_name)))
        digits, _, ending = file_name.partition(".")
        if ending == "online" and len(digits) <= 15 and digits.isascii() and digits.isdecimal():
            row = self.row(int(digits))
            if row is not None and file_name_of(int(digits), row.source) == file_name:
                ids.add(int(digits))
        return sorted(ids)

    def ids_by_sha256(self, sha256: str) -> list[int]:
        return list(self.ids_under("contents", name_hash(sha256)))

    def ids_by_metadata(self, terms: list[bytes]) -> list[int]:
        if not terms:
            return list(self.ids_under("images", b""))
        found = set(self.ids_under("terms", terms[0]))
        for term in terms[1:]:
            found = {i for i in found if self.get("terms", term + number(i)) is not None}
        return sorted(found)


def space_key(space: Space) -> bytes:
    return f"{space.kind}\0{space.fingerprint}".encode()


def feature_key(space: int, image_id: int) -> bytes:
    return _FEATURE.pack(space, image_id)


def pending_key(kind: str) -> bytes:
    return kind.encode() + b"\0"


def entry(op: bytes, image_id: int, touched: Collection[int]) -> bytes:
    """Encode a log entry: op, image id, and the numbers of the spaces whose rows were touched."""
    return op + number(image_id) + b"".join(_SPACE.pack(space) for space in sorted(touched))


def entry_names_space(data: bytes, space: bytes) -> bool:
    """Whether a log entry names a space, given the space's packed number; never true for b""."""
    place = data.find(space, 9) if space else -1
    while place >= 0 and (place - 9) % len(space):
        place = data.find(space, place + 1)
    return place >= 0


def entry_image_id(data: bytes) -> int:
    """The image id of a log entry."""
    image_id: int = _NUMBER.unpack_from(data, 1)[0]
    return image_id


def _latin(source: str) -> str:
    # Names of old files are often not UTF-8. Python stores such bytes as surrogates, which
    # JSON rejects.
    return source.encode("utf-8", "surrogateescape").decode("latin-1")
