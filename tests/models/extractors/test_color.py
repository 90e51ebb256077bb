"""The colour histogram against OpenCV's and NumPy's counts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.base import Extractor
from models.extractors.color import recoloured
from models.registry import make_extractor
from models.types import Pixels


@pytest.fixture(scope="module")
def color() -> Extractor:
    return make_extractor("color")


def noise(height: int = 60, width: int = 90) -> Pixels:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (1, 1), (1, 2000), (1024, 2048)])
def test_it_is_the_histogram_of_opencv(color: Extractor, height: int, width: int) -> None:
    pixels = noise(height, width)
    counts = cv2.calcHist([pixels], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel()
    features = color.extract(pixels)
    assert features.dtype == np.float32
    assert features.shape == (512,)
    assert np.allclose(features, counts / counts.sum() * 1e7, rtol=1e-6)
    assert features.sum() == pytest.approx(1e7, rel=1e-6)


@pytest.mark.parametrize(
    ("pixel", "cell"),
    [((0, 0, 0), 0), ((0, 0, 32), 1), ((0, 63, 0), 8), ((255, 0, 0), 448), ((255, 255, 255), 511)],
)
def test_one_colour_fills_one_cell(
    color: Extractor, pixel: tuple[int, int, int], cell: int
) -> None:
    features = color.extract(np.full((7, 5, 3), pixel, np.uint8))
    assert features[cell] == pytest.approx(1e7)
    assert np.count_nonzero(features) == 1


def test_flips_and_turns_change_nothing_so_one_variant_is_tried(color: Extractor) -> None:
    pixels = noise()
    features = color.extract(pixels)
    for name in ("identity", "mirror", "dihedral"):
        (variant,) = color.extract_variants(pixels, name)  # type: ignore[arg-type]
        assert np.array_equal(variant, features)
    assert np.array_equal(color.extract(np.ascontiguousarray(pixels[:, ::-1])), features)
    mirrored = color.mirrored(features)
    assert mirrored is not None
    assert np.array_equal(mirrored, features)


def test_a_row_of_the_store_gives_the_features_back(color: Extractor) -> None:
    features = color.extract(noise())
    assert np.array_equal(color.from_row(color.to_row(features)), features)


def test_extraction_leaves_the_picture_as_it_was(color: Extractor) -> None:
    pixels = noise()
    pixels.flags.writeable = False
    color.extract(pixels)
    assert np.array_equal(pixels, noise())


def test_a_plain_picture_at_the_edge_of_cells_is_recoloured_into_its_neighbours(
    color: Extractor,
) -> None:
    plain = np.full((16, 16, 3), (97, 80, 126), np.uint8)
    cells = {int(np.argmax(one)) for one in recoloured(plain)}
    red, green, blue = 97 >> 5, 80 >> 5, 126 >> 5
    assert cells == {
        (red - 1) * 64 + green * 8 + blue,
        red * 64 + green * 8 + blue + 1,
        (red - 1) * 64 + green * 8 + blue + 1,
    }
    for one in recoloured(plain):
        assert (one.dtype, one.shape) == (color.dtype, color.shape)


def test_a_colour_within_its_cell_is_recoloured_into_no_other() -> None:
    assert recoloured(np.full((16, 16, 3), (80, 80, 80), np.uint8)) == []
    assert recoloured(np.full((16, 16, 3), (0, 0, 255), np.uint8)) == []


def test_a_picture_of_many_colours_is_not_recoloured() -> None:
    assert recoloured(noise()) == []
