"""Whether a part of a picture ends at seams, as the pictures of a collage do.

Along a seam the picture changes abruptly, everywhere at the same place. Where a part was cropped,
what lies beyond its edge goes on.
"""

from __future__ import annotations

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


def has_seams(part: Side, container: Side, to_container: Matrix) -> bool:
    """Whether all edges of a part that lie inside the container are seams.

    `to_container` maps pixels of the part to those of the container.
    """
    height, width = part.shape
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64) - 0.5
    quad = applied(to_container, corners)
    centre = quad.mean(axis=0)
    edges = [(quad[at], quad[(at + 1) % 4]) for at in range(4)]
    inner = [edge for edge in edges if _is_inside(edge, container.shape)]
    return bool(inner) and all(_is_seam(container.gray, edge, centre) for edge in inner)


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
