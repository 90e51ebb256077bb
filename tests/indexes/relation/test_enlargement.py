"""A picture that was only enlarged is told from one that shows more."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from indexes.relation.enlargement import is_enlarged
from models.types import Pixels
from tests.drawing import encoded, scene

FILTERS = [
    Image.Resampling.NEAREST,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
]


def gray(image: Image.Image, quality: int) -> Pixels:
    """Return the grey values of a picture that was stored as JPEG."""
    read = Image.open(io.BytesIO(encoded(image, quality=quality)))
    return np.asarray(cv2.cvtColor(np.asarray(read), cv2.COLOR_RGB2GRAY), np.uint8)


@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize("factor", [1.5, 2, 3])
@pytest.mark.parametrize("how", FILTERS)
def test_an_enlarged_picture_is_told(how: Image.Resampling, factor: float, quality: int) -> None:
    small = scene(3, 400, 300)
    enlarged = small.resize((round(400 * factor), round(300 * factor)), how)
    assert is_enlarged(gray(enlarged, quality), 1 / factor)


@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize("factor", [1.5, 2, 3])
def test_a_picture_with_more_detail_is_not_called_enlarged(factor: float, quality: int) -> None:
    for seed in range(3):
        assert not is_enlarged(gray(scene(seed), quality), 1 / factor)


def test_a_picture_of_another_factor_is_judged_by_the_given_one() -> None:
    twice = gray(scene(3, 300, 225).resize((600, 450), Image.Resampling.BICUBIC), 95)
    assert is_enlarged(twice, 0.5)
    assert not is_enlarged(twice, 0.25)


@pytest.mark.parametrize("scale", [0.9, 1.0, 2.0])
def test_nothing_is_told_of_nearly_equal_sizes(scale: float) -> None:
    assert not is_enlarged(gray(scene(1), 90), scale)


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (40, 40)])
def test_nothing_is_told_of_very_small_pictures(shape: tuple[int, int]) -> None:
    assert not is_enlarged(np.zeros(shape, np.uint8), 0.3)


def test_a_plain_picture_is_explained_by_a_smaller_one() -> None:
    assert is_enlarged(np.full((300, 400), 80, np.uint8), 0.5)
