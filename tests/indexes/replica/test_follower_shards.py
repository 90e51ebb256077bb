"""Followers of one store, each of one shard."""

from __future__ import annotations

from dataclasses import replace

from indexes.hamming.index import BinaryIndex
from indexes.replica.applier import row_reader
from indexes.replica.follower import Follower
from indexes.replica.sharding import Shard, merge_hits
from indexes.store.memory.store import MemoryStore
from tests.indexes.pictures import PHASH, picture, row_of
from tests.indexes.store.forks import wait_for
from tests.indexes.tiny_index import decode, nearest

PICTURES = 120


def sharded(store: MemoryStore, shard: Shard) -> tuple[Follower, BinaryIndex]:
    index = BinaryIndex(BinaryIndex.Config(), row_reader(store, PHASH, decode))
    return Follower(store, PHASH, index, decode, shard=shard), index


def test_each_follower_holds_the_ids_of_its_shard_and_reaches_the_log_head() -> None:
    store = MemoryStore()
    store.put_many([picture(at, str(at)) for at in range(10)])
    followers = [sharded(store, Shard(number, 3))[0] for number in range(3)]
    for follower in followers:
        follower.rebuild()
    assert [follower.count for follower in followers] == [4, 3, 3]
    store.put(picture(10, "10"))
    store.delete(3)
    assert [follower.catch_up() for follower in followers] == [store.head()] * 3
    assert [follower.count for follower in followers] == [3, 4, 3]
    for follower in followers:
        follower.close()


def test_all_have_the_background_of_the_whole_store_and_answer_with_its_confidence() -> None:
    store = MemoryStore()
    store.put_many([picture(at, str(at)) for at in range(PICTURES)])
    made = [sharded(store, Shard(number, 2)) for number in range(2)]
    made.append(sharded(store, Shard()))
    usual = [index.background for _, index in made]
    for follower, _ in made:
        follower.start(poll=0.01)
    wait_for(lambda: all(index.background not in usual for _, index in made))
    assert len({index.background for _, index in made}) == 1
    query, params = nearest(row_of("7"))
    query = replace(query, sharded=True)
    parts = [follower.search(query, params).part for follower, _ in made[:2]]
    known = [part for part in parts if part is not None]
    whole = made[2][0].search(*nearest(row_of("7"))).hits
    assert merge_hits(BinaryIndex, known, params) == whole
    assert whole[0].confidence == 1.0
    for follower, _ in made:
        follower.close()
