"""A retriever with two models, served in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.directory.entry import DirectoryEntry
from deployments.http.states import state_rows
from deployments.ingress.fused import fused_search
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.ingress.searching import QueryPicture, RetrieverCall, SearchScope, search_request
from deployments.queries import SearchQuery
from deployments.settings import RetrieverArgs
from deployments.wire import SearchAnswer, SearchRequest
from indexes.store.base import ImageWrite, Space, Store
from indexes.store.lmdb.store import LmdbStore
from models.base import Extractor
from models.errors import InvalidInput, RetrieverUnavailable
from models.pictures.decoding import decode
from models.registry import make_extractor
from tests.deployments import served
from tests.drawing import jpeg

pytestmark = pytest.mark.anyio
PLACES = ["stamp", "stamp_here"]
SPLIT = [(extractor, shards) for extractor in PLACES for shards in (1, 3)]
OWN, NEXT = 0, 400
SECONDS = 60.0


@pytest.fixture(autouse=True)
def _extractors() -> Iterator[None]:
    with served.with_test_extractors():
        yield


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    store = LmdbStore(tmp_path / "store")
    yield store
    store.close()


def model(extractor: str, mark: int) -> Extractor:
    return make_extractor(extractor, {"mark": mark})


def space(extractor: str, mark: int) -> Space:
    return Space("stamp", model(extractor, mark).fingerprint)


def args(tmp_path: Path, extractor: str = "stamp") -> dict[str, Any]:
    return {
        "extractor": extractor,
        "options": {"mark": OWN},
        "next": {"extractor": extractor, "options": {"mark": NEXT}},
        "store": f"lmdb:{tmp_path / 'store'}",
        "completion_interval": 0.05,
    }


def add(store: Store, number: int, extractor: str, *marks: int, keep: str = "preview") -> None:
    """Store an image with features of these models and its preview, its upload, or neither."""
    data = jpeg(number, 64, 48)
    picture = decode(data)
    features = {}
    for mark in marks:
        made = model(extractor, mark)
        features[space(extractor, mark)] = made.to_row(made.extract(picture.view(made.view)))
    store.put(
        ImageWrite(
            number,
            f"{number:064}",
            64,
            48,
            frozenset({"stamp"}),
            features,
            preview=picture.preview_jpeg() if keep == "preview" else None,
            original=data if keep == "original" else None,
        )
    )


def found(extractor: str, mark: int, query: int, numbers: list[int]) -> dict[int, float]:
    """Return the distances that this model finds, by image id."""
    made = model(extractor, mark)
    rows = {
        number: made.extract(decode(jpeg(number, 64, 48)).view(made.view))
        for number in {query, *numbers}
    }
    return {
        number: pytest.approx(1 - float(rows[query] @ rows[number]), abs=1e-4) for number in numbers
    }


async def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        await asyncio.sleep(0.02)


def _over(tasks: list[asyncio.Task[None]]) -> bool:
    return any(task.done() for task in tasks)


async def both_ready(handle: Any) -> None:
    until = time.monotonic() + SECONDS
    while True:
        says = await served.described(handle)
        assert says.next is not None
        if (says.state, says.next.state) == ("ready", "ready"):
            return
        assert time.monotonic() < until, says
        await asyncio.sleep(0.02)


async def joined(gateway: Gateway, given: dict[str, Any], shards: int) -> None:
    """Serve `stamp` with both models in `shards` shards and enter it in the directory."""
    if shards == 1:
        handles = [served.serve_here("stamp", given)]
    else:
        handles = served.shards_here("stamp", given | {"shards": shards})
    for handle in handles:
        await both_ready(handle)
    if shards == 1:
        await served.join(gateway, "stamp", handles[0])
    else:
        await served.join_shards(gateway, "stamp", handles)


async def test_what_lacks_the_next_features_gets_them_from_its_preview(
    tmp_path: Path, store: LmdbStore
) -> None:
    for number in range(5):
        add(store, number, "stamp", OWN)
    add(store, 7, "stamp", OWN, keep="nothing")
    handle = served.serve_here("stamp", args(tmp_path))
    await both_ready(handle)
    following = space("stamp", NEXT)
    await wait_for(lambda: store.rows(following, range(9)).keys() == {*range(5)})
    add(store, 8, "stamp", OWN)
    await wait_for(lambda: 8 in store.rows(following, [8]))
    add(store, 9, "stamp", NEXT)
    await wait_for(lambda: 9 in store.rows(space("stamp", OWN), [9]))
    assert store.rows(following, [7]) == {}
    assert store.rows(space("stamp", OWN), [7]).keys() == {7}


async def test_an_upload_that_is_pending_gets_the_features_of_both_models(
    tmp_path: Path, store: LmdbStore
) -> None:
    handle = served.serve_here("stamp", args(tmp_path, "stamp_here"))
    await both_ready(handle)
    add(store, 3, "stamp_here", keep="original")
    await wait_for(lambda: not store.pending("stamp"))
    for mark in (OWN, NEXT):
        made = model("stamp_here", mark)
        whole = made.to_row(made.extract(decode(jpeg(3, 64, 48)).full))
        assert store.rows(space("stamp_here", mark), [3]) == {3: whole}


async def test_words_get_the_features_of_the_model_that_searches_use(
    tmp_path: Path, store: LmdbStore
) -> None:
    handle = served.serve_here("stamp", args(tmp_path))
    await both_ready(handle)
    for mark in (OWN, NEXT, OWN):
        store.activate("stamp", model("stamp", mark).fingerprint)
        answer = await handle.text_features.remote(("a", "b"))
        assert answer.fingerprint == model("stamp", mark).fingerprint
        assert (answer.logit_scale, answer.vectors.shape) == (mark, (2, 4))


async def test_words_are_an_error_where_pictures_are_not_scored_by_them(
    tmp_path: Path, store: LmdbStore
) -> None:
    given = {"extractor": "phash", "store": f"lmdb:{tmp_path / 'store'}"}
    handle = served.serve_here("phash", given)
    await served.until(handle, "ready")
    answer = await handle.text_features.remote(("a",))
    assert isinstance(answer, InvalidInput)
    assert store.active() == {}


async def test_a_query_is_answered_in_the_space_that_it_names(
    tmp_path: Path, store: LmdbStore
) -> None:
    for number in range(4):
        add(store, number, "stamp", OWN, NEXT)
    handle = served.serve_here("stamp", args(tmp_path))
    await both_ready(handle)
    for mark in (OWN, NEXT):
        fingerprint = space("stamp", mark).fingerprint
        request = SearchRequest({"k": 9}, image_id=2, fingerprint=fingerprint)
        answer = await handle.search.remote(request)
        assert isinstance(answer, SearchAnswer)
        shown = {hit.image_id: hit.distance for hit in answer.hits}
        assert shown == found("stamp", mark, 2, [0, 1, 2, 3])
        pixels = decode(jpeg(2, 64, 48)).preview
        assert (await handle.extract.remote(pixels, fingerprint)).fingerprint == fingerprint
    stranger = SearchRequest({"k": 9}, image_id=2, fingerprint="of another model")
    assert isinstance(await handle.search.remote(stranger), RetrieverUnavailable)
    assert isinstance(await handle.extract.remote(pixels, "another"), RetrieverUnavailable)


@pytest.mark.parametrize(("extractor", "shards"), SPLIT)
async def test_searches_follow_the_store_and_none_mixes_models(
    gateway: Gateway, tmp_path: Path, extractor: str, shards: int
) -> None:
    """A query of two pictures makes two calls to the replica."""
    numbers, queries = [0, 1, 2, 3, 4, 5], [0, 3]
    for number in numbers:
        add(gateway.store, number, extractor, OWN, NEXT)
    await joined(gateway, args(tmp_path, extractor), shards)
    gateway.args = gateway.args.model_copy(update={"deadline": SECONDS})
    expected = {
        mark: [found(extractor, mark, one, numbers) for one in queries] for mark in (OWN, NEXT)
    }
    images = [jpeg(number, 64, 48) for number in queries]
    seen: list[int] = []

    async def search() -> int:
        query = SearchQuery(k=9, retrievers={"stamp": 1.0}, min_confidence=0)
        report = Report()
        hits = (await fused_search(gateway, query, images, report)).hits
        assert not report.missing
        nearest = {hit.image_id: hit.retrievers["stamp"]["distance"] for hit in hits}
        (mark,) = (
            mark
            for mark, lists in expected.items()
            if all(nearest[at] in (lists[0][at], lists[1][at]) for at in numbers)
        )
        return mark

    async def keep_searching() -> None:
        while len(seen) < 400:
            seen.append(await search())

    assert await search() == OWN
    searching = [asyncio.create_task(keep_searching()) for _ in range(3)]
    for mark in (NEXT, OWN, NEXT):
        count = len(seen)
        await wait_for(lambda count=count: _over(searching) or len(seen) > count + 20)  # type: ignore[misc]
        gateway.store.activate("stamp", space(extractor, mark).fingerprint)
        assert await search() == mark
    await asyncio.gather(*searching)
    assert set(seen) == {OWN, NEXT}


@pytest.mark.parametrize(("extractor", "shards"), SPLIT)
async def test_an_add_gets_the_features_of_both_models(
    gateway: Gateway, tmp_path: Path, extractor: str, shards: int
) -> None:
    await joined(gateway, args(tmp_path, extractor) | {"completion_interval": 99}, shards)
    done = await gateway.writer.add(5, jpeg(5, 64, 48), Report())
    assert {name: one.row() for name, one in done.retrievers.items()} == {
        "stamp": {"state": "indexed"}
    }
    for mark in (OWN, NEXT):
        assert gateway.store.rows(space(extractor, mark), [5]).keys() == {5}


@pytest.mark.parametrize("shards", [1, 2])
async def test_the_state_shows_the_model_in_use_and_the_other_one(
    gateway: Gateway, tmp_path: Path, shards: int
) -> None:
    add(gateway.store, 1, "stamp", OWN, NEXT)
    add(gateway.store, 2, "stamp", OWN, keep="nothing")
    await joined(gateway, args(tmp_path), shards)
    current, following = space("stamp", OWN).fingerprint, space("stamp", NEXT).fingerprint
    (row,) = await state_rows(gateway.directory)
    assert (row["fingerprint"], row["count"], "previous" in row) == (current, 2, False)
    shown = {name: row["next"][name] for name in ("state", "fingerprint", "count")}
    assert shown == {"state": "ready", "fingerprint": following, "count": 1}
    gateway.store.activate("stamp", following)
    (row,) = await state_rows(gateway.directory)
    assert (row["fingerprint"], row["count"], "next" in row) == (following, 1, False)
    assert (row["previous"]["fingerprint"], row["previous"]["count"]) == (current, 2)


async def test_without_the_weights_of_the_next_model_its_own_one_serves(
    gateway: Gateway, tmp_path: Path
) -> None:
    path = tmp_path / "matrix.npy"
    following = {"extractor": "shade", "options": {"path": str(path)}}
    add(gateway.store, 1, "stamp", OWN)
    handle = served.serve_here("stamp", args(tmp_path) | {"next": following})
    await served.until(handle, "ready")
    await served.join(gateway, "stamp", handle)
    (row,) = await state_rows(gateway.directory)
    assert (row["state"], row["next"]["state"]) == ("ready", "loading")
    assert "ready in 0 of 1 replicas" in row["next"]["reason"]
    answer = await handle.search.remote(
        SearchRequest({"k": 9}, image_id=1, fingerprint=space("stamp", OWN).fingerprint)
    )
    assert [hit.image_id for hit in answer.hits] == [1]
    added = await gateway.writer.add(2, jpeg(2, 64, 48), Report())
    assert added.retrievers["stamp"].row() == {"state": "indexed"}
    served.write_matrix(path)
    await both_ready(handle)
    late = Space("stamp", make_extractor("shade", {"path": str(path)}).fingerprint)
    await wait_for(lambda: gateway.store.rows(late, [1, 2]).keys() == {1, 2})


async def test_a_shard_that_has_the_next_model_before_the_others_waits_for_them(
    gateway: Gateway, tmp_path: Path
) -> None:
    """A deploy adds or removes `next` shard by shard."""
    for number in range(4):
        add(gateway.store, number, "stamp", OWN, NEXT)
    both, current = args(tmp_path) | {"shards": 2}, args(tmp_path) | {"shards": 2, "next": None}
    alone = current | {"options": {"mark": NEXT}}
    first, last = served.shards_here("stamp", both), served.shards_here("stamp", current)
    later = served.shards_here("stamp", alone)
    for handle in first:
        await both_ready(handle)
    for handle in (*last, *later):
        await served.until(handle, "ready")
    fingerprints = {mark: space("stamp", mark).fingerprint for mark in (OWN, NEXT)}

    async def answered(handles: list[Any]) -> set[int]:
        await served.join_shards(gateway, "stamp", handles)
        entry = (await gateway.entries_named(["stamp"]))[0]
        request = SearchRequest({"k": 9}, image_id=2, fingerprint=entry.fingerprint)
        answer = await gateway.directory.search(entry, request)
        assert not answer.missing
        return {
            mark
            for mark in (OWN, NEXT)
            if {hit.image_id: hit.distance for hit in answer.hits}
            == found("stamp", mark, 2, [0, 1, 2, 3])
        }

    assert await answered([first[0], last[1]]) == {OWN}
    assert await answered([last[0], first[1]]) == {OWN}
    (row,) = await state_rows(gateway.directory)
    assert row["next"]["state"] == "loading"
    await answered(first)
    gateway.store.activate("stamp", fingerprints[NEXT])
    assert await answered(first) == {NEXT}
    assert await answered([first[0], later[1]]) == {NEXT}
    assert await answered([later[0], first[1]]) == {NEXT}
    assert await answered(later) == {NEXT}


def test_a_misspelt_next_model_is_refused_when_it_is_built(tmp_path: Path) -> None:
    given = args(tmp_path)
    with pytest.raises(InvalidInput, match="marc"):
        served.serve_here("stamp", given | {"next": {"extractor": "stamp", "options": {"marc": 1}}})
    with pytest.raises(InvalidInput, match="pictures only"):
        served.serve_here("stamp", given | {"next": {"extractor": "words"}})
    with pytest.raises(ValueError, match="modle"):
        RetrieverArgs.model_validate(given | {"next": {"modle": "stamp"}})


@pytest.mark.parametrize(
    ("current", "following", "active", "used"),
    [
        ("a", "b", None, "own"),
        ("a", "b", "a", "own"),
        ("a", "b", "b", "next"),
        ("", "b", "b", "next"),
        ("", "b", "a", "own"),
        ("a", "", "a", "own"),
        # The next model is in use but still loading: the own model must not answer in its place.
        ("a", "", "b", "next"),
        ("a", "b", "of neither", "own"),
    ],
)
async def test_the_model_in_use_is_known_before_both_are_loaded(
    tmp_path: Path, current: str, following: str, active: str | None, used: str
) -> None:
    handle = served.serve_here("stamp", args(tmp_path))
    says = await served.described(handle)
    assert says.next is not None
    description = replace(says, fingerprint=current, next=replace(says.next, fingerprint=following))
    entry = DirectoryEntry("stamp", description=description)
    entry.next = DirectoryEntry("stamp", description=description.next)
    assert entry.with_fingerprint(active) is (entry.next if used == "next" else entry)


async def test_features_go_under_the_fingerprint_of_what_made_them(tmp_path: Path) -> None:
    """This holds even if the retriever has another model by the time of the search."""
    says = await served.described(served.serve_here("stamp", args(tmp_path)))
    entry = DirectoryEntry("stamp", description=replace(says, fingerprint="new"))
    picture = QueryPicture({"stamp": []}, {"stamp": "old"}, {}, "identity")
    scope = SearchScope(until=time.monotonic() + 1)
    assert (
        search_request(RetrieverCall(entry, {}, picture=picture), scope, 1.0).fingerprint == "old"
    )
    assert search_request(RetrieverCall(entry, {}, image_id=7), scope, 1.0).fingerprint == "new"
