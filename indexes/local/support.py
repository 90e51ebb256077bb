"""How well the inliers of hits speak for one picture, from keypoints alone.

Frames, watermarks and logos match many images at the same keypoints of the query (Weyand et al.
2015), and few of the keypoints that both pictures show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from indexes.base import Hit, Support
from indexes.local.verification import KeypointArrays, Points


def supported(
    hits: Sequence[Hit], query: KeypointArrays, images: Mapping[int, KeypointArrays]
) -> list[Hit]:
    """The hits with the support of their own inliers; see `with_rarity` for the rest of it."""
    return [
        hit
        if hit.points is None
        else hit._replace(support=_support(np.array(hit.points), hit, query, images[hit.image_id]))
        for hit in hits
    ]


def with_rarity(hits: Sequence[Hit]) -> list[Hit]:
    """The hits with the number of their inliers, less as more hits have one at the same place."""
    if not hits:
        return []
    inliers = [np.array(hit.points) for hit in hits]
    places = np.rint(np.concatenate(inliers)[:, :2])
    _, which, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    rarity = 1 / counts[which.ravel()]
    rare = np.split(rarity, np.cumsum([len(points) for points in inliers])[:-1])
    return [
        hit._replace(support=hit.support and hit.support._replace(rare=float(one.sum())))
        for hit, one in zip(hits, rare, strict=True)
    ]


def _support(inliers: Points, hit: Hit, query: KeypointArrays, image: KeypointArrays) -> Support:
    proposed = hit.support is not None and hit.support.proposed
    here, there = query.keypoints.points, image.keypoints.points
    matrix = np.array(hit.homography)
    determinant = cv2.determinant(matrix)
    if not determinant:
        return Support(0.0, 0.0, 0.0, 0.0, proposed)
    seen = here[_inside(here, matrix, there)]
    visible = min(len(seen), int(_inside(there, cv2.invert(matrix)[1], here).sum()))
    spread = _area(inliers[:, :2]) / max(_area(seen), 1.0)
    return Support(
        0.0,
        min(1.0, len(inliers) / max(1, visible)),
        min(1.0, spread),
        _bend(inliers, mirrored=determinant < 0),
        proposed,
    )


def _bend(inliers: Points, *, mirrored: bool) -> float:
    """Deviation of the second points of rows (n, 4) from the best similarity of the first, as a
    share of their distance from their centre."""
    one, other = (inliers[:, at] + 1j * inliers[:, at + 1] for at in (0, 2))
    one, other = one - one.mean(), other - other.mean()
    one = one.conj() if mirrored else one
    fitted = one * (np.vdot(one, other) / max(np.vdot(one, one).real, 1e-9))
    return float(np.linalg.norm(fitted - other)) / max(float(np.linalg.norm(other)), 1e-9)


def _inside(points: Points, matrix: cv2.typing.MatLike, others: Points) -> npt.NDArray[np.bool_]:
    """Which points, mapped by the homography, lie in the box of the other picture's keypoints."""
    mapped = cv2.perspectiveTransform(points[None], matrix)[0]
    low, high = others.min(axis=0), others.max(axis=0)
    return np.asarray(((mapped >= low) & (mapped <= high)).all(axis=1))


def _area(points: Points) -> float:
    if len(points) < 3:
        return 0.0
    return float(cv2.contourArea(cv2.convexHull(points.astype(np.float32))))
