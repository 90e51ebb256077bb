"""The order of hits by date, hits folded into others, and filters on what image rows hold."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageOps

from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from deployments.settings import IngressArgs
from tests.deployments import served
from tests.deployments.pictures import ids, image_part, post_form, problem_of, put
from tests.drawing import encoded, scene
from tests.models.pictures.files.test_exif import ORIGINAL, block

YEARS = [2012, 2020, None, 2016]
"""The year in which each scene was taken; the third has no date."""


SMALL = encoded(scene(0).resize((320, 240)))


def shot(seed: int, **options: Any) -> bytes:
    """A scene with the date on which it was taken."""
    year = YEARS[seed]
    exif = b"" if year is None else block({ORIGINAL: f"{year}:06:05 12:00:00"})
    return encoded(scene(seed), options.pop("kind", "JPEG"), exif=exif, **options)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A gateway in this process with four scenes; ids 10 to 13 are copies of scene 0."""
    folder: Path = tmp_path_factory.mktemp("order")
    store = f"lmdb:{folder / 'store'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMBIENCE_DATA", str(folder))
        gateway = Gateway(IngressArgs(store=store, listen=False), "ambience")
        gateway.directory.complete = True

        async def meet() -> None:
            for name in ("phash", "color", "text"):
                handle = served.serve_here(name, {"extractor": name, "store": store})
                await served.until(handle, "ready")
                await served.join(gateway, name, handle)

        asyncio.run(meet())
        made = TestClient(make_app(gateway), "http://localhost", raise_server_exceptions=False)
        for seed in range(4):
            put(made, seed, shot(seed))
        put(made, 10, shot(0, quality=60))
        put(made, 11, SMALL)
        put(made, 12, encoded(ImageOps.mirror(scene(0)), "PNG"))
        put(made, 13, encoded(scene(0).transpose(Image.Transpose.ROTATE_90), "WEBP", quality=90))
        yield made
        gateway.close()


def search(client: TestClient, **query: Any) -> Any:
    """Search by scene 0 or by what the query names, and return the answer."""
    asked = {"image_ids": [0], "min_confidence": 0, **query}
    answer = client.post("/v1/search", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def pages(client: TestClient, **query: Any) -> list[list[int]]:
    """The ids of all pages."""
    found, cursor = [], None
    while True:
        answer = search(client, cursor=cursor, **query)
        found.append(ids(answer["hits"]))
        cursor = answer.get("next_cursor")
        if cursor is None:
            return found


def flat(found: list[list[int]]) -> list[int]:
    return [image_id for page in found for image_id in page]


def test_a_hit_says_what_its_row_holds(client: TestClient) -> None:
    hits = {hit["image_id"]: hit for hit in search(client)["hits"]}
    first = hits[0]
    assert (first["width"], first["height"], first["format"]) == (640, 480, "JPEG")
    assert first["bytes"] == len(shot(0))
    assert first["taken"] == "2012-06-05T12:00:00Z"
    assert first["file_name"] == "0.online"
    added = datetime.fromisoformat(first["created"])
    assert abs((datetime.now(UTC) - added).total_seconds()) < 600
    assert hits[12]["format"] == "PNG"
    assert "taken" not in hits[2]


def test_hits_come_by_the_date_taken_or_else_added(client: TestClient) -> None:
    oldest = flat(pages(client, sort="oldest"))
    assert oldest[:4] == [0, 10, 3, 1]
    assert oldest[4:] == [2, 11, 12, 13]
    assert flat(pages(client, sort="newest")) == oldest[::-1]


@pytest.mark.parametrize("sort", ["relevance", "newest", "oldest"])
@pytest.mark.parametrize("collapse", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_pages_together_are_one_long_page(
    client: TestClient, sort: str, collapse: bool, k: int
) -> None:
    whole = ids(search(client, sort=sort, collapse=collapse, k=100)["hits"])
    found = pages(client, sort=sort, collapse=collapse, k=k)
    assert flat(found) == whole
    assert {len(page) for page in found[:-1]} <= {k}


@pytest.mark.parametrize("sort", ["relevance", "newest", "oldest"])
def test_copies_are_folded_into_one_hit_and_shown_on_no_later_page(
    client: TestClient, sort: str
) -> None:
    order = ids(search(client, sort=sort)["hits"])
    copies = {0, 10, 11, 12, 13}
    shown: list[int] = []
    cursor = None
    while True:
        answer = search(client, sort=sort, collapse=True, k=1, cursor=cursor)
        (hit,) = answer["hits"]
        shown.append(hit["image_id"])
        if hit["image_id"] in copies:
            folded = [one for one in order if one in copies and one != hit["image_id"]]
            assert hit["copies"] == {"count": 4, "image_ids": folded}
        else:
            assert "copies" not in hit
        cursor = answer.get("next_cursor")
        if cursor is None:
            break
    assert sorted(set(shown) - copies) == [1, 2, 3]
    assert len(shown) == 4
    assert shown[0] == order[0]


def test_a_cursor_by_date_is_not_moved_by_what_is_added_or_deleted(client: TestClient) -> None:
    before = search(client, sort="newest", k=3)
    put(client, 50, encoded(scene(0), quality=55))
    after = search(client, sort="newest", k=100, cursor=before["next_cursor"])
    client.delete(f"/v1/images/{ids(before['hits'])[-1]}")
    client.delete("/v1/images/50")
    again = search(client, sort="newest", k=100, cursor=before["next_cursor"])
    assert ids(again["hits"]) == ids(after["hits"])
    assert not set(ids(after["hits"])) & {*ids(before["hits"]), 50}
    put(client, 11, SMALL)


@pytest.mark.parametrize("cursor", ["x", "bzE", "b25h", "bjB4MXAwOjE", ""])
def test_a_cursor_of_another_order_is_refused(client: TestClient, cursor: str) -> None:
    asked = {"image_ids": [0], "sort": "oldest", "cursor": cursor}
    assert problem_of(client.post("/v1/search", json=asked), 400)["field"] == "cursor"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"formats": ["png", "WebP"]}, {12, 13}),
        ({"min_width": 641}, set()),
        ({"min_height": 481}, {13}),
        ({"min_width": 480, "min_height": 640}, {13}),
        ({"max_bytes": len(SMALL), "formats": ["JPEG"]}, {11}),
        ({"taken_after": "2016-01-01"}, {1, 3}),
        ({"taken_before": "2016-06-05T12:00:00Z"}, {0, 10}),
        ({"taken_before": "2016-06-05T12:00:00.001+00:00"}, {0, 3, 10}),
        ({"added_before": "2016-01-01"}, set()),
        ({"added_after": "2016-01-01", "ids": [1, 2]}, {1, 2}),
        ({"min_bytes": 1}, {0, 1, 2, 3, 10, 11, 12, 13}),
    ],
)
def test_a_filter_on_rows_lets_only_its_images_be_found(
    client: TestClient, wanted: dict[str, Any], expected: set[int]
) -> None:
    assert set(ids(search(client, filter=wanted)["hits"])) == expected
    one = {"image_id": 0, "k": 100, "filter": wanted}
    answer = client.post("/v1/retrievers/color/search", json=one)
    assert set(ids(answer.json()["hits"])) == expected


def test_only_images_larger_than_the_query_are_found(client: TestClient) -> None:
    assert set(ids(search(client, image_ids=[11], filter={"larger": True})["hits"])) == {
        *(0, 1, 2, 3, 10, 12, 13)
    }
    assert search(client, image_ids=[11, 0], filter={"larger": True})["hits"] == []
    both = {"larger": True, "formats": ["PNG"]}
    assert ids(search(client, image_ids=[11], filter=both)["hits"]) == [12]
    small = image_part(encoded(scene(0).resize((400, 300))))
    query = ("query", (None, '{"min_confidence": 0, "filter": {"larger": true}}'))
    found = ids(post_form(client, "/v1/search", small, query).json()["hits"])
    assert 11 not in found
    assert 0 in found


def test_larger_without_a_picture_is_refused(client: TestClient) -> None:
    one = client.post(
        "/v1/retrievers/color/search",
        json={"image_id": 11, "k": 100, "filter": {"larger": True}},
    )
    assert 11 not in ids(one.json()["hits"])
    asked = client.post("/v1/search", json={"text": "sea", "filter": {"larger": True}})
    assert problem_of(asked, 400)["field"] == "filter.larger"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"filter": {"formats": ["JPG"]}}, "filter.formats.0"),
        ({"filter": {"min_width": -1}}, "filter.min_width"),
        ({"filter": {"taken_after": "yesterday"}}, "filter.taken_after"),
        ({"filter": {"larger": "perhaps"}}, "filter.larger"),
        ({"sort": "best"}, "sort"),
        ({"collapse": "some"}, "collapse"),
    ],
)
def test_what_can_not_be_asked_is_refused_by_name(
    client: TestClient, wrong: dict[str, Any], field: str
) -> None:
    asked = client.post("/v1/search", json={"image_ids": [0], **wrong})
    assert problem_of(asked, 400)["field"] == field


def test_an_image_shows_the_facts_of_its_file(client: TestClient) -> None:
    image = client.get("/v1/images/0").json()
    assert (image["format"], image["bytes"], image["quality"]) == ("JPEG", len(shot(0)), 90)
    assert (image["taken"], image["exif_tags"]) == ("2012-06-05T12:00:00Z", 1)
