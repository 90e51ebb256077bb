"""The scale space against OpenCV's SIFT, on drawn pictures."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from models.descriptors.scale_space import ScaleSpace
from models.types import Pixels
from tests.indexes.local.scenes import scene

Table = npt.NDArray[np.float64]


def opencv(pixels: Pixels) -> tuple[Any, list[Any], Table]:
    """Return OpenCV's SIFT, its keypoints, and x, y, sigma, response and angle of each."""
    sift = cv2.SIFT_create(contrastThreshold=-1, enable_precise_upscale=True)  # type: ignore[attr-defined]
    found = sift.detect(pixels, None)
    rows = [(*one.pt, one.size / 2, one.response, one.angle) for one in found]
    return sift, found, np.array(rows)


def nearest(ours: Table, theirs: Table) -> tuple[npt.NDArray[np.intp], Table]:
    """Return for each of their x, y, sigma our nearest, and how far it is in pixels or octaves."""
    ours, theirs = ours.copy(), theirs.copy()
    for table in (ours, theirs):
        table[:, 2] = 4 * np.log2(table[:, 2])
    distances = np.linalg.norm(theirs[:, None] - ours[None], axis=2)
    best = distances.argmin(axis=1)
    return best, distances[np.arange(len(best)), best]


def extrema(space: ScaleSpace) -> Table:
    return np.column_stack([space.points, space.sigma]).astype(float)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return scene(1, 240, 320)


def test_the_extrema_are_those_of_opencv(pixels: Pixels) -> None:
    space = ScaleSpace(pixels)
    theirs = opencv(pixels)[2][:, :3]
    assert (nearest(extrema(space), theirs)[1] < 0.3).mean() > 0.95
    assert (nearest(theirs, extrema(space))[1] < 0.3).mean() > 0.95


def test_the_responses_rank_as_those_of_opencv(pixels: Pixels) -> None:
    space = ScaleSpace(pixels)
    theirs = opencv(pixels)[2]
    best, far = nearest(extrema(space), theirs[:, :3])
    ours, near = space.response[best], far < 0.3
    assert np.corrcoef(ours[near], theirs[near, 3])[0, 1] > 0.999


def test_the_orientations_are_those_of_opencv(pixels: Pixels) -> None:
    space = ScaleSpace(pixels)
    which, angles = space.orient(np.arange(len(space.points)))
    theirs = opencv(pixels)[2]
    ours = extrema(space)[which]
    known = []
    for x, y, sigma, _, angle in theirs:
        there = np.linalg.norm(ours[:, :2] - (x, y), axis=1) < 0.1
        there &= abs(np.log2(ours[:, 2] / sigma)) < 0.05
        turns = abs((angles[there] - angle + 180) % 360 - 180)
        known.append(bool((turns < 5).any()))
    assert np.mean(known) > 0.9


def test_the_descriptors_are_those_of_opencv_at_the_same_keypoints(pixels: Pixels) -> None:
    space = ScaleSpace(pixels)
    sift, found, theirs = opencv(pixels)
    best, far = nearest(extrema(space), theirs[:, :3])
    same = np.flatnonzero(far < 0.1)
    ours = space.describe(best[same], theirs[same, 4].astype(np.float32))
    _, descriptors = sift.compute(pixels, [found[row] for row in same])
    cosines = (ours * descriptors).sum(axis=1) / np.linalg.norm(descriptors, axis=1)
    assert np.median(cosines) > 0.99
    assert np.percentile(cosines, 5) > 0.98
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def repeated(table: Table, warped: Table, matrix: npt.NDArray[np.float64], shape: Any) -> float:
    """Return the share of the strongest keypoints that are found again where the matrix says."""
    factor = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    strongest = table[np.argsort(-table[:, 3] * np.sqrt(table[:, 2]))[:200]]
    expected = np.column_stack([strongest[:, :2] @ matrix[:, :2].T + matrix[:, 2]])
    inside = ((expected > 10) & (expected < np.array(shape[::-1]) - 10)).all(axis=1)
    wanted = np.column_stack([expected, strongest[:, 2] * factor])[inside]
    far = nearest(warped[np.argsort(-warped[:, 3] * np.sqrt(warped[:, 2]))[:600], :3], wanted)[1]
    return float((far < 1.5).mean())


@pytest.mark.parametrize(("angle", "factor"), [(0, 0.7), (20, 1.0), (45, 1.3), (130, 0.8)])
def test_keypoints_repeat_as_well_as_those_of_opencv(angle: float, factor: float) -> None:
    ours, theirs = [], []
    for seed in range(4):
        pixels = scene(seed, 240, 320)
        matrix = cv2.getRotationMatrix2D((160, 120), angle, factor)
        warped = np.asarray(cv2.warpAffine(pixels, matrix, (320, 240)), np.uint8)
        tables = []
        for picture in (pixels, warped):
            space = ScaleSpace(picture)
            tables.append(np.column_stack([extrema(space), space.response]))
        ours.append(repeated(*tables, matrix, pixels.shape))
        both = [opencv(picture)[2] for picture in (pixels, warped)]
        theirs.append(repeated(*both, matrix, pixels.shape))
    assert np.mean(ours) > 0.5
    assert np.mean(ours) > np.mean(theirs) - 0.02


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 500), (500, 1), (2, 3), (5, 5), (6, 6), (7, 640), (640, 6), (33, 31)]
)
def test_pictures_of_any_shape_have_extrema_inside_or_none(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    space = ScaleSpace(noise)
    assert (space.points >= 0).all()
    assert (space.points < shape[::-1]).all()
    which, angles = space.orient(np.arange(len(space.points)))
    assert ((angles >= 0) & (angles < 360)).all()
    assert np.isfinite(space.describe(which, angles)).all()


@pytest.mark.parametrize("value", [0, 1, 90, 255])
def test_uniform_pictures_have_no_extrema(value: int) -> None:
    assert len(ScaleSpace(np.full((120, 160), value, np.uint8)).points) == 0


def test_one_blob_is_found_where_it_is_with_its_size() -> None:
    y, x = np.mgrid[:120, :160]
    blob = 40 + 150 * np.exp(-((x - 70.25) ** 2 + (y - 50.5) ** 2) / (2 * 6.0**2))
    space = ScaleSpace(np.rint(blob).astype(np.uint8))
    strongest = int(np.argmax(space.response))
    np.testing.assert_allclose(space.points[strongest], [70.25, 50.5], atol=0.1)
    # A Gaussian blob of sigma s has its extremum between two levels whose mean blur is s.
    assert space.sigma[strongest] * 2 ** (1 / 6) == pytest.approx(6.0, rel=0.05)
