"""`POST /v1/compare`: the relation of two pictures, and where they match."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

from tests.deployments.pictures import (
    field_part,
    image_part,
    mirrored,
    picture,
    post_form,
    problem_of,
    resized,
    sideways,
)
from tests.drawing import encoded, scene


def compared(client: httpx.Client, *pictures: bytes | int) -> dict[str, Any]:
    """Compare uploads and stored images."""
    ids = json.dumps({"image_ids": [one for one in pictures if isinstance(one, int)]})
    parts = [image_part(one) for one in pictures if isinstance(one, bytes)]
    answer = post_form(client, "/v1/compare", *parts, field_part("query", ids))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def mapped(found: dict[str, Any], *points: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Points of the query, in pixels of the image."""
    ends = np.array(found["homography"]) @ np.array([(*point, 1.0) for point in points]).T
    return np.asarray((ends[:2] / ends[2]).T)


def test_two_stored_images_are_compared(library: httpx.Client) -> None:
    answer = library.post("/v1/compare", json={"image_ids": [3, 4]})
    assert answer.json()["relation"] in ("like", "shares")
    assert answer.json()["query"] == {"width": 640, "height": 480, "image_id": 3}
    assert answer.json()["image"]["image_id"] == 4
    same = library.post("/v1/compare", json={"image_ids": [3, 3]}).json()
    assert same["relation"] == "same"
    assert np.allclose(mapped(same, (10, 20), (600, 400)), [(10, 20), (600, 400)], atol=1)


def test_the_homography_is_in_pixels_of_the_whole_pictures(library: httpx.Client) -> None:
    for found in (compared(library, resized(3), 3), compared(library, resized(3), picture(3))):
        assert found["relation"] == "same"
        assert found["query"]["width"] == 400
        ends = mapped(found, (100, 100), (300, 200))
        assert np.allclose(ends, [(160, 160), (480, 320)], atol=2)
        across = np.array(found["matches"])
        assert len(across) >= 6
        assert np.median(abs(across[:, :2] * 1.6 - across[:, 2:])) < 3


def test_a_mirrored_picture_maps_its_left_to_the_right(library: httpx.Client) -> None:
    found = compared(library, mirrored(5), 5)
    assert found["relation"] == "same"
    assert found["changes"] == ["mirrored"]
    assert np.allclose(mapped(found, (0, 0)), [(639, 0)], atol=2)
    points = np.array(found["matches"])
    assert np.median(abs(639 - points[:, 0] - points[:, 2])) < 3


def test_an_upload_is_upright_before_it_is_compared(library: httpx.Client) -> None:
    found = compared(library, sideways(2), 2)
    assert found["relation"] == "same"
    assert found["query"] == {"width": 640, "height": 480}
    assert "changes" not in found


def test_a_turned_picture_without_a_matching_hash_is_found_whole(library: httpx.Client) -> None:
    turned = encoded(scene(6).transpose(Image.Transpose.ROTATE_270))
    found = compared(library, turned, 6)
    assert found["relation"] == "same"
    assert found["changes"] == ["turned"]
    assert np.allclose(mapped(found, (479, 0)), [(0, 0)], atol=2)


def test_a_part_says_where_it_lies(library: httpx.Client) -> None:
    part = encoded(scene(7).crop((200, 120, 520, 360)).resize((640, 480)))
    found = compared(library, part, 7)
    assert found["relation"] == "part"
    assert found["overlap"][0] > 0.95
    assert 0.15 < found["overlap"][1] < 0.35
    assert np.allclose(mapped(found, (0, 0), (639, 479)), [(200, 120), (519, 359)], atol=4)


def test_a_large_picture_is_compared_in_its_own_pixels(library: httpx.Client) -> None:
    large = encoded(scene(8).resize((2560, 1920), Image.Resampling.LANCZOS))
    found = compared(library, large, 8)
    assert found["query"] == {"width": 2560, "height": 1920}
    assert np.allclose(mapped(found, (2000, 1000)), [(500, 250)], atol=2)
    points = np.array(found["matches"])
    assert np.median(abs(points[:, :2] / 4 - points[:, 2:])) < 3


def test_the_edited_region_is_named_in_both_pictures(library: httpx.Client) -> None:
    edited = scene(9)
    ImageDraw.Draw(edited).rectangle((400, 300, 520, 400), fill=(255, 255, 255))
    found = compared(library, encoded(edited.resize((1280, 960))), 9)
    assert found["relation"] == "edited"
    (region, *_) = found["regions"]
    left, top, width, height = region["query"]
    corners = np.array([left, top, left + width, top + height])
    assert np.allclose(corners, (800, 600, 1040, 800), atol=120), region
    assert np.allclose(np.array(region["query"]) / 2, region["image"], atol=8)


def test_anything_but_two_pictures_is_refused(library: httpx.Client) -> None:
    one = post_form(library, "/v1/compare", image_part(picture(1)))
    assert problem_of(one, 400)["field"] == "image"
    three = post_form(library, "/v1/compare", *[image_part(picture(1))] * 3)
    assert "not 3" in problem_of(three, 400)["detail"]
    many = library.post("/v1/compare", json={"image_ids": [1, 2, 3]})
    assert problem_of(many, 400)["field"] == "image_ids"
    unknown = library.post("/v1/compare", json={"image_ids": [1, 99]})
    assert "99" in problem_of(unknown, 404)["detail"]
    broken = post_form(
        library, "/v1/compare/upload", image_part(b"nothing"), image_part(picture(1))
    )
    assert problem_of(broken, 415)["field"] == "image"
    text = post_form(library, "/v1/compare", image_part(picture(1)), field_part("query", "{"))
    assert problem_of(text, 400)["field"] == "query"


def test_the_matches_of_a_negative_follow_its_alignment(library: httpx.Client) -> None:
    found = compared(library, encoded(ImageOps.invert(scene(4))), 4)
    assert found["relation"] == "same"
    assert found["changes"] == ["negative"]
    for x, y, image_x, image_y in found.get("matches", []):
        assert np.allclose(mapped(found, (x, y)), (image_x, image_y), atol=0.02 * 640)
