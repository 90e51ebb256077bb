"""DoG keypoints: detection at a bounded resolution, and an even selection of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.types import Pixels

Floats = npt.NDArray[np.float32]


class Keypoints(NamedTuple):
    """Parallel arrays of n keypoints, strongest first."""

    points: Floats
    """(n, 2) float32: x, y in pixels of the picture given, whatever it was resized to."""
    scale: Floats
    """(n,) float32: diameter in pixels."""
    angle: Floats
    """(n,) float32: degrees in [0, 360), clockwise as y points down."""
    strength: Floats
    """(n,) float32: DoG response times the root of the scale."""
    descriptors: Floats
    """(n, 128) float32: SIFT, not normalised."""

    def take(self, chosen: npt.NDArray[np.intp]) -> Keypoints:
        return Keypoints(*(column[chosen] for column in self))


def detect(gray: Pixels, sides: tuple[int, int], limit: int) -> Keypoints:
    """SIFT keypoints (Lowe 2004) of a grey picture (height, width) uint8.

    A long side out of `sides` is first resized into it: SIFT itself doubles the picture, so a
    large one gains little from its full resolution, and a thumbnail gains much from more of it.
    At most `limit` keypoints by contrast reach the descriptor.
    """
    import cv2

    long_side = max(gray.shape)
    factor = min(max(long_side, sides[0]), sides[1]) / long_side
    if factor != 1:
        size = [max(1, round(side * factor)) for side in gray.shape[::-1]]
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        gray = np.asarray(cv2.resize(gray, size, interpolation=how), np.uint8)
    sift = cv2.SIFT_create(  # type: ignore[attr-defined]
        nfeatures=limit, contrastThreshold=-1.0, enable_precise_upscale=True
    )
    found, descriptors = sift.detectAndCompute(np.ascontiguousarray(gray), None)
    return _sorted(found, descriptors, factor)


def _sorted(found: Any, descriptors: Any, factor: float) -> Keypoints:
    rows = [(*k.pt, k.size, k.angle, k.response) for k in found]
    table = np.array(rows, np.float32).reshape(-1, 5)
    # A response falls with scale in natural pictures. What survives in thumbnails is coarse, what
    # survives in crops is fine: the root weighs both.
    strength = table[:, 4] * np.sqrt(table[:, 2])
    points = (table[:, :2] + 0.5) / factor - 0.5
    if descriptors is None:
        descriptors = np.empty((0, 128), np.float32)
    keypoints = Keypoints(points, table[:, 2] / factor, table[:, 3] % 360, strength, descriptors)
    return keypoints.take(np.lexsort((points[:, 1], points[:, 0], -strength)))


def interleave(keypoints: Keypoints, shape: tuple[int, int]) -> Keypoints:
    """The strongest of each of 4×4 cells of the picture, then each one's second, and so on.

    So the first few hundred speak for every part of it: one busy part can't outvote the others.
    """
    size = np.array(shape[::-1], np.float32)
    column, row = np.clip(keypoints.points * 4 // size, 0, 3).astype(np.intp).T
    cell = row * 4 + column
    rank = np.empty(len(cell), np.intp)
    for number in range(16):
        members = np.flatnonzero(cell == number)
        rank[members] = np.arange(len(members))
    return keypoints.take(np.argsort(rank, kind="stable"))


def spread(
    keypoints: Keypoints, shape: tuple[int, int], total: int, per_quadrant: int, near: int
) -> Keypoints:
    """The strongest `total` keypoints of a picture of this (height, width), spread over it.

    At most `per_quadrant` in each quadrant, and no keypoint with `near` stronger ones kept within
    a sixtieth of the long side.
    """
    height, width = shape
    quadrant = (keypoints.points[:, 0] >= width / 2) * 2 + (keypoints.points[:, 1] >= height / 2)
    room = [per_quadrant] * 4
    radius2 = (max(shape) / 60) ** 2
    kept = np.empty((total, 2), np.float32)
    chosen: list[int] = []
    for row, (point, part) in enumerate(zip(keypoints.points, quadrant, strict=True)):
        if not room[part]:
            continue
        offsets = kept[: len(chosen)] - point
        if np.count_nonzero(np.einsum("ij,ij->i", offsets, offsets) < radius2) >= near:
            continue
        kept[len(chosen)] = point
        chosen.append(row)
        room[part] -= 1
        if len(chosen) == total:
            break
    return keypoints.take(np.array(chosen, np.intp))
