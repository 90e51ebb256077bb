"""Searches by words, vectors and mixtures of them, over HTTP and without Ray's actors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from deployments.settings import IngressArgs
from indexes.store.base import ANNOTATIONS, ImageWrite
from models.pictures.decoding import decode
from models.registry import make_extractor
from tests.deployments import served
from tests.deployments.http.test_v1_search import ask, hits_of
from tests.deployments.pictures import field_part, ids, image_part, post_form, problem_of, put
from tests.drawing import encoded, jpeg

COLOURS = {1: (220, 30, 30), 2: (30, 220, 30), 3: (30, 30, 220), 4: (150, 150, 30), 5: (90, 90, 90)}
BY_TEXT = "/image_text_features_get_similar_images_by_text"
TINTED = ["global", "image_text"]
CONTROLS = ["a\x00b", "red\x07", "red\nblue", "\x7f"]


def plain(number: int) -> bytes:
    """Return a JPEG of one colour."""
    return encoded(Image.new("RGB", (400, 300), COLOURS[number]), quality=95)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("vectors")
    store = f"lmdb:{folder / 'store'}"
    served.write_matrix(folder / "matrix.npy")
    tint = {"extractor": "tint", "options": {"path": str(folder / "matrix.npy")}, "store": store}
    applications = {
        "phash": {"extractor": "phash", "store": store},
        "image_text": tint,
        "global": tint,
        "text": {"extractor": "words", "store": store},
    }
    made = Gateway(IngressArgs(store=store, listen=False, max_requests=1000), "ambience")
    made.directory.complete = True
    with served.with_test_extractors():
        handles = {name: served.serve_here(name, args) for name, args in applications.items()}

        async def meet() -> None:
            for name, handle in handles.items():
                await served.until(handle, "ready")
                await served.join(made, name, handle)

        asyncio.run(meet())
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> httpx.Client:
    """A client of a gateway with images 1 to 5 of one colour; 11 and 12 have only annotations."""
    client = TestClient(make_app(gateway), "http://localhost", raise_server_exceptions=False)
    for number in COLOURS:
        put(client, number, plain(number))
    for number, text in ((11, b"a red door"), (12, b"two blue doors")):
        said = {ANNOTATIONS: b'{"caption": {"text": "' + text + b'"}}'}
        gateway.store.put(ImageWrite(number, f"{number:064}", 9, 9, frozenset(), said))
    return client


def tint_of(number: int) -> Any:
    matrix = np.array([[1, 0, 0, -60], [0, 1, 0, -60], [0, 0, 1, -60], [0, 0, 0, 40]])
    seen = matrix @ [*decode(plain(number)).preview.reshape(-1, 3).mean(axis=0), 1.0]
    return seen / np.linalg.norm(seen)


def words_of(*colour: int) -> Any:
    matrix = np.array([[1, 0, 0, -60], [0, 1, 0, -60], [0, 0, 1, -60], [0, 0, 0, 40]])
    seen = matrix @ [*colour, 1.0]
    return seen / np.linalg.norm(seen)


def by_distance(query: Any) -> list[tuple[int, float]]:
    """Return the images' ids and distances to a query vector, nearest first."""
    unit = query / np.linalg.norm(query)
    gaps = {number: 1 - float(unit @ tint_of(number)) for number in COLOURS}
    return sorted(gaps.items(), key=lambda pair: pair[1])


def assert_hits(hits: list[dict[str, Any]], query: Any) -> None:
    expected = by_distance(query)
    assert ids(hits) == [number for number, _ in expected]
    found = [hit["distance"] for hit in hits]
    assert found == pytest.approx([gap for _, gap in expected], abs=1e-5)


def test_an_add_wants_features_of_pictures_only(client: httpx.Client) -> None:
    row = client.get("/v1/images/1").json()["retrievers"]
    assert row == {name: {"state": "indexed"} for name in ("global", "image_text", "phash")}


def test_the_states_say_who_reads_words(client: httpx.Client) -> None:
    rows = client.get("/v1/retrievers").json()["retrievers"]
    reads = {row["name"]: row["reads_text"] for row in rows}
    assert reads == {"global": True, "image_text": True, "phash": False, "text": True}


def test_one_retriever_is_searched_by_words(client: httpx.Client) -> None:
    hits = hits_of(ask(client, "image_text", text="red", k=10))
    assert_hits(hits, words_of(255, 0, 0))
    form = post_form(
        client, "/v1/retrievers/image_text/search", field_part("text", "red"), field_part("k", 10)
    )
    assert hits_of(form) == hits


def test_annotations_are_searched_by_words(client: httpx.Client) -> None:
    hits = hits_of(ask(client, "text", text="red door", k=1))
    assert ids(hits) == [11]


def test_expansion_is_a_parameter_of_both_vector_retrievers(client: httpx.Client) -> None:
    vectors = np.stack([tint_of(number) for number in COLOURS])
    query = words_of(255, 0, 0)
    cosines = vectors @ query
    nearest = np.argsort(-cosines)[:2]
    expanded = query + np.maximum(cosines[nearest], 0) ** 3 @ vectors[nearest]
    for name in TINTED:
        hits = hits_of(ask(client, name, text="red", k=10, aqe_n=2, aqe_alpha=3))
        assert_hits(hits, expanded)
        body = problem_of(ask(client, name, text="red", k=10, aqe_n=2), 400)
        assert body["field"] == "aqe_alpha"
        body = problem_of(ask(client, name, text="red", k=10, aqe_alpha=2), 400)
        assert body["field"] == "aqe_n"


def test_words_find_by_every_retriever_that_reads_them_and_no_other(client: httpx.Client) -> None:
    answer = client.post("/v1/search", json={"text": "red"})
    hits = hits_of(answer)
    assert answer.headers["x-ambience-answered"] == "global,image_text,text"
    assert "x-ambience-missing" not in answer.headers
    assert hits[0]["image_id"] == 1
    assert 11 in ids(hits)


def test_what_one_retriever_can_not_read_another_may_find(client: httpx.Client) -> None:
    answer = client.post("/v1/search", json={"text": "door"})
    assert hits_of(answer)[0]["image_id"] == 11
    assert "door is no colour" in answer.headers["x-ambience-missing"]


def test_a_mixture_is_one_vector(client: httpx.Client) -> None:
    query = {
        "image_ids": [2],
        "text": "red",
        "negative": {"text": "grey", "image_ids": [3], "weight": 0.5},
        "retrievers": {"image_text": 1},
    }
    parts = [image_part(plain(4)), field_part("query", httpx.Response(200, json=query).text)]
    answer = post_form(client, "/v1/search", *parts)
    expected = tint_of(4) + tint_of(2) + words_of(255, 0, 0)
    expected = expected - 0.5 * (words_of(128, 128, 128) + tint_of(3))
    order = [number for number, _ in by_distance(expected) if number != 3]
    assert ids(hits_of(answer)) == order


def test_a_mixture_asks_each_retriever_for_what_it_can(client: httpx.Client) -> None:
    answer = client.post("/v1/search", json={"image_ids": [1], "text": "red", "k": 10})
    hits = hits_of(answer)
    assert answer.headers["x-ambience-answered"] == "global,image_text,phash,text"
    assert hits[0]["image_id"] == 1
    assert set(hits[0]["retrievers"]) == {"global", "image_text", "phash"}


def test_a_negative_image_is_not_found_even_if_it_is_the_query(client: httpx.Client) -> None:
    query = {"image_ids": [1], "negative": {"image_ids": [1]}, "retrievers": {"image_text": 1}}
    hits = hits_of(client.post("/v1/search", json=query))
    assert ids(hits) == [number for number, _ in by_distance(tint_of(1))][1:]


@pytest.mark.parametrize("name", ["color_not_there", "phash"])
def test_words_for_retrievers_that_read_none_are_refused(client: httpx.Client, name: str) -> None:
    if name != "phash":
        problem_of(ask(client, name, text="red", k=1), 404)
        return
    assert problem_of(ask(client, name, text="red", k=1), 400)["field"] == "text"
    asked = {"text": "red", "retrievers": {name: 1}}
    assert problem_of(client.post("/v1/search", json=asked), 400)["field"] == "text"


def test_pictures_for_a_retriever_of_words_are_refused(client: httpx.Client) -> None:
    assert problem_of(ask(client, "text", image_id=1, k=1), 400)["field"] == "text"
    asked = {"image_ids": [1], "retrievers": {"text": 1}}
    assert problem_of(client.post("/v1/search", json=asked), 400)["field"] == "retrievers"


@pytest.mark.parametrize("text", ["", " ", "\u2003 ", "x" * 10_000, *CONTROLS, 5, ["red"]])
def test_invalid_text_is_refused_naming_the_field(client: httpx.Client, text: Any) -> None:
    answers = [
        client.post("/v1/search", json={"text": text}),
        ask(client, "image_text", text=text, k=5),
        client.post(BY_TEXT, json={"text": text, "k": 100}),
    ]
    for answer in answers:
        assert problem_of(answer, 400)["field"] == "text"
    negative = {"image_ids": [1], "negative": {"text": text}}
    assert problem_of(client.post("/v1/search", json=negative), 400)["field"] == "negative.text"


def test_words_that_look_like_json_are_words(client: httpx.Client) -> None:
    form = post_form(
        client, "/v1/retrievers/text/search", field_part("text", "[red] {door"), field_part("k", 1)
    )
    assert form.status_code == 200


def test_the_gallery_searches_by_words(client: httpx.Client) -> None:
    answer = client.post(BY_TEXT, json={"text": "blue", "k": 100})
    assert answer.status_code == 200, answer.text
    rows = [row | {"distance": row["distance"] / 2} for row in answer.json()]
    assert_hits(rows, words_of(0, 0, 255))
    assert [set(row) for row in answer.json()] == [{"image_id", "distance"}] * 5
    one = client.post(BY_TEXT, json={"text": "blue", "k": 100, "aqe_n": 3})
    assert problem_of(one, 400)["field"] == "aqe_n"
    neither = client.post(BY_TEXT, json={"text": "blue", "k": ""})
    assert problem_of(neither, 400)["field"] == "k"


def test_the_gallery_finds_the_image_itself_first_among_its_copies(client: httpx.Client) -> None:
    put(client, 105, plain(5))
    try:
        for name in ("image_text_features", "global_features"):
            for own in (5, 105):
                path = f"/{name}_get_similar_images_by_id"
                rows = client.post(path, json={"image_id": own, "k": 100}).json()
                assert rows[0] == {"image_id": own, "distance": 0}
                gaps = [row["distance"] for row in rows]
                assert gaps == sorted(gaps)
    finally:
        client.delete("/v1/images/105")


def test_the_gallerys_search_by_picture_shows_the_vector_retrievers(client: httpx.Client) -> None:
    answer = post_form(client, "/reverse_search", image_part(plain(2)))
    found = answer.json()
    assert answer.headers["x-ambience-missing"].count("not deployed") == 2
    assert found["image_text_res"][0] == {"image_id": 2, "distance": 0}
    assert ids(found["global_features_res"]) == [n for n, _ in by_distance(tint_of(2))]
    assert {row["image_id"] for row in found["unified_res"]} == set(COLOURS)


def test_deleting_a_picture_names_the_retrievers_that_had_it(client: httpx.Client) -> None:
    put(client, 106, jpeg(6))
    rows = client.post("/delete_all_image_features", json={"image_id": 106}).json()
    names = [row["url"].rsplit("/", 1)[1] for row in rows]
    assert names == [f"delete_{name}_features" for name in ("global", "image_text", "phash")]
    assert ids(hits_of(ask(client, "image_text", text="red", k=50))) == [
        number for number, _ in by_distance(words_of(255, 0, 0))
    ]


def test_the_tests_extractor_is_what_it_says() -> None:
    with served.with_test_extractors(), pytest.raises(NotImplementedError):
        make_extractor("words").extract(np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize("name", TINTED)
def test_the_inherited_routes_measure_vectors_by_squared_l2(
    client: httpx.Client, name: str
) -> None:
    """As their old services did: |a - b|² = 2 (1 - a·b) for unit vectors."""
    by_buffer = f"/{name}_features_get_similar_images_by_image_buffer"
    rows = post_form(client, by_buffer, image_part(plain(2)), field_part("k", 5)).json()
    gaps = [float(((tint_of(2) - tint_of(one)) ** 2).sum()) for one in ids(rows)]
    assert [row["distance"] for row in rows] == pytest.approx(gaps, abs=2e-5)
    third = rows[2]["distance"]
    for threshold, count in ((third - 1e-4, 2), (third + 1e-4, 3), (0, 0)):
        limit = field_part("distance_threshold", threshold)
        near = post_form(client, by_buffer, image_part(plain(2)), limit).json()
        assert near == rows[:count]
