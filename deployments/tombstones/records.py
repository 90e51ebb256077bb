"""Tombstones in the store: what is remembered of a deleted picture, and the changes that replicas
follow.

Each has two records: a small one, and its picture with preview and features. The record of changes
is written together with them. A replica that reads it before a check knows all that was
acknowledged.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from indexes.store.base import Preview, Space
from indexes.store.records import RecordKey, Records
from models.errors import PreconditionFailed, UnknownName, invalid_field

TOMBSTONE, PICTURE, CHANGES = "tombstone", "tombstone-picture", "tombstone-changes"
"""Kinds of records."""
NEWEST = "newest"
KEPT_CHANGES = 256
"""Number of changes after which a replica that missed them reads all tombstones."""
AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is remembered of one picture, without its pixels."""

    tombstone_id: Annotated[str, Field(pattern="^[ -~]{1,100}$")]
    """The same for the same file, so that it is remembered once."""
    created: float
    """Seconds since the epoch."""
    note: str = ""
    image_id: int | None = None
    """The id that it had."""
    file_name: str | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    pdq: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """PDQ hash, 64 hex digits, of a picture of which only that is known."""

    def row(self) -> dict[str, Any]:
        """The tombstone as JSON, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class RememberedPicture:
    """The picture of a tombstone."""

    preview: bytes | None
    """JPEG."""
    features: Mapping[Space, bytes] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The picture as JSON."""
        features = {
            space.kind: {"fingerprint": space.fingerprint, "row": _text(row)}
            for space, row in self.features.items()
        }
        preview = None if self.preview is None else _text(self.preview)
        return {"preview": preview, "features": features}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> RememberedPicture:
        """Raises ValueError, KeyError and TypeError for anything else than `row` returns."""
        given = row["preview"]
        features = {
            Space(kind, str(one["fingerprint"])): _bytes(one["row"])
            for kind, one in dict(row["features"]).items()
        }
        return cls(None if given is None else _bytes(given), features)


class TombstoneChanges(NamedTuple):
    """The ids that changed after a seq; None for all of them."""

    seq: int
    ids: Sequence[str] | None


_TOMBSTONE = TypeAdapter(Tombstone)


def remember(store: Records, entries: Mapping[Tombstone, RememberedPicture | None]) -> None:
    """Write tombstones, durably, in one transaction; those of the same ids are replaced."""
    writes: dict[RecordKey, bytes | None] = {}
    for one, picture in entries.items():
        writes[RecordKey(TOMBSTONE, one.tombstone_id)] = orjson.dumps(one.row())
        key = RecordKey(PICTURE, one.tombstone_id)
        writes[key] = None if picture is None else orjson.dumps(picture.row())
    change(store, lambda: writes)


def forget(store: Records, tombstone_id: str) -> None:
    """Remove a tombstone. Raises UnknownName."""

    def writes() -> Mapping[RecordKey, bytes | None]:
        if not _is_key(tombstone_id) or store.record(TOMBSTONE, tombstone_id) is None:
            raise UnknownName(f"no tombstone {tombstone_id[:80]!r}", "tombstone_id")
        return {RecordKey(kind, tombstone_id): None for kind in (TOMBSTONE, PICTURE)}

    change(store, writes)


def listed(store: Records, after: str = "", limit: int = 100) -> list[Tombstone]:
    """Tombstones with ids above `after`, by id."""
    return [tombstone_of(one.value) for one in store.records(TOMBSTONE, after, limit)]


def by_id(store: Records, ids: Sequence[str]) -> dict[str, Tombstone]:
    """Tombstones by id; missing ones are left out."""
    return {at: tombstone_of(row) for at, row in store.records_by_key(TOMBSTONE, ids).items()}


def pictures(store: Records, ids: Sequence[str]) -> dict[str, RememberedPicture]:
    """Pictures by the ids of tombstones; missing ones are left out."""
    found = store.records_by_key(PICTURE, ids)
    return {at: RememberedPicture.of(orjson.loads(row)) for at, row in found.items()}


def preview_of(one: Tombstone, picture: RememberedPicture | None) -> Preview | None:
    """The preview with the size of the picture; None if it was not kept."""
    if picture is None or picture.preview is None:
        return None
    return Preview(one.width or 0, one.height or 0, picture.preview)


def changes(store: Records, after: int) -> TombstoneChanges:
    """What has changed after a seq; 0 asks for everything."""
    seq, kept = _changes(store.record(CHANGES, NEWEST))
    if after == seq:
        return TombstoneChanges(seq, ())
    later = [one for number, one in enumerate(kept, seq - len(kept) + 1) if number > after]
    missed = after > seq or len(later) < seq - after
    return TombstoneChanges(seq, None if missed or not after else tuple(dict.fromkeys(later)))


def tombstone_of(value: bytes | Mapping[str, Any]) -> Tombstone:
    """A tombstone by its JSON. Raises InvalidInput."""
    try:
        if isinstance(value, bytes):
            return _TOMBSTONE.validate_json(value)
        return _TOMBSTONE.validate_python(value)
    except ValidationError as exc:
        raise invalid_field(exc.errors(), whole="it") from exc


def change(store: Records, writes: Callable[[], Mapping[RecordKey, bytes | None]]) -> None:
    """Write records of tombstones, with their ids added to the changes that replicas follow."""
    key = RecordKey(CHANGES, NEWEST)
    while True:
        before = store.record(*key)
        given = writes()
        ids = [one.key for one in given if one.kind == TOMBSTONE]
        seq, kept = _changes(before)
        after = orjson.dumps([seq + len(ids), [*kept, *ids][-KEPT_CHANGES:]])
        try:
            store.write_records({**given, key: after}, {key: before})
        except PreconditionFailed:
            continue
        return


def _changes(value: bytes | None) -> tuple[int, list[str]]:
    if value is None:
        return 0, []
    seq, ids = orjson.loads(value)
    return int(seq), list(ids)


def _is_key(tombstone_id: str) -> bool:
    return 0 < len(tombstone_id) <= 100 and tombstone_id.isascii() and tombstone_id.isprintable()


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
