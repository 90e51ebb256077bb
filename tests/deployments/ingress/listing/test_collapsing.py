"""Hits that are copies of each other are folded, and only those."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from deployments.ingress.listing import collapsing
from deployments.ingress.listing.collapsing import CANDIDATE, Folding
from indexes.store.base import ImageWrite, Space, Store
from indexes.store.memory.store import MemoryStore
from models.base import dihedral
from models.extractors.phash import turned_codes
from models.pictures.decoding import decode
from models.registry import make_extractor
from tests.drawing import encoded, scene

HASH = make_extractor("phash")
SPACE = Space("phash", HASH.fingerprint)


def add(store: Store, image_id: int, data: bytes, preview: bool = True) -> None:
    """Add a picture with its hash."""
    shown = decode(data)
    store.put(
        ImageWrite(
            image_id,
            hashlib.sha256(data).hexdigest(),
            shown.width,
            shown.height,
            frozenset({"phash"}),
            {SPACE: HASH.to_row(HASH.extract(shown.full))},
            preview=shown.preview_jpeg() if preview else None,
        )
    )


def folds(store: Store, order: list[int], folding: Folding | None = None) -> dict[int, list[int]]:
    """Fold all hits."""
    images = store.images_by_id(order)
    return dict((folding or Folding()).folded(store, order, images, SPACE.fingerprint))


@pytest.mark.parametrize("seed", range(4))
def test_a_turned_hash_is_near_that_of_the_turned_picture(seed: int) -> None:
    full = decode(encoded(scene(seed))).full
    variants = turned_codes(HASH.extract(full)[None])[0]
    for pixels in dihedral(full):
        code = HASH.extract(np.ascontiguousarray(pixels))
        assert np.bitwise_count(variants ^ code).sum(-1).min() < CANDIDATE - 50


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.resize((400, 300)),
        ImageOps.mirror,
        lambda one: one.transpose(Image.Transpose.ROTATE_90),
        lambda one: one.transpose(Image.Transpose.TRANSVERSE),
    ],
)
def test_copies_are_folded_into_the_first_of_them(
    change: Callable[[Image.Image], Image.Image],
) -> None:
    store = MemoryStore()
    add(store, 1, encoded(scene(1)))
    add(store, 2, encoded(scene(2)))
    add(store, 3, encoded(change(scene(1)), quality=70))
    add(store, 4, encoded(scene(1)))
    assert folds(store, [1, 2, 3, 4]) == {1: [3, 4], 2: []}
    assert folds(store, [3, 4, 2, 1]) == {3: [4, 1], 2: []}


def test_pictures_that_only_look_alike_are_not_folded() -> None:
    store = MemoryStore()
    add(store, 1, encoded(scene(1)))
    other = scene(1)
    other.paste(scene(9).crop((0, 0, 320, 480)), (0, 0))
    add(store, 2, encoded(other))
    add(store, 3, encoded(ImageOps.invert(scene(1))))
    assert folds(store, [1, 2, 3]) == {1: [], 2: [], 3: []}


def test_the_same_file_is_folded_without_hashes_and_previews() -> None:
    store = MemoryStore()
    for image_id, seed in ((1, 1), (2, 1), (3, 2)):
        add(store, image_id, encoded(scene(seed)), preview=False)
    images = store.images_by_id([1, 2, 3])
    assert dict(Folding().folded(store, [1, 2, 3], images, None)) == {1: [2], 3: []}


def test_without_previews_only_very_near_hashes_are_copies() -> None:
    store = MemoryStore()
    add(store, 1, encoded(scene(1)), preview=False)
    add(store, 2, encoded(scene(1), quality=60), preview=False)
    add(store, 3, encoded(scene(2)), preview=False)
    assert folds(store, [1, 2, 3]) == {1: [2], 3: []}


def test_a_hit_that_was_deleted_meanwhile_stays_alone() -> None:
    store = MemoryStore()
    add(store, 1, encoded(scene(1)))
    assert folds(store, [7, 1]) == {7: [], 1: []}


def test_a_pair_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store, folding, compared = MemoryStore(), Folding(), list[int]()
    real = collapsing.relate

    def counted(*args: object, **kwargs: object) -> object:
        compared.append(1)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(collapsing, "relate", counted)
    add(store, 1, encoded(scene(1)))
    add(store, 2, encoded(scene(1), quality=60))
    first = folds(store, [1, 2], folding)
    assert folds(store, [1, 2], folding) == first == {1: [2]}
    assert folds(store, [2, 1], folding) == {2: [1]}
    assert len(compared) == 1
