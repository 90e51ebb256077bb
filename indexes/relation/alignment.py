"""Alignments of two pictures: homographies from pixels of one to pixels of the other.

Candidates come from a hash (whole on whole, in one of eight orientations, with or without borders)
or from local features. `refined` improves one by tracking points (Lucas & Kanade 1981; Bouguet
2001).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from models.types import Pixels

Matrix = npt.NDArray[np.float64]
"""Homography (3, 3), applied to (x, y, 1)."""
Floats = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; the right and bottom edges are exclusive."""

THUMB = 32
"""Side of the squashed pictures by which orientations are compared."""
BORDER_RANGE = 24
"""A row or column whose grey values span less than this may be a border."""
SEEN, STEPS = (15, 15), (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 10, 0.03)
"""Window, in pixels, in which a point is tracked, and when tracking ends."""


def orientations() -> list[Matrix]:
    """The maps of the unit square onto itself that `models.base.dihedral` applies, in its order."""
    turn = np.array([[0, 1, 0], [-1, 0, 1], [0, 0, 1]], np.float64)
    mirror = np.array([[-1, 0, 1], [0, 1, 0], [0, 0, 1]], np.float64)
    turns = [np.linalg.matrix_power(turn, count) for count in range(4)]
    return [turned @ side for turned in turns for side in (np.eye(3), mirror)]


ORIENTATIONS = orientations()


def thumb(gray: Pixels, box: Box) -> Floats:
    """The box of a grey picture squashed to (THUMB, THUMB), less its mean, of unit length."""
    left, top, right, bottom = (round(edge) for edge in box)
    small = cv2.resize(gray[top:bottom, left:right], (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    values = small.astype(np.float32)
    values -= values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), np.float32)


def content_box(gray: Pixels) -> Box:
    """The box without plain borders; the whole picture if nothing is inside."""
    height, width = gray.shape
    rows = np.flatnonzero(gray.max(axis=1).astype(np.int16) - gray.min(axis=1) >= BORDER_RANGE)
    columns = np.flatnonzero(gray.max(axis=0).astype(np.int16) - gray.min(axis=0) >= BORDER_RANGE)
    if len(rows) < 8 or len(columns) < 8:
        return 0, 0, width, height
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def orientation(query: Floats, image: Floats) -> Matrix:
    """The map of the unit square onto itself that makes two thumbs most similar."""
    sides = [np.rot90(side, turns) for turns in range(4) for side in (query, query[:, ::-1])]
    likeness = abs(np.stack(sides).reshape(8, -1) @ image.ravel())
    return ORIENTATIONS[int(np.argmax(likeness))]


def whole_box(shape: tuple[int, int]) -> Box:
    """The box of a whole picture (height, width)."""
    return 0, 0, shape[1], shape[0]


def box_on_box(one: Box, other: Box, orientation: Matrix) -> Matrix:
    """The alignment of two boxes."""
    return _from_unit(other) @ orientation @ cv2.invert(_from_unit(one))[1]


def _from_unit(box: Box) -> Matrix:
    """From the unit square to pixel positions, whose whole numbers are centres of pixels."""
    left, top, right, bottom = box
    return np.array(
        [[right - left, 0, left - 0.5], [0, bottom - top, top - 0.5], [0, 0, 1]], np.float64
    )


def rescaled(matrix: Matrix, query: float, image: float) -> Matrix:
    """A homography between two pictures as one between them enlarged by these factors."""
    return _scaling(image) @ matrix @ _scaling(1 / query)


def _scaling(factor: float) -> Matrix:
    shift = 0.5 * factor - 0.5
    return np.array([[factor, 0, shift], [0, factor, shift], [0, 0, 1]], np.float64)


def applied(matrix: Matrix, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The points (n, 2) mapped by a homography."""
    return np.asarray(cv2.perspectiveTransform(points[None], matrix)[0], np.float64)


def magnification(matrix: Matrix, point: tuple[float, float]) -> float:
    """Factor by which lengths grow at a point; 0 if the point lies behind the horizon."""
    x, y = point
    weight = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    if weight <= 1e-9:
        return 0.0
    # The determinant of the Jacobian of a homography is det / weight³.
    return math.sqrt(abs(cv2.determinant(matrix)) / float(weight) ** 3)


def overlap(
    query: tuple[int, int], image: tuple[int, int], matrix: Matrix
) -> npt.NDArray[np.float64] | None:
    """The polygon (n, 2), in query pixels, that both pictures cover."""
    determinant, inverse = cv2.invert(matrix)
    if not determinant:
        return None
    back, quad = np.asarray(inverse, np.float64), _corners(image)
    weights = quad @ back[2, :2] + back[2, 2]
    if weights.min() <= 0 <= weights.max():
        return None
    projected = applied(back, quad).astype(np.float32)
    if not np.isfinite(projected).all() or abs(projected).max() > 1e5:
        return None
    hull = cv2.convexHull(projected)
    area, common = cv2.intersectConvexConvex(hull, _corners(query).astype(np.float32))
    if area < 1 or common is None or len(common) < 3:
        return None
    return np.asarray(common.reshape(-1, 2), np.float64)


def _corners(shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    height, width = shape
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64) - 0.5


def covered_areas(
    query: tuple[int, int], image: tuple[int, int], matrix: Matrix
) -> tuple[float, float]:
    """Shares of both pictures' areas that the overlap takes."""
    polygon = overlap(query, image, matrix)
    if polygon is None:
        return 0.0, 0.0
    here = cv2.contourArea(polygon.astype(np.float32)) / (query[0] * query[1])
    mapped = applied(matrix, polygon).astype(np.float32)
    there = cv2.contourArea(mapped) / (image[0] * image[1])
    return min(1.0, float(here)), min(1.0, float(there))


def refined(query: Pixels, warped: Pixels, points: Floats, levels: int) -> Matrix | None:
    """The homography from the query to its warped partner that tracked points follow.

    `query` and `warped` are locally normalised (height, width) pictures; `points` (n, 2) are
    tracked from `levels` halvings down. None if too few points agree.
    """
    if len(points) < 6:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        query, warped, points, np.empty_like(points), winSize=SEEN, maxLevel=levels, criteria=STEPS
    )
    kept = found.ravel() == 1
    if kept.sum() < 6:
        return None
    cv2.setRNGSeed(0)
    if kept.sum() < 16:
        affine, _ = cv2.estimateAffine2D(
            points[kept], moved[kept], ransacReprojThreshold=2.0, maxIters=64
        )
        return None if affine is None else np.vstack([affine, [0, 0, 1]]).astype(np.float64)
    matrix, _ = cv2.findHomography(points[kept], moved[kept], cv2.RANSAC, 2.0, maxIters=64)
    return None if matrix is None else np.asarray(matrix, np.float64)
