"""`POST /v1/check`: new, known, better."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.deployments.pictures import (
    field_part,
    image_part,
    mirrored,
    picture,
    post_form,
    problem_of,
    put,
    resized,
)
from tests.drawing import encoded, scene


def checked(client: httpx.Client, *pictures: bytes, items: Any = None) -> list[dict[str, Any]]:
    parts = [image_part(data) for data in pictures]
    if items is not None:
        parts.append(field_part("items", json.dumps(items)))
    answer = post_form(client, "/v1/check", *parts)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def test_known_pictures_are_told_from_new_ones(library: httpx.Client) -> None:
    part = encoded(scene(4).crop((100, 60, 520, 420)))
    known, turned, new, cut = checked(library, resized(3), mirrored(3), picture(77), part)
    assert (known["outcome"], known["image_id"], known["relation"]) == ("known", 3, "same")
    assert known["confidence"] > 0.9
    assert known["picture"]["width"] == 400
    assert known["image"]["width"] == 640
    assert (turned["outcome"], turned["changes"]) == ("known", ["mirrored"])
    assert new["outcome"] == "new"
    assert "image_id" not in new
    # A part does not block, but it is told.
    assert (cut["outcome"], cut["image_id"], cut["relation"]) == ("new", 4, "part")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (encoded(scene(3), quality=98), "JPEG quality 98"),
        (encoded(scene(3), "PNG"), "PNG instead of JPEG"),
    ],
)
def test_a_larger_or_less_compressed_copy_is_better(
    library: httpx.Client, data: bytes, why: str
) -> None:
    (found,) = checked(library, data)
    assert (found["outcome"], found["image_id"], found["relation"]) == ("better", 3, "same")
    assert why in found["why"]


@pytest.mark.parametrize("how", [Image.Resampling.LANCZOS, Image.Resampling.NEAREST])
def test_a_copy_that_was_only_enlarged_is_known(
    library: httpx.Client, how: Image.Resampling
) -> None:
    (found,) = checked(library, encoded(scene(3).resize((1280, 960), how)))
    assert (found["outcome"], found["image_id"]) == ("known", 3)


def test_a_smaller_or_more_compressed_copy_is_known(library: httpx.Client) -> None:
    worse = encoded(scene(3), quality=60)
    smaller = encoded(scene(3).resize((320, 240)), "PNG")
    outcomes = [found["outcome"] for found in checked(library, worse, smaller)]
    assert outcomes == ["known", "known"]


def test_a_copy_is_only_better_if_it_is_better_than_all_that_are_there(
    client: httpx.Client,
) -> None:
    put(client, 1, resized(3))
    (found,) = checked(client, picture(3))
    assert (found["outcome"], found["why"]) == ("better", "640×480 pixels instead of 400×300")
    put(client, 2, picture(3))
    (found,) = checked(client, mirrored(3))
    assert (found["outcome"], found["image_id"]) == ("known", 2)


def test_the_image_that_is_replaced_is_no_copy(library: httpx.Client) -> None:
    first, second = checked(
        library, resized(3), resized(3), items=[{"image_id": 3}, {"image_id": 4}]
    )
    assert (first["outcome"], second["outcome"]) == ("new", "known")


def test_a_file_that_is_cut_short_is_known_by_what_is_there(library: httpx.Client) -> None:
    whole = picture(3)
    cut = whole[: len(whole) * 3 // 4]
    (found,) = checked(library, cut)
    assert (found["outcome"], found["image_id"], found["truncated"]) == ("known", 3, True)
    duplicate = post_form(
        library, "/reverse_search", field_part("find_duplicate", 1), image_part(cut)
    )
    assert [row["image_id"] for row in duplicate.json()["duplicate"]] == [3]
    refused = library.post("/v1/images?unless=same", files=[image_part(cut)])
    assert problem_of(refused, 409)["image_id"] == 3
    other = picture(77)
    assert checked(library, other[: len(other) * 3 // 4])[0]["outcome"] == "new"


def test_a_bad_picture_of_several_has_a_problem_of_its_own(library: httpx.Client) -> None:
    good, bad = checked(library, picture(3), b"nothing")
    assert good["outcome"] == "known"
    assert bad["problem"]["status"] == 415
    problem_of(post_form(library, "/v1/check", image_part(b"nothing")), 415)


def test_the_limits_are_named(library: httpx.Client) -> None:
    many = post_form(library, "/v1/check", *[image_part(b"x")] * 101)
    assert "100" in problem_of(many, 400)["detail"]
    items = post_form(library, "/v1/check", image_part(picture(1)), field_part("items", "[1, 2]"))
    assert "0" in problem_of(items, 400)["field"]
    named = post_form(
        library, "/v1/check", image_part(picture(1)), field_part("items", '[{"id": 1}]')
    )
    assert "id" in problem_of(named, 400)["field"]
