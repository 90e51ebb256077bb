"""`POST /v1/thumbnail`: what an upload looks like."""

from __future__ import annotations

import io

import httpx
import numpy as np
from PIL import Image

from tests.deployments.pictures import image_part, picture, post_form, problem_of, sideways
from tests.drawing import encoded, scene


def shown(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/jpeg"
    return Image.open(io.BytesIO(answer.content))


def test_the_thumbnail_of_a_format_that_browsers_do_not_show_is_a_jpeg_with_its_size(
    client: httpx.Client,
) -> None:
    wide = scene(5).resize((1920, 1440))
    file = io.BytesIO()
    wide.save(file, "TIFF")
    answer = post_form(client, "/v1/thumbnail", image_part(file.getvalue()))
    assert answer.headers["x-ambience-size"] == "1920x1440"
    small = shown(answer)
    assert small.size == (512, 384)
    expected = np.asarray(wide.resize(small.size, Image.Resampling.LANCZOS), np.int16)
    assert np.abs(np.asarray(small, np.int16) - expected).mean() < 4


def test_it_is_upright_and_a_body_may_be_the_picture_itself(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/thumbnail", content=sideways(5), headers={"Content-Type": "image/jpeg"}
    )
    assert answer.headers["x-ambience-size"] == "640x480"
    assert shown(answer).width > shown(answer).height


def test_a_picture_that_is_cut_short_is_named_in_a_header(client: httpx.Client) -> None:
    whole = encoded(scene(5), quality=95)
    answer = post_form(client, "/v1/thumbnail", image_part(whole[: len(whole) * 4 // 5]))
    assert shown(answer)
    assert answer.headers["x-ambience-truncated"] == "true"


def test_what_is_no_picture_is_refused_and_so_are_two(client: httpx.Client) -> None:
    answer = post_form(client, "/v1/thumbnail", image_part(b"no picture"))
    assert problem_of(answer, 415)["field"] == "image"
    two = post_form(client, "/v1/thumbnail", *[image_part(picture(1))] * 2)
    assert "send one picture" in problem_of(two, 400)["detail"]
