"""What lies around a part: a border, other pictures, or more of the same."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from indexes.duplicates.seams import around
from indexes.relation.side import Side
from tests.drawing import scene


def side(image: Image.Image) -> Side:
    return Side.of(np.asarray(image))


def shifted(x: float, y: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


@pytest.mark.parametrize("seed", range(6))
def test_a_crop_is_amid_more_of_the_same(seed: int) -> None:
    whole = scene(seed)
    part = whole.crop((120, 90, 520, 390))
    assert around(side(part), side(whole), shifted(120, 90)) == "more"


@pytest.mark.parametrize("seed", range(6))
def test_a_picture_of_a_collage_ends_at_seams(seed: int) -> None:
    sheet = Image.new("RGB", (640, 240))
    for number in range(2):
        sheet.paste(scene(seed + 10 * number).resize((320, 240)), (320 * number, 0))
    part = sheet.crop((0, 0, 320, 240))
    assert around(side(part), side(sheet), shifted(0, 0)) == "seams"


@pytest.mark.parametrize("colour", ["white", "black", "teal"])
def test_a_border_is_plain(colour: str) -> None:
    part = scene(3)
    whole = ImageOps.expand(part, 50, colour)
    assert around(side(part), side(whole), shifted(50, 50)) == "plain"


def test_a_whole_picture_has_nothing_around_it() -> None:
    assert around(side(scene(1)), side(scene(1)), shifted(0, 0)) == "more"
