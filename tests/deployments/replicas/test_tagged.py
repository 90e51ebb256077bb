"""Indexes of the images with one tag, beside the main one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deployments.replicas import tagged
from deployments.replicas.tagged import TaggedFollowers
from indexes.base import Query
from indexes.registry import make_index
from indexes.replica.applier import row_reader
from indexes.replica.follower import Follower
from indexes.store.base import Space, Store
from indexes.store.lmdb.store import LmdbStore
from models.base import Extractor
from models.errors import RetrieverUnavailable, StoreUnavailable
from models.registry import make_extractor
from tests.indexes.pictures import picture
from tests.indexes.store.faults import FailingStore
from tests.indexes.store.forks import wait_for

pytestmark = pytest.mark.anyio
COUNT = 60
"""Images of each tag, enough to fit a background."""


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    made = make_extractor("color", {})
    made.load()
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(tmp_path / "store")
    yield opened
    opened.close()


def follower_of(store: Store, extractor: Extractor) -> Follower:
    space = Space("color", extractor.fingerprint)
    index = make_index(extractor.index, {}, row_reader(store, space, extractor.from_row))
    return Follower(store, space, index, extractor.from_row)


def followers(store: Store, extractor: Extractor) -> TaggedFollowers:
    return TaggedFollowers(store, lambda limited: follower_of(limited, extractor))


def add(store: Store, extractor: Extractor, tag: str, seed: int, ids: range) -> None:
    """Add images with random histograms; those of another seed are spread otherwise."""
    random, space = np.random.default_rng(seed), Space("color", extractor.fingerprint)
    writes = []
    for image_id in ids:
        drawn = random.gamma(0.1 * seed, size=512).astype(np.float32)
        row = extractor.to_row(drawn / drawn.sum() * np.float32(1e7))
        writes.append(
            picture(
                image_id,
                f"{tag}{image_id}",
                wanted=frozenset({"color"}),
                features={space: row},
                metadata={"tags": [tag]},
            )
        )
    store.put_many(writes)


async def test_its_answers_are_those_of_a_collection_of_its_images_alone(
    store: LmdbStore, extractor: Extractor, tmp_path: Path
) -> None:
    """Also the confidences, which are fitted to the collection."""
    add(store, extractor, "theirs", 9, range(1000, 1000 + 3 * COUNT))
    add(store, extractor, "ours", 2, range(COUNT))
    other = LmdbStore(tmp_path / "other")
    add(other, extractor, "ours", 2, range(COUNT))
    alone, both = follower_of(other, extractor), followers(store, extractor)
    alone.catch_up()
    ours = await both.follower("ours", 20)
    query = Query([extractor.from_row(other.rows(alone.space, [7])[7])])
    params = alone.applier.index.Params.parse({"k": 10})

    def hits(follower: Follower) -> list[object]:
        follower.applier.fit_background(follower.submit(lambda one: one.image_ids()).result())
        return list(follower.search(query, params).hits)

    whole = follower_of(store, extractor)
    whole.catch_up()
    assert ours.count == COUNT
    assert hits(ours) == hits(alone)
    assert hits(ours) != hits(whole)
    for one in (ours, alone, whole):
        one.close()
    other.close()


async def test_searches_share_one_build_and_do_not_wait_for_ever(
    store: LmdbStore, extractor: Extractor
) -> None:
    add(store, extractor, "ours", 2, range(3))
    begun, go = list[Store](), threading.Event()

    def slowly(limited: Store) -> Follower:
        begun.append(limited)
        assert go.wait(20)
        return follower_of(limited, extractor)

    both = TaggedFollowers(store, slowly)
    for _ in range(2):
        with pytest.raises(RetrieverUnavailable, match="loading"):
            await both.follower("ours", 0.01)
    assert both.describe()["ours"].state == "loading"
    go.set()
    follower = await both.follower("ours", 20)
    assert (len(begun), follower.count, both.describe()["ours"].count) == (1, 3, 3)
    follower.close()


async def test_a_build_that_fails_is_tried_again(store: LmdbStore, extractor: Extractor) -> None:
    add(store, extractor, "ours", 2, range(3))
    stores: list[Store] = [FailingStore(store), store]
    both = TaggedFollowers(store, lambda _: follower_of(stores.pop(0), extractor))
    with pytest.raises(StoreUnavailable):
        await both.follower("ours", 20)
    assert both.describe() == {}
    follower = await both.follower("ours", 20)
    assert follower.count == 3
    follower.close()


async def test_an_index_is_renewed_with_its_trained_files_and_dropped_when_unused(
    store: LmdbStore, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagged, "RENEWAL_SECONDS", 0.01)
    monkeypatch.setattr(tagged, "CLOSING_SECONDS", 0.05)
    add(store, extractor, "ours", 2, range(3))
    both, versions = followers(store, extractor), [1]
    first = await both.follower("ours", 20)
    keeping = asyncio.create_task(both.keep(lambda: versions[0]))
    await asyncio.sleep(0.05)
    assert await both.follower("ours", 20) is first
    versions[0] = 2
    await asyncio.to_thread(wait_for, lambda: both._followers["ours"] is not first)
    await asyncio.to_thread(wait_for, first.applier.closing.is_set)
    second = await both.follower("ours", 20)
    assert second.count == 3
    monkeypatch.setattr(tagged, "UNUSED_SECONDS", 0)
    await asyncio.to_thread(wait_for, second.applier.closing.is_set)
    assert both.describe() == {}
    monkeypatch.setattr(tagged, "UNUSED_SECONDS", 1000)
    third = await both.follower("ours", 20)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert third.applier.closing.is_set()
