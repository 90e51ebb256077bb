"""/v1/search over a small collection."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.conftest import Service
from tests.deployments.conftest import ALL
from tests.deployments.pictures import (
    Part,
    field_part,
    ids,
    image_part,
    mirrored,
    picture,
    post_form,
    problem_of,
    put,
    resized,
)
from tests.drawing import encoded, scene


def search(client: httpx.Client, *images: bytes, **query: Any) -> httpx.Response:
    """Search for all neighbours, unlikely ones too, unless `min_confidence` is given."""
    parts = [image_part(data) for data in images]
    given = json.dumps({"min_confidence": 0} | query)
    return post_form(client, "/v1/search", *parts, field_part("query", given))


def hits_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


def ask(client: httpx.Client, name: str, *parts: Part, **query: Any) -> httpx.Response:
    path = f"/v1/retrievers/{name}/search"
    return post_form(client, path, *parts) if parts else client.post(path, json=query)


def test_a_copy_is_first_in_every_list(library: httpx.Client) -> None:
    answer = search(library, resized(4))
    best = hits_of(answer)[0]
    assert best["image_id"] == 4
    assert best["score"] > 0.9
    assert {name: row["rank"] for name, row in best["retrievers"].items()} == {
        "phash": 0,
        "color": 0,
        "local": 0,
    }
    assert best["retrievers"]["phash"]["distance"] < 64
    assert best["retrievers"]["local"]["inliers"] > 20
    assert answer.headers["x-ambience-answered"] == "color,local,phash"
    assert "x-ambience-missing" not in answer.headers
    timed = {entry.split(";")[0].strip() for entry in answer.headers["server-timing"].split(",")}
    assert timed == {"decode", "phash", "color", "local", "relate", "fuse"}


def test_a_query_without_a_query_field_uses_the_defaults(library: httpx.Client) -> None:
    answer = post_form(library, "/v1/search", image_part(resized(4)))
    assert hits_of(answer) == hits_of(search(library, resized(4), min_confidence=0.5))


def test_copies_are_found_with_confidence_and_what_is_not_there_is_not(
    library: httpx.Client,
) -> None:
    copies = hits_of(post_form(library, "/v1/search", image_part(resized(4))))
    assert ids(copies) == [4]
    assert copies[0]["confidence"] > 0.99
    stranger = hits_of(post_form(library, "/v1/search", image_part(encoded(scene(77)))))
    assert stranger == []
    neighbours = hits_of(search(library, encoded(scene(77)), min_confidence=0))
    assert sorted(ids(neighbours)) == ALL
    assert all(hit["confidence"] < 0.5 for hit in neighbours)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, "sure"])
def test_a_confidence_outside_0_to_1_is_refused(library: httpx.Client, wrong: object) -> None:
    body = problem_of(search(library, picture(1), min_confidence=wrong), 400)
    assert body["field"] == "min_confidence"


def test_plain_form_fields_serve_as_the_query(library: httpx.Client) -> None:
    parts = [field_part("k", 2), field_part("filter", '{"ids": [4, 5]}'), field_part("cursor", "")]
    parts.append(field_part("min_confidence", 0))
    answer = post_form(library, "/v1/search", image_part(resized(4)), *parts)
    assert ids(hits_of(answer)) == [4, 5]


def test_a_stored_image_finds_itself_first(library: httpx.Client) -> None:
    answer = library.post("/v1/search", json={"image_ids": [6], "k": 3, "min_confidence": 0})
    hits = hits_of(answer)
    assert hits[0]["image_id"] == 6
    assert len(hits) == 3


def test_several_pictures_and_images_are_searched_together(library: httpx.Client) -> None:
    hits = hits_of(search(library, picture(1), picture(2), image_ids=[3], k=10))
    verified = [hit["image_id"] for hit in hits if hit["score"] > 0.5]
    assert sorted(verified) == [1, 2, 3]
    assert sorted(ids(hits)) == ALL


def test_negative_images_are_not_found(library: httpx.Client) -> None:
    hits = hits_of(search(library, picture(1), negative={"image_ids": [1, 2]}, k=10))
    assert sorted(ids(hits)) == [number for number in ALL if number not in (1, 2)]


def test_only_the_retrievers_asked_for_answer(library: httpx.Client) -> None:
    answer = search(library, picture(1), retrievers={"color": 2.0})
    assert answer.headers["x-ambience-answered"] == "color"
    assert all(list(hit["retrievers"]) == ["color"] for hit in hits_of(answer))


def test_weights_move_the_ranking(library: httpx.Client) -> None:
    """Image 2 is nearest by colour and image 1 by pHash: the retriever with more weight wins."""
    heavy = {"color": 10.0, "phash": 0.01}
    light = {"color": 0.01, "phash": 10.0}
    by_color = hits_of(search(library, _colours_of(2, 1), retrievers=heavy))
    by_phash = hits_of(search(library, _colours_of(2, 1), retrievers=light))
    second = {hit["image_id"]: hit["score"] for hit in by_color}
    third = {hit["image_id"]: hit["score"] for hit in by_phash}
    assert third[1] > second[1]
    assert second[2] > third[2]


def _colours_of(colours: int, shapes: int) -> bytes:
    """Return the shapes of one scene with the colours of another: pixels by rank of luma."""
    source = np.asarray(scene(colours)).reshape(-1, 3)
    target = np.asarray(scene(shapes).convert("L")).reshape(-1)
    luma = source @ np.array([0.299, 0.587, 0.114])
    composite = np.empty_like(source)
    composite[np.argsort(target, kind="stable")] = source[np.argsort(luma, kind="stable")]
    return encoded(Image.fromarray(composite.reshape(480, 640, 3)), quality=95)


def test_pages_follow_each_other_without_repeats(library: httpx.Client) -> None:
    whole = ids(hits_of(search(library, picture(3), k=10)))
    pages: list[list[int]] = []
    cursor: str | None = None
    while True:
        body = search(library, picture(3), k=3, cursor=cursor).json()
        pages.append(ids(body["hits"]))
        cursor = body["next_cursor"]
        if cursor is None:
            break
    assert [len(page) for page in pages] == [3, 3, 3, 1]
    assert [image_id for page in pages for image_id in page] == whole
    assert sorted(whole) == ALL


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"ids": [3, 5, 999]}, [3, 5]),
        ({"metadata": {"mod": 1}}, [1, 4, 7]),
        ({"tags": ["even"]}, [0, 2, 4, 6, 8]),
        ({"tags": ["even", "all"], "metadata": {"mod": 2}}, [2, 8]),
        ({"ids": [1, 2], "tags": ["even"]}, [2]),
        ({"metadata": {"mod": 77}}, []),
        ({"metadata": {"x" * 3000: "y" * 3000}}, []),
        ({"ids": []}, []),
        ({}, ALL),
    ],
)
def test_a_filter_lets_only_its_images_be_found(
    library: httpx.Client, wanted: dict[str, Any], expected: list[int]
) -> None:
    assert sorted(ids(hits_of(search(library, picture(1), filter=wanted)))) == expected
    answer = ask(library, "color", image_id=1, k=20, filter=wanted)
    assert sorted(ids(hits_of(answer))) == expected


def test_a_region_searches_by_a_part(library: httpx.Client) -> None:
    other, within = scene(50), scene(4).resize((320, 240))
    other.paste(within, (300, 200))
    data = encoded(other, quality=95)
    region = [300, 200, 320, 240]
    cut = hits_of(search(library, data, retrievers={"phash": 1}, region=region))
    assert ids(cut) == [4]
    assert hits_of(search(library, data, retrievers={"phash": 1})) == []


@pytest.mark.parametrize("region", [[0, 0, 0, 0], [5000, 0, 10, 10], [0, 0, -5, 5], [1, 2, 3]])
def test_a_region_without_pixels_is_refused(library: httpx.Client, region: list[int]) -> None:
    body = problem_of(search(library, picture(1), region=region), 400)
    assert body["field"].startswith("region")


def test_an_explanation_maps_the_query_onto_the_image(library: httpx.Client) -> None:
    hits = hits_of(search(library, resized(4), retrievers={"local": 1}, explain=True))
    row = hits[0]["retrievers"]["local"]
    homography = np.array(row["homography"])
    points = np.array(row["points"])
    assert homography.shape == (3, 3)
    assert len(points) == row["inliers"]
    mapped = np.column_stack([points[:, :2], np.ones(len(points))]) @ homography.T
    errors = np.linalg.norm(mapped[:, :2] / mapped[:, 2:] - points[:, 2:], axis=1)
    assert np.median(errors) < 3
    # The query is 400 pixels wide, the image 640.
    assert homography[0, 0] / homography[2, 2] == pytest.approx(1.6, rel=0.05)


def test_without_explain_there_is_no_homography(library: httpx.Client) -> None:
    row = hits_of(search(library, resized(4)))[0]["retrievers"]["local"]
    assert "homography" not in row
    assert "points" not in row


def test_mirror_images_are_found_unless_told_otherwise(library: httpx.Client) -> None:
    row = hits_of(search(library, mirrored(4)))[0]
    assert row["image_id"] == 4
    assert row["retrievers"]["local"]["mirrored"] is True
    assert row["retrievers"]["phash"]["distance"] < 64
    plain = hits_of(search(library, mirrored(4), mirrored=False))
    assert all("phash" not in hit["retrievers"] for hit in plain)


def test_min_seq_waits_for_the_change_it_names(service: Service) -> None:
    with service.client() as client:
        for image_id in range(10):
            seq = put(client, image_id, picture(image_id))["seq"]
            hits = hits_of(search(client, picture(image_id), min_seq=seq, k=1))
            assert ids(hits) == [image_id]


def test_hits_say_how_the_pictures_relate(library: httpx.Client) -> None:
    best = hits_of(search(library, mirrored(4)))[0]
    assert (best["image_id"], best["relation"], best["changes"]) == (4, "same", ["mirrored"])
    assert best["overlap"] == pytest.approx([1, 1], abs=0.05)
    assert best["confidence"] > 0.9
    assert "homography" not in best["retrievers"]["local"]
    crop = encoded(scene(4).crop((100, 80, 420, 320)))
    best = hits_of(search(library, crop))[0]
    assert (best["image_id"], best["relation"]) == (4, "part")
    assert best["overlap"][0] > 0.9
    assert best["overlap"][1] == pytest.approx(0.25, abs=0.05)


def test_an_explained_edit_shows_its_regions(library: httpx.Client) -> None:
    edited = scene(4)
    edited.paste(Image.new("RGB", (120, 120), "white"), (400, 300))
    for explain in (False, True):
        best = hits_of(search(library, encoded(edited), explain=explain))[0]
        assert (best["image_id"], best["relation"]) == (4, "edited")
        assert ("regions" in best) == explain
    left, top, width, height = best["regions"][0]["image"]
    assert abs(left + width / 2 - 460) < 60
    assert abs(top + height / 2 - 360) < 60


def test_a_stored_image_relates_to_itself(library: httpx.Client) -> None:
    best = hits_of(search(library, image_ids=[4]))[0]
    assert (best["image_id"], best["relation"]) == (4, "same")


def test_a_negative_is_found(library: httpx.Client) -> None:
    best = hits_of(search(library, encoded(ImageOps.invert(scene(4)))))[0]
    assert (best["image_id"], best["relation"], best["changes"]) == (4, "same", ["negative"])
