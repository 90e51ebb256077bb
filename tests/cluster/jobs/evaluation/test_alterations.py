"""Altered copies."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cluster.jobs.evaluation.alterations import ALTERATIONS, UNALTERED, altered
from tests.drawing import jpeg


def drawn() -> Image.Image:
    return Image.open(io.BytesIO(jpeg(1))).convert("RGB")


def made(name: str, seed: str = "a") -> Image.Image:
    return Image.open(io.BytesIO(altered(drawn(), name, seed)))


@pytest.mark.parametrize("name", ALTERATIONS)
def test_a_copy_is_a_picture_and_the_same_each_time(name: str) -> None:
    assert altered(drawn(), name, "a") == altered(drawn(), name, "a")
    copy = made(name)
    assert copy.mode == "RGB"
    same_size = copy.size == drawn().size
    difference = np.asarray(copy).astype(int) - np.asarray(drawn()) if same_size else None
    if name == UNALTERED:
        assert difference is not None
        assert np.abs(difference).mean() < 3
    else:
        assert difference is None or np.abs(difference).mean() > 0.5


def test_a_crop_has_its_share_of_the_area() -> None:
    width, height = drawn().size
    for percent in (75, 50, 25, 10):
        copy = made(f"crop of {percent} %")
        assert copy.width * copy.height == pytest.approx(percent / 100 * width * height, rel=0.05)


def test_other_pictures_are_cropped_elsewhere() -> None:
    assert altered(drawn(), "crop of 25 %", "a") != altered(drawn(), "crop of 25 %", "b")


def test_tiny_pictures_are_altered_too() -> None:
    for size in ((1, 1), (3, 40), (40, 2)):
        for name in ALTERATIONS:
            assert altered(Image.new("RGB", size), name, "a").startswith(b"\xff\xd8")
