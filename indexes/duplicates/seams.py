"""What lies around a part of a picture: a plain border, other pictures, or more of the same.

The pictures of a collage end at seams: along a seam the picture changes abruptly, everywhere at the
same place. Where a part was cropped, what lies beyond its edge goes on.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from indexes.relation.alignment import Matrix, applied
from indexes.relation.side import Side

SAMPLES = 96
REACH, FAR = 4, 14
"""Pixels from the edge within which a seam is sought, and up to which it is compared."""
INSIDE = 0.02
"""Share of a side from the container's border within which an edge is the container's own."""
STRONGER = 3.0
"""How much more the picture changes across a seam than beside it."""
LEAST = 4.0
"""Least change across a seam, in grey values."""


PLAIN = 14
"""Largest difference from the median, in grey values, of nearly all pixels of a plain border."""
NEARLY_ALL = 0.97

Around = Literal["plain", "seams", "more"]


def around(part: Side, container: Side, to_container: Matrix) -> Around:
    """What lies around a part inside its container.

    `to_container` maps pixels of the part to those of the container.
    """
    height, width = part.shape
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64) - 0.5
    quad = applied(to_container, corners)
    centre = quad.mean(axis=0)
    edges = [(quad[at], quad[(at + 1) % 4]) for at in range(4)]
    inner = [edge for edge in edges if _is_inside(edge, container.shape)]
    if inner and _is_plain_beyond(container.gray, quad):
        return "plain"
    seams = bool(inner) and all(_is_seam(container.gray, edge, centre) for edge in inner)
    return "seams" if seams else "more"


def _is_plain_beyond(gray: npt.NDArray[np.uint8], quad: npt.NDArray[np.float64]) -> bool:
    """Whether all that lies outside a quadrilateral is one colour."""
    filled = np.ones(gray.shape, np.uint8)
    cv2.fillConvexPoly(filled, np.rint(quad).astype(np.int32), 0)
    outside = cv2.erode(filled, np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8))
    beyond = gray[np.asarray(outside) > 0].astype(np.int16)
    if len(beyond) < SAMPLES:
        return False
    return float((abs(beyond - np.median(beyond)) <= PLAIN).mean()) >= NEARLY_ALL


Edge = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def _is_inside(edge: Edge, shape: tuple[int, int]) -> bool:
    """Whether an edge lies inside a picture rather than at its border."""
    height, width = shape
    (x, y), (other_x, other_y) = edge
    left, top = max(2.0, INSIDE * width), max(2.0, INSIDE * height)
    beside = max(x, other_x) <= left or min(x, other_x) >= width - 1 - left
    above = max(y, other_y) <= top or min(y, other_y) >= height - 1 - top
    return not (beside or above)


def _is_seam(gray: npt.NDArray[np.uint8], edge: Edge, centre: npt.NDArray[np.float64]) -> bool:
    begin, end = edge
    along = end - begin
    normal = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-6)
    if (begin + along / 2 - centre) @ normal < 0:
        normal = -normal
    shares = np.linspace(0.1, 0.9, SAMPLES)
    offsets = np.arange(-FAR, FAR + 1)
    points = begin + shares[:, None, None] * along + offsets[None, :, None] * normal
    x, y = (np.ascontiguousarray(points[..., axis], np.float32) for axis in (0, 1))
    sampled = cv2.remap(gray, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    profile = np.asarray(sampled, np.float32)
    # Two steps apart, because scaling spreads a seam over two pixels.
    change = abs(profile[:, 2:] - profile[:, :-2])
    near = abs(offsets[1:-1]) <= REACH
    usual = float(np.median(change[:, ~near].mean(axis=0)))
    strongest = float(change[:, near].mean(axis=0).max())
    return strongest >= max(LEAST, STRONGER * usual)
