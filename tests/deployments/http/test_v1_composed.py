"""Composed queries over HTTP, in /v1/search and in the gallery's search by text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from deployments.http.application import make_app
from deployments.ingress.composed import stands_in
from deployments.ingress.gateway import Gateway
from deployments.settings import IngressArgs
from indexes.store.base import Author
from tests.deployments import served
from tests.deployments.pictures import ids, problem_of, put
from tests.drawing import encoded

COLOURS = {
    1: (220, 30, 30),
    2: (30, 220, 30),
    3: (30, 30, 220),
    4: (200, 60, 40),
    5: (220, 30, 220),
}
BY_TEXT = "/image_text_features_get_similar_images_by_text"
SIGNS = {1: "Trail CLOSED until May", 2: "closed trail", 4: "the trail\nclosed"}
PERSON: Author = "person"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Images of one colour; 1 and 3 have the tag `beach`, 5 the tag `two words`; some have text."""
    folder = tmp_path_factory.mktemp("composed")
    store = f"lmdb:{folder / 'store'}"
    served.write_matrix(folder / "matrix.npy")
    tint = {"extractor": "tint", "options": {"path": str(folder / "matrix.npy")}, "store": store}
    applications = {
        "phash": {"extractor": "phash", "store": store},
        "image_text": tint,
        "text": {"extractor": "text", "store": store},
    }
    with pytest.MonkeyPatch.context() as patch, served.with_test_extractors():
        patch.setenv("AMBIENCE_DATA", str(folder))
        made = Gateway(IngressArgs(store=store, listen=False), "ambience")
        made.directory.complete = True

        async def meet() -> None:
            for name, args in applications.items():
                handle = served.serve_here(name, args)
                await served.until(handle, "ready")
                await served.join(made, name, handle)

        asyncio.run(meet())
        client = client_of(made)
        for number, colour in COLOURS.items():
            tags = {1: ["beach"], 3: ["beach"], 5: ["two words"]}.get(number, [])
            shown = encoded(Image.new("RGB", (400, 300), colour), quality=95)
            put(client, number, shown, f'{{"tags": {tags}}}'.replace("'", '"'))
        for number, text in SIGNS.items():
            image = made.store.image(number)
            assert image is not None
            made.store.annotate(number, image.generation, {"ocr": {"text": text}}, PERSON)
        yield made
        made.close()


def client_of(gateway: Gateway) -> TestClient:
    return TestClient(make_app(gateway), "http://localhost", raise_server_exceptions=False)


@pytest.fixture
def client(gateway: Gateway) -> TestClient:
    return client_of(gateway)


def search(client: TestClient, composed: str, **query: Any) -> Any:
    """The answer of /v1/search."""
    asked = {"composed": composed, "min_confidence": 0, **query}
    answer = client.post("/v1/search", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_text(client: TestClient, text: str) -> list[int]:
    """The ids that the gallery's search by text answers."""
    answer = client.post(BY_TEXT, json={"text": text, "k": 100})
    assert answer.status_code == 200, answer.text
    return ids(answer.json())


def test_words_alone_are_searched_as_text(client: TestClient) -> None:
    plain = client.post("/v1/search", json={"text": "red", "min_confidence": 0}).json()
    assert search(client, "red")["hits"] == plain["hits"]
    assert ids(plain["hits"])[0] == 1


def test_the_gallery_finds_by_each_part(client: TestClient) -> None:
    assert by_text(client, "red")[0] == 1
    assert by_text(client, "~3")[0] == 3
    assert by_text(client, "red #beach") == [1, 3]
    assert set(by_text(client, "red -#beach")) == {2, 4, 5}
    assert by_text(client, '~3 #"two words"') == [5]
    assert by_text(client, 'red "trail closed"') == [1, 4]
    assert set(by_text(client, 'red -"trail closed"')) == {2, 3, 5}
    assert by_text(client, 'red "trail closed" #beach') == [1]
    assert 3 not in by_text(client, "blue -~3")


def test_minus_words_turn_away_from_what_they_name(client: TestClient) -> None:
    purple = search(client, "~5", retrievers={"image_text": 1})["hits"]
    rest = search(client, "~5 -blue", retrievers={"image_text": 1})["hits"]
    blue = {hit["image_id"]: hit["retrievers"]["image_text"]["distance"] for hit in purple}[3]
    less = {hit["image_id"]: hit["retrievers"]["image_text"]["distance"] for hit in rest}[3]
    assert less > blue
    assert by_text(client, "~5 -blue").index(3) > by_text(client, "~5").index(3)


def test_an_exact_text_stands_word_by_word_in_the_picture(client: TestClient) -> None:
    assert set(ids(search(client, '"trail closed"')["hits"])) == {1, 4}
    assert set(ids(search(client, '"closed trail"')["hits"])) == {2}
    assert search(client, '"trail open"')["hits"] == []
    assert set(ids(search(client, '"closed"')["hits"])) == {1, 2, 4}
    assert "unapplied" not in search(client, '"closed"')


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ("trail closed", True),
        ("TRAIL, closed!", True),
        ("rail closed", False),
        ("closed until june", False),
        ("until may", True),
        ("may beach", False),
    ],
)
def test_a_text_stands_in_one_passage_of_an_annotation(text: str, stands: bool) -> None:
    row = b'{"ocr": {"text": "Trail closed until May"}, "caption": {"tags": ["beach"]}}'
    assert stands_in(text, row) is stands


def test_parts_join_the_other_fields_of_a_query(client: TestClient) -> None:
    one = search(client, "#beach", image_ids=[2])
    assert set(ids(one["hits"])) <= {1, 3}
    assert ids(one["hits"])
    both = search(client, "red -~4", negative={"image_ids": [5]}, filter={"ids": [1, 4, 5]})
    assert ids(both["hits"]) == [1]


def test_what_no_retriever_reads_is_named_and_the_rest_is_answered(client: TestClient) -> None:
    answer = search(client, "~1 red -blue", retrievers={"phash": 1})
    assert ids(answer["hits"])[0] == 1
    said = [(one["part"], one["at"]) for one in answer["unapplied"]]
    assert said == [("red", [3, 6]), ("-blue", [7, 12])]
    assert all(one["reason"] for one in answer["unapplied"])
    words_only = search(client, "closed -red", retrievers={"text": 1})
    assert [one["part"] for one in words_only["unapplied"]] == ["-red"]


def test_exact_texts_without_their_retriever_are_named(
    gateway: Gateway, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = gateway.directory.entry("text")
    monkeypatch.setattr(entry, "unreachable_reason", "it is restarting")
    answer = search(client, 'red "trail closed"')
    (left,) = answer["unapplied"]
    assert (left["part"], left["at"]) == ('"trail closed"', [4, 18])
    assert "it is restarting" in left["reason"]
    assert ids(answer["hits"])[0] == 1
    old = client.post(BY_TEXT, json={"text": 'red "trail closed"', "k": 100})
    assert ids(old.json())[0] == 1
    assert 'text;reason="it is restarting"' in old.headers["X-Ambience-Missing"]


@pytest.mark.parametrize(
    ("composed", "position"),
    [
        ("red ~12a", 7),
        ("red ~77", 4),
        ("red -~77", 4),
        ('red "trail', 4),
        ("red #nowhere", 4),
        ("  -red", 2),
        ("#beach", 0),
        ("~1 " * 17, 48),
        ("red " + "#a " * 101, 304),
        ('"a" -' * 4 + '"a" ' * 9, 36),
    ],
)
def test_an_error_points_at_the_character(client: TestClient, composed: str, position: int) -> None:
    for answer in (
        client.post("/v1/search", json={"composed": composed}),
        client.post(BY_TEXT, json={"text": composed, "k": 5}),
    ):
        problem = problem_of(answer, 400)
        assert problem["position"] == position
        assert problem["type"] == "/problems/malformed-query"
        assert f"character {position + 1}:" in problem["detail"]


def test_text_and_a_composed_query_exclude_each_other(client: TestClient) -> None:
    both = client.post("/v1/search", json={"composed": "red", "text": "red"})
    assert "not both" in problem_of(both, 400)["detail"]
    blank = client.post("/v1/search", json={"composed": "  "})
    assert problem_of(blank, 400)["field"] == "composed"
