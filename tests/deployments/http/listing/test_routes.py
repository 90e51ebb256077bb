"""The list of images takes the conditions of a search's filter."""

from __future__ import annotations

import io

import httpx
import pytest
from PIL import Image

from tests.deployments.pictures import problem_of
from tests.drawing import encoded, scene


def dated(image: Image.Image, moment: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = moment
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


def listed(client: httpx.Client, **params: str | int | list[str]) -> list[int]:
    """Return the ids of a page."""
    page = client.get("/v1/images", params=params).raise_for_status().json()
    return [image["image_id"] for image in page["images"]]


def test_a_list_takes_the_conditions_of_a_search(client: httpx.Client) -> None:
    files = {
        0: encoded(scene(0)),
        1: encoded(scene(1).resize((320, 240)), quality=60),
        2: encoded(scene(2), "PNG"),
        3: dated(scene(3), "2019:05:06 07:08:09"),
    }
    for at, data in files.items():
        client.put(f"/v1/images/{at}", files={"image": data}).raise_for_status()
    assert listed(client, formats="png") == [2]
    assert listed(client, formats=["PNG", "JPEG"], max_bytes=len(files[1])) == [1]
    assert listed(client, min_bytes=len(files[2])) == [2]
    assert listed(client, min_width=321, formats="JPEG") == [0, 3]
    assert listed(client, min_height=240, min_width=640, taken_after="2019-01-01") == [3]
    assert listed(client, taken_before="2019-05-06") == []
    assert listed(client, taken_before="2019-05-07T00:00:00Z") == [3]
    assert listed(client, added_before="2001-01-01") == []
    page = client.get("/v1/images", params={"formats": "JPEG", "limit": 2}).json()
    assert ([one["image_id"] for one in page["images"]], page["total"]) == ([0, 1], 3)
    assert listed(client, cursor=page["next_cursor"], formats="JPEG") == [3]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"formats": "docx"}, "formats"),
        ({"min_width": -1}, "min_width"),
        ({"max_bytes": "many"}, "max_bytes"),
        ({"taken_before": "once"}, "taken_before"),
        ({"min_pixels": 4}, "min_pixels"),
    ],
)
def test_a_condition_that_makes_no_sense_is_named(
    client: httpx.Client, given: dict[str, str | int], field: str
) -> None:
    assert field in problem_of(client.get("/v1/images", params=given), 400)["field"]
