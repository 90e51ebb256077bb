"""A gateway over sharded retrievers, compared with the same retrievers unsharded, without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn

import httpx
import pytest
from fastapi.testclient import TestClient

from deployments.directory.entry import DirectoryEntry
from deployments.http.application import make_app
from deployments.http.states import state_rows
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.ingress.searching import RetrieverCall
from deployments.layout import deployments_of, layouts_of, shard_of
from deployments.settings import IngressArgs
from deployments.wire import SearchAnswer, SearchRequest
from indexes.base import Hit
from indexes.replica.sharding import WHOLE, Shard
from models.errors import ImageNotFound, RetrieverUnavailable
from tests.deployments import served
from tests.deployments.pictures import picture, put

PICTURES = 9
NEXT = replace(served.description("color"), fingerprint="next")
WORDS = ["a dog at the sea", "the sea", "dogs", "Rex the dog", "a seaside", "racks"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with each retriever twice: unsharded (`color`) and in three shards (`color3`)."""
    folder = tmp_path_factory.mktemp("sharded")
    store = f"lmdb:{folder / 'store'}"
    served.write_matrix(folder / "matrix.npy")
    methods: dict[str, dict[str, Any]] = {
        "color": {"extractor": "color"},
        "local": {"extractor": "local"},
        "tint": {"extractor": "tint", "options": {"path": str(folder / "matrix.npy")}},
        "text": {"extractor": "text"},
    }
    patient: dict[str, Any] = {"deadline": 120, "retriever_deadline": 120}
    asked = IngressArgs(store=store, listen=False, required=("color3",), **patient)
    made = Gateway(asked, "ambience")
    made.directory.complete = True
    with served.with_test_extractors():

        async def meet() -> None:
            for name, method in methods.items():
                args = {**method, "store": store}
                whole = served.serve_here(name, args)
                shards = served.shards_here(f"{name}3", {**args, "shards": 3})
                for handle in (whole, *shards):
                    await served.until(handle, "ready")
                await served.join(made, name, whole)
                await served.join_shards(made, f"{name}3", shards)

        asyncio.run(meet())
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with TestClient(make_app(gateway), "http://localhost") as client:
        for number in range(PICTURES):
            put(client, number, picture(number % 6), json.dumps({"tags": [f"t{number % 2}"]}))
            image = gateway.store.image(number)
            assert image is not None
            said = {"caption": {"text": WORDS[number % len(WORDS)]}}
            gateway.store.annotate(number, image.generation, said, "machine")
        yield client


def search(client: httpx.Client, name: str, asked: dict[str, Any], seed: int | None) -> Any:
    files = None if seed is None else {"image": picture(seed)}
    url = f"/v1/retrievers/{name}/search"
    if files is None:
        answer = client.post(url, json=asked)
    else:
        data = {key: json.dumps(value) for key, value in asked.items()}
        answer = client.post(url, files=files, data=data)
    assert "X-Ambience-Missing" not in answer.headers
    return answer.raise_for_status().json()


@pytest.mark.parametrize(
    ("name", "asked", "seed"),
    [
        ("color", {"k": 4}, 3),
        ("color", {"k": 3, "mirrored": True}, 2),
        ("color", {"distance_threshold": 9e6}, 1),
        ("color", {"k": 5, "filter": {"tags": ["t1"]}}, 1),
        ("color", {"image_id": 5, "k": 20}, None),
        ("local", {"mirrored": True, "explain": True}, 4),
        ("local", {"image_id": 7}, None),
        ("local", {"image_id": 7, "use_ransac": False, "use_smnn_matching": False}, None),
        ("tint", {"k": 6, "aqe_n": 3, "aqe_alpha": 2}, 5),
        ("tint", {"text": "red", "k": 4}, None),
        ("text", {"text": "dog sea", "k": 6}, None),
        ("text", {"text": "seesaid", "distance_threshold": 1}, None),
    ],
)
def test_a_split_retriever_answers_as_one_in_one_piece(
    client: httpx.Client, name: str, asked: dict[str, Any], seed: int | None
) -> None:
    whole = search(client, name, asked, seed)
    assert whole["hits"]
    assert search(client, f"{name}3", asked, seed) == whole


def test_its_pages_follow_each_other(client: httpx.Client) -> None:
    pages = []
    for name in ("color", "color3"):
        cursor, found = None, []
        while cursor is not None or not found:
            page = search(client, name, {"image_id": 2, "k": 2, "cursor": cursor}, None)
            found += page["hits"]
            cursor = page["next_cursor"]
        pages.append(found)
    assert pages[0] == pages[1]
    assert len(pages[0]) == PICTURES


def test_a_fused_search_is_the_same(client: httpx.Client) -> None:
    found = []
    for split in ("", "3"):
        names = {f"{name}{split}": 1.0 for name in ("color", "local", "tint", "text")}
        query = {"image_ids": [4], "text": "the sea", "retrievers": names, "min_confidence": 0}
        answer = client.post("/v1/search", json=query).raise_for_status()
        hits = answer.json()["hits"]
        found.append([(hit["image_id"], hit["score"], hit.get("confidence")) for hit in hits])
    assert found[0] == found[1]
    assert found[0]


def test_a_key_that_is_limited_to_a_tag_searches_its_images_in_all_shards(
    client: httpx.Client,  # noqa: ARG001
    gateway: Gateway,
) -> None:
    limited = gateway.limited_to("t1")

    async def hits(name: str, image_id: int) -> list[Hit]:
        (entry,) = await limited.entries_named([name])
        scope = await limited.search_scope()
        call = RetrieverCall(entry, {"k": 20}, image_id=image_id)
        return await limited.searcher.search(call, scope, Report())

    for name in ("color", "local"):
        whole, split = (asyncio.run(hits(one, 5)) for one in (name, f"{name}3"))
        assert whole == split
        assert {hit.image_id for hit in whole} <= {1, 3, 5, 7}
        with pytest.raises(ImageNotFound):
            asyncio.run(hits(f"{name}3", 4))
    states = {row["name"]: row for row in asyncio.run(state_rows(limited.directory))}
    assert [states[name]["count"] for name in ("color", "color3")] == [4, 4]


def test_its_state_sums_up_its_shards(client: httpx.Client) -> None:
    rows = {row["name"]: row for row in client.get("/v1/retrievers").json()["retrievers"]}
    assert rows["color3"]["shards"] == 3
    assert "shards" not in rows["color"]
    for shown in ("count", "applied_seq", "fingerprint", "state"):
        assert rows["color3"][shown] == rows["color"][shown]
    assert client.get("/readyz").status_code == 200


def test_without_a_shard_the_others_answer_and_it_is_named(
    client: httpx.Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = gateway.directory.entry("color3").shards[1]
    monkeypatch.setattr(gateway.directory, "refresh", _nothing)
    monkeypatch.setattr(shard, "handle", None)
    monkeypatch.setattr("deployments.directory.retrievers._handle", _gone)
    answer = client.post("/v1/retrievers/color3/search", json={"image_id": 2, "k": 20})
    assert {hit["image_id"] % 3 for hit in answer.json()["hits"]} == {0, 2}
    assert answer.headers["X-Ambience-Missing"].startswith("color3/1;reason=")
    assert answer.headers["X-Ambience-Answered"] == "color3"
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "color3/1" in ready.json()["detail"]
    shown = next(
        row for row in client.get("/v1/retrievers").json()["retrievers"] if row["name"] == "color3"
    )
    assert (shown["state"], shown["count"]) == ("unavailable", PICTURES * 2 // 3)


@pytest.mark.anyio
async def test_a_shard_refuses_what_is_asked_of_the_whole(tmp_path: Any) -> None:
    args = {"extractor": "color", "store": f"lmdb:{tmp_path}", "shards": 2}
    handle = served.shards_here("color", args)[0]
    await served.until(handle, "ready")
    answer = await handle.search.remote(SearchRequest({"k": 1}, image_id=1))
    assert isinstance(answer, RetrieverUnavailable)
    answer = await handle.search.remote(SearchRequest({"k": 1}, image_id=1, sharded=True))
    assert not isinstance(answer, SearchAnswer)


def test_a_deployments_name_says_its_shard() -> None:
    assert deployments_of("Retriever", 1) == ["Retriever"]
    names = deployments_of("TextRetriever", 3)
    assert [shard_of(name) for name in names] == [Shard(0, 3), Shard(1, 3), Shard(2, 3)]
    assert shard_of("Retriever") == WHOLE
    assert layouts_of([*names[::-1], "Retriever", "Retriever-1-of-2"]) == {
        3: names,
        1: ["Retriever"],
    }


def test_the_new_layout_is_asked_once_all_of_it_is_ready_and_the_old_until_then() -> None:
    entry = DirectoryEntry("color")
    old, new = ["Retriever"], deployments_of("Retriever", 2)
    entry.update_from_status(old, "RUNNING")
    assert entry.shards == []
    entry.update_from_status([*old, *new], "DEPLOYING")
    assert [shard.deployment for shard in entry.shards] == [
        ("Retriever-0-of-2", "color"),
        ("Retriever-1-of-2", "color"),
    ]
    _become(entry.layouts[1][0])
    entry.choose_layout()
    assert entry.shards == entry.layouts[1]
    _become(entry.layouts[2][0])
    entry.choose_layout()
    assert entry.shards == entry.layouts[1]
    _become(entry.layouts[2][1])
    entry.choose_layout()
    assert entry.shards == entry.layouts[2]
    entry.update_from_status(new, "RUNNING")
    assert [shard.name for shard in entry.shards] == ["color/0", "color/1"]
    entry.update_from_status(old, "RUNNING")
    assert [shard.name for shard in entry.shards] == ["color"]


def test_a_retriever_that_is_being_split_is_still_asked_by_the_model_in_use() -> None:
    both = replace(served.description("color"), next=NEXT)
    entry = DirectoryEntry("color")
    entry.update_from_status(["Retriever"], "RUNNING")
    entry.update_from_description(both)
    new = deployments_of("Retriever", 2)
    entry.update_from_status(["Retriever", *new], "DEPLOYING")
    entry.layouts[1][0].update_from_description(both)
    entry.choose_layout()
    used = entry.with_fingerprint("next")
    assert used.description == NEXT
    assert used.current is entry.layouts[1][0]
    for shard in entry.layouts[2]:
        shard.update_from_description(NEXT)
    entry.choose_layout()
    assert entry.with_fingerprint("next") is entry
    assert entry.models == [entry]
    assert entry.fingerprint == "next"


def _become(shard: DirectoryEntry) -> None:
    shard.unreachable_reason = None
    shard.description = served.description(shard.name)


async def _nothing() -> None:
    """Stand-in for a refresh from Serve; does nothing."""


def _gone(entry: DirectoryEntry) -> NoReturn:
    """Raise what Serve raises for a deployment that was removed."""
    raise KeyError(entry.name)
