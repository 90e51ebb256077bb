"""A store with images and pairs among them, as a job would have found them."""

from __future__ import annotations

from typing import Any

from indexes.duplicates.catalogue import regroup
from indexes.duplicates.levels import Level
from indexes.duplicates.pairs import Pair, pair_writes
from indexes.store.base import Store
from tests.indexes.pictures import known, picture


def add(store: Store, image_id: int, content: str = "", **changed: Any) -> None:
    """Add an image; the larger its id, the smaller it is."""
    fields = {"width": 4000 - image_id, "height": 3000 - image_id, "created": 1000.0}
    store.put(picture(image_id, content or str(image_id), **{**fields, **changed}))


def pair(store: Store, a: int, b: int, level: Level = "reencode", **changed: Any) -> Pair:
    contents = known(store, a).sha256, known(store, b).sha256
    fields: dict[str, Any] = {"relation": "same", "confidence": 0.99}
    return Pair(a, b, contents, level, **{**fields, **changed})


def add_pairs(store: Store, *pairs: Pair) -> None:
    """Store pairs and group their images."""
    ids = {at for one in pairs for at in (one.a, one.b)}
    regroup(store, ids, pair_writes(pairs))
