"""Followers of a tiny index."""

from __future__ import annotations

from indexes.replica.answer import Answer
from indexes.replica.follower import Follower
from indexes.store.base import Store
from tests.indexes.pictures import PHASH
from tests.indexes.tiny_index import TinyIndex, decode, tiny


def follow(
    store: Store,
    index: TinyIndex | None = None,
    applied: int | None = None,
    searches: int | None = None,
) -> Follower:
    given = tiny() if index is None else index
    return Follower(store, PHASH, given, decode, applied, searches=searches)


def ready(store: Store, index: TinyIndex | None = None) -> Follower:
    follower = follow(store, index)
    follower.rebuild()
    return follower


def best(answer: Answer) -> tuple[int, float | None]:
    return answer.hits[0].image_id, answer.hits[0].distance
