from __future__ import annotations

import cv2
import numpy as np
import pytest

from indexes.relation.alignment import (
    applied,
    content_box,
    magnification,
    overlap,
    rescaled,
)
from indexes.relation.judging import whole_on_whole, within_borders
from indexes.relation.side import Side
from models.base import dihedral
from models.types import Pixels
from tests.indexes.local.scenes import scene

GRAY = scene(1, 240, 320)


def side(gray: Pixels) -> Side:
    return Side.of(np.dstack([gray] * 3))


@pytest.mark.parametrize("number", range(8))
def test_every_orientation_is_found(number: int) -> None:
    turned = dihedral(GRAY)[number]
    matrix = whole_on_whole(side(GRAY), side(turned))
    width = turned.shape[1]
    back = cv2.warpPerspective(turned, matrix, GRAY.shape[::-1], flags=cv2.WARP_INVERSE_MAP)
    assert np.abs(back.astype(int) - GRAY).mean() < 1
    corner = applied(matrix, np.array([[0.0, 0.0]]))[0]
    assert min(corner[0], width - 1 - corner[0]) == pytest.approx(0, abs=1e-6)


def test_borders_give_a_second_alignment() -> None:
    framed = cv2.copyMakeBorder(GRAY, 40, 40, 0, 0, cv2.BORDER_CONSTANT, value=0)
    assert content_box(framed) == (0, 40, 320, 280)
    inner = within_borders(side(framed), side(GRAY))
    assert inner is not None
    assert applied(inner, np.array([[10.0, 50.0]]))[0] == pytest.approx([10, 10])


def test_a_homography_between_pictures_holds_between_enlarged_ones() -> None:
    shift = np.array([[1.0, 0, 5], [0, 1, 3], [0, 0, 1]])
    enlarged = rescaled(shift, 2.0, 4.0)
    # The centre of pixel 1 lies at 2.5 when enlarged twice, that of pixel 6 at 25.5.
    assert applied(enlarged, np.array([[2.5, 2.5]]))[0] == pytest.approx([25.5, 17.5])
    assert magnification(enlarged, (2.0, 2.0)) == pytest.approx(2)


def test_the_overlap_is_the_part_of_the_query_that_the_image_covers() -> None:
    shift = np.array([[1.0, 0, 50], [0, 1, 0], [0, 0, 1]])
    polygon = overlap((100, 100), (100, 100), shift)
    assert polygon is not None
    assert (polygon.min(axis=0) + 0.5).tolist() == [0, 0]
    assert (polygon.max(axis=0) + 0.5).tolist() == [50, 100]
    away = np.array([[1.0, 0, 500], [0, 1, 0], [0, 0, 1]])
    assert overlap((100, 100), (100, 100), away) is None
    assert overlap((100, 100), (100, 100), np.zeros((3, 3))) is None
