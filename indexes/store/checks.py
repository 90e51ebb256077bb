"""Rules that all stores share: which writes are rejected, and how metadata is searched."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson

from indexes.store.annotations import tags_in
from indexes.store.base import ANNOTATE, Changes, Guard, ImageWrite, Space
from models.errors import Conflict, InvalidInput, KeyReused, PreconditionFailed, Unavailable
from models.types import MAX_IMAGE_ID

FIRST_UNCOUNTED_ID = (MAX_IMAGE_ID + 1) // 2
"""Ids from this one on that a caller chooses don't move the counter, so that no single id can use
it up. A counter that gets here goes on and skips ids in use."""
MAX_NAME = 200
"""Maximum length in bytes of a kind or fingerprint, because both are parts of keys."""


def check_guard(guard: Guard, changes: Changes | None) -> None:
    """Run the guard's check. Raises its error, and Unavailable for changes that are unknown."""
    if changes is None:
        raise Unavailable("too much was written meanwhile; try again")
    guard.check({at: row for at, row in changes.rows.items() if row is not None})


def check_version(expected: int | None, version: int | None) -> None:
    """Raises PreconditionFailed unless an image has the expected version; see `ImageWrite`."""
    if expected is not None and expected != (version or 0):
        state = "there is no such image" if version is None else "the image has changed"
        raise PreconditionFailed(f"{state}: read it again", "image_id")


def check_claim(claimed: str, sha256: str) -> None:
    """Raises KeyReused if a key was claimed for other content."""
    if claimed != sha256:
        raise KeyReused("the key was sent with another picture; send a new one", "Idempotency-Key")


def check_writes(writes: Sequence[ImageWrite]) -> None:
    """Validate writes before their transaction begins. Raises InvalidInput."""
    for write in writes:
        if write.image_id is not None and not is_image_id(write.image_id):
            raise InvalidInput(
                f"image_id {write.image_id} is not in [0, {MAX_IMAGE_ID}]", "image_id"
            )
        for name in (*write.wanted, *(part for space in write.features for part in space)):
            if not 0 < len(name.encode()) <= MAX_NAME or "\0" in name:
                raise InvalidInput(f"invalid kind or fingerprint: {name[:MAX_NAME]!r}")
        if write.metadata is not None:
            dump_metadata(write.metadata)


def check_space_inactive(space: Space, active: Mapping[str, str]) -> None:
    """Raise Conflict if searches use this space."""
    if active.get(space.kind) == space.fingerprint:
        raise Conflict(f"searches of {space.kind} use {space.fingerprint}: it can't be dropped")


def is_image_id(image_id: int) -> bool:
    return 0 <= image_id <= MAX_IMAGE_ID


def name_hash(file_name: str) -> bytes:
    """The 16-byte hash by which a file name is looked up.

    Surrogates in the name stand for bytes that are not UTF-8 and are encoded as those bytes.
    """
    name = file_name.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(name, digest_size=16).digest()


def next_free_id(following: int) -> int:
    """The next id that the store assigns. Raises InvalidInput if all are used up."""
    if following > MAX_IMAGE_ID:
        raise InvalidInput(f"ids up to {MAX_IMAGE_ID} are used up; give an image_id")
    return following


def free_ids(following: int, count: int, used: Collection[int]) -> list[int]:
    """The next `count` ids from the counter on that are not in use. Raises InvalidInput.

    Ids in use lie ahead of the counter only from FIRST_UNCOUNTED_ID on.
    """
    ids: list[int] = []
    while len(ids) < count:
        if next_free_id(following) not in used:
            ids.append(following)
        following += 1
    return ids


def counted(following: int, given: Iterable[int | None]) -> int:
    """The id counter after writes under these given ids."""
    return max([following, *(at + 1 for at in given if at is not None and at < FIRST_UNCOUNTED_ID)])


def wanted_kinds(write: ImageWrite) -> frozenset[str]:
    """Wanted kinds of a write, including the kinds of its features."""
    return write.wanted | {space.kind for space in write.features}


def is_unwanted(wanted: Collection[str]) -> bool:
    """Whether no retriever wants the image any more."""
    return all(kind.startswith(ANNOTATE) for kind in wanted)


def dump_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Encode metadata as JSON. Raises InvalidInput for values that JSON can't represent."""
    try:
        return orjson.dumps(dict(metadata), option=orjson.OPT_SORT_KEYS)
    except TypeError as exc:
        raise InvalidInput(f"metadata is not a JSON object: {exc}", "metadata") from exc


def merged(metadata: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata after these changes; a value of None removes its key."""
    removed = {name for name, value in changes.items() if value is None}
    return {name: value for name, value in {**metadata, **changes}.items() if name not in removed}


def stored_terms(metadata: Mapping[str, Any]) -> set[bytes]:
    """Search terms of metadata: one for each key and value, and one for each element of a list."""
    terms = set()
    for name, value in metadata.items():
        terms.add(_term(name, value))
        if isinstance(value, list):
            terms.update(_term(name, element) for element in value)
    return terms


def image_terms(metadata: Mapping[str, Any], annotations: bytes | None) -> set[bytes]:
    """Search terms of an image: those of its metadata, and one for each tag of its annotations."""
    return stored_terms(metadata) | {_term("tags", tag) for tag in tags_in(annotations)}


def wanted_terms(metadata: Mapping[str, Any]) -> list[bytes]:
    """Terms that an image must have to match. Raises InvalidInput as `dump_metadata` does."""
    dump_metadata(metadata)
    return [_term(name, value) for name, value in metadata.items()]


def _term(name: str, value: Any) -> bytes:
    # 1 and 1.0 are the same number in JSON; true and 1 are not.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        text = orjson.dumps([name, value], option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # Only a float such as 1e30 gets here, because it does not fit a 64-bit integer.
        text = orjson.dumps([name, float(value)])
    return hashlib.blake2b(text, digest_size=16).digest()
