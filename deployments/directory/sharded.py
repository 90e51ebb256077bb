"""A search of all shards of a retriever, merged into one answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deployments.wire import SearchAnswer, SearchRequest
from indexes.base import Index, Part, Query, SearchParams
from indexes.registry import index_class
from indexes.replica.sharding import merge_candidates, merge_hits
from models.errors import AmbienceError, DeadlineExceeded, RetrieverUnavailable

ShardCall = Callable[[str, SearchRequest], Awaitable[Any]]
"""Function that calls a method of one shard with a request."""


@dataclass(slots=True)
class ShardedSearch:
    """One search. Shards that fail are dropped from later rounds and named as missing."""

    shards: dict[str, ShardCall]
    """The shards that can be called, by name."""
    missing: dict[str, str]
    """The shards that can't be called → reason."""
    partial: bool
    """Whether an answer without one of `shards` is acceptable; otherwise their failure is
    raised."""
    answers: list[SearchAnswer] = field(default_factory=list)
    """Answers of the last round."""

    async def search(self, searched_by: str, request: SearchRequest) -> SearchAnswer:
        """Search. Raises RetrieverUnavailable when no shard answers, or the shards' own error."""
        began = time.perf_counter()
        kind = await asyncio.to_thread(index_class, searched_by)
        params = kind.Params.parse(request.params)
        request = replace(await self._by_features(request), sharded=True)
        parts = await self._round(request, began)
        query = _query(request)
        common = await asyncio.to_thread(merge_candidates, kind, parts, query, params)
        if common is not None:
            parts = await self._round(replace(request, candidates=common), began)
        return await self._merged(kind, parts, params, began)

    async def _by_features(self, request: SearchRequest) -> SearchRequest:
        """The request with its features, which any one shard extracts; rotating the shards spreads
        the work."""
        if request.features is not None:
            return request
        for name, call in list(self.shards.items()):
            answers = await self._call_shards(
                {name: call}, "features", replace(request, allowed=None)
            )
            for made in answers:
                assert isinstance(made, SearchRequest)
                return replace(made, allowed=request.allowed)
        raise self._no_answer()

    async def _round(self, request: SearchRequest, began: float) -> list[Part]:
        left = max(0.01, request.deadline - (time.perf_counter() - began))
        self.answers = await self._call_shards(
            self.shards, "search", replace(request, deadline=left)
        )
        if not self.answers:
            raise self._no_answer()
        return [answer.part for answer in self.answers if answer.part is not None]

    async def _call_shards(
        self, shards: Mapping[str, ShardCall], method: str, request: SearchRequest
    ) -> list[Any]:
        results = await asyncio.gather(
            *(_outcome(call(method, request)) for call in shards.values())
        )
        for name, result in zip(list(shards), results, strict=True):
            if isinstance(result, AmbienceError):
                self._drop_shard(name, result)
        return [result for result in results if not isinstance(result, AmbienceError)]

    def _drop_shard(self, name: str, why: AmbienceError) -> None:
        """Drop a shard that failed. Raises errors that are not this shard's alone, and those that a
        retry may mend."""
        lost = isinstance(why, RetrieverUnavailable | DeadlineExceeded)
        if not lost or (isinstance(why, RetrieverUnavailable) and not self.partial):
            raise why
        self.missing[name] = str(why)
        del self.shards[name]

    def _no_answer(self) -> RetrieverUnavailable:
        name, reason = next(iter(self.missing.items()))
        return RetrieverUnavailable(f"{name}: {reason}")

    async def _merged(
        self, kind: type[Index], parts: Sequence[Part], params: SearchParams, began: float
    ) -> SearchAnswer:
        return SearchAnswer(
            hits=await asyncio.to_thread(merge_hits, kind, parts, params),
            applied_seq=min(answer.applied_seq for answer in self.answers),
            stale=any(answer.stale for answer in self.answers),
            seconds=time.perf_counter() - began,
            missing=self.missing,
        )


def _query(request: SearchRequest) -> Query:
    assert request.features is not None
    return Query(request.features, request.allowed, request.is_one_picture, sharded=True)


async def _outcome(call: Awaitable[Any]) -> Any:
    """The answer, or the expected error as a value, so that the other shards are awaited."""
    try:
        return await call
    except AmbienceError as exc:
        return exc
