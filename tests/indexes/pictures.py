"""Images to store, and helpers that read what a store holds."""

from __future__ import annotations

import hashlib
from typing import Any

from indexes.store.base import Changes, Image, ImageWrite, Space, Store

PHASH = Space("phash", "f1")
PHASH_NEW = Space("phash", "f2")
COLOR = Space("color", "c1")
LOCAL = Space("local", "l1")


def row_of(content: str, size: int = 72) -> bytes:
    """Return `size` bytes of features that identify the content they were made of."""
    return hashlib.shake_128(content.encode()).digest(size)


def picture(image_id: int | None, content: str = "a", **changed: Any) -> ImageWrite:
    """Return a write of an image with this content, by default complete with the one kind phash."""
    fields: dict[str, Any] = {
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "width": 40,
        "height": 30,
        "wanted": frozenset({"phash"}),
        "features": {PHASH: row_of(content)},
    }
    return ImageWrite(image_id, **{**fields, **changed})


def upload(image_id: int | None, content: str = "a", **changed: Any) -> ImageWrite:
    """Return a write of an upload with one kind complete and one pending."""
    fields: dict[str, Any] = {
        "wanted": frozenset({"phash", "local"}),
        "preview": b"preview of " + content.encode(),
        "original": b"original of " + content.encode(),
    }
    return picture(image_id, content, **{**fields, **changed})


def known(store: Store, image_id: int) -> Image:
    image = store.image(image_id)
    assert image is not None
    return image


def tail(store: Store, space: Space, after: int, limit: int | None = None) -> Changes:
    changes = store.changes(space, after, limit)
    assert changes is not None
    return changes


def scanned(store: Store, space: Space, batch: int = 4096) -> tuple[int, dict[int, bytes]]:
    with store.scan(space, batch) as scan:
        return scan.head, {at: row for rows in scan.batches for at, row in rows}
