"""The index over tombstones follows the store, whoever writes there."""

from __future__ import annotations

import time

import numpy as np
import pytest

from deployments.tombstones import pdq, records
from deployments.tombstones.index import FeatureKind, TombstoneIndex
from deployments.tombstones.records import RememberedPicture, Tombstone
from indexes.store.base import Space
from indexes.store.memory.store import MemoryStore
from models.pictures.decoding import Picture, decode
from models.registry import make_extractor
from tests.drawing import encoded, jpeg, scene

NEAR = {"distance_threshold": 64}


def kinds(fingerprint: str = "f1") -> dict[str, FeatureKind]:
    return {
        "phash": FeatureKind(Space("phash", fingerprint), make_extractor("phash"), True),
        "local": FeatureKind(Space("local", "l1"), make_extractor("local"), False),
    }


def shown(seed: int) -> Picture:
    return decode(jpeg(seed))


def entry(seed: int) -> tuple[Tombstone, RememberedPicture]:
    """A tombstone of a scene with all its features."""
    picture = shown(seed)
    rows = {
        kind.space: kind.extractor.to_row(kind.extractor.extract(picture.view(kind.extractor.view)))
        for kind in kinds().values()
    }
    one = Tombstone(f"scene-{seed}", time.time(), sha256=f"{seed:064}", width=640, height=480)
    return one, RememberedPicture(picture.preview_jpeg(), rows)


def found(index: TombstoneIndex, kind: str, seed: int) -> list[str]:
    """Return the ids of the tombstones that a kind proposes for a scene."""
    extractor = kinds()[kind].extractor
    variants = extractor.extract_variants(shown(seed).view(extractor.view), "mirror")
    hits = index.propose(kind, variants, NEAR if kind == "phash" else {"k": 4})
    named = [index.tombstone(hit.image_id) for hit in hits]
    return [one.tombstone_id for one in named if one is not None]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_every_replica_knows_what_any_replica_wrote(store: MemoryStore) -> None:
    one, other = TombstoneIndex(store), TombstoneIndex(store)
    assert not one.follow(kinds())
    records.remember(store, dict([entry(1), entry(2)]))
    for index in (one, other):
        assert index.follow(kinds())
        assert found(index, "phash", 1) == ["scene-1"]
        assert found(index, "local", 2) == ["scene-2"]
    records.forget(store, "scene-1")
    records.remember(store, dict([entry(3)]))
    for index in (one, other):
        index.follow(kinds())
        assert found(index, "phash", 1) == found(index, "local", 1) == []
        assert found(index, "local", 3) == ["scene-3"]
        assert index.by_file(f"{1:064}") is None
        assert index.by_file(f"{3:064}") == records.by_id(store, ["scene-3"])["scene-3"]


def test_features_of_another_model_are_made_anew_of_the_preview(store: MemoryStore) -> None:
    records.remember(store, dict([entry(1)]))
    index = TombstoneIndex(store)
    index.follow(kinds())
    index.follow(kinds("f2"))
    assert found(index, "phash", 1) == ["scene-1"]


def test_a_replica_that_missed_too_much_reads_everything(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "KEPT_CHANGES", 2)
    index = TombstoneIndex(store)
    records.remember(store, dict([entry(1)]))
    index.follow(kinds())
    records.forget(store, "scene-1")
    for seed in (2, 3, 4):
        records.remember(store, dict([entry(seed)]))
    index.follow(kinds())
    assert found(index, "phash", 1) == []
    assert [found(index, "phash", seed) for seed in (2, 3, 4)] == [
        ["scene-2"],
        ["scene-3"],
        ["scene-4"],
    ]


def test_a_damaged_picture_costs_only_itself(store: MemoryStore) -> None:
    one, picture = entry(1)
    broken = RememberedPicture(b"no jpeg", {Space("phash", "f1"): b"short"})
    bad = Tombstone("bad", 1.0)
    records.remember(store, {one: picture, bad: broken, Tombstone("bare", 1.0): None})
    index = TombstoneIndex(store)
    assert index.follow(kinds())
    assert found(index, "phash", 1) == ["scene-1"]


def test_pdq_hashes_find_altered_copies_and_no_others(store: MemoryStore) -> None:
    line = pdq.line_of(shown(1).preview, "")
    assert line is not None
    records.remember(store, {Tombstone("one", 1.0, pdq=line.split(",")[0]): None})
    index = TombstoneIndex(store)
    assert index.follow({})
    smaller = decode(encoded(scene(1).resize((320, 240)), quality=60))
    turned = np.rot90(smaller.preview)
    for rgb in (shown(1).preview, smaller.preview, turned):
        match = index.by_pdq(pdq.hashes(rgb))
        assert match is not None
        assert match.tombstone_id == "one"
    assert index.by_pdq(pdq.hashes(shown(2).preview)) is None
    blank = np.full((300, 300, 3), 200, np.uint8)
    assert pdq.hashes(blank).shape == (0, 32)
    assert index.by_pdq(pdq.hashes(blank)) is None
