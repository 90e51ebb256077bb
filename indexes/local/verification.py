"""Geometric verification of one picture against another: matches, homography, inliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexes.local.descriptors import lengths
from indexes.local.kernels import mutual_nearest
from indexes.local.verification_kernels import NO_OCTAVE, consistent, largest_agreement
from models.types import Features

Points = npt.NDArray[np.float64]
Homography = npt.NDArray[np.float64]

SAME_PLACE = 60
"""Keypoints within a sixtieth of the picture count as one place."""
AT_ONCE = 4
"""Pictures in one matrix product: more no longer lie in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Keypoints:
    points: Points
    """(n, 2) pixels"""
    octave: npt.NDArray[np.float64]
    """(n,) log2 of the scale"""
    angle: npt.NDArray[np.float64]
    """(n,) degrees"""

    def __len__(self) -> int:
        return len(self.angle)

    @property
    def extent(self) -> float:
        """The long side of what the keypoints cover, in pixels; 1 at least."""
        if not len(self):
            return 1.0
        return max(1.0, float((self.points.max(axis=0) - self.points.min(axis=0)).max()))

    def take(self, rows: npt.NDArray[np.intp]) -> Keypoints:
        return Keypoints(self.points[rows], self.octave[rows], self.angle[rows])


@dataclass(frozen=True, slots=True)
class Side:
    """One picture's features, taken apart."""

    keypoints: Keypoints
    descriptors: npt.NDArray[np.float32]
    """(n, 128), the whole numbers that are stored: a matrix product of those is exact, and so the
    same whatever else is in it."""
    scale: npt.NDArray[np.float32]
    """(n,): what makes each descriptor a unit vector; one of zeros stays zero."""

    @classmethod
    def of(cls, features: Features) -> Side:
        points = np.empty((len(features), 2))
        points[:, 0], points[:, 1] = features["x"], features["y"]
        octave = np.log2(np.maximum(features["scale"], 2**NO_OCTAVE).astype(np.float64))
        descriptors = features["descriptor"].astype(np.float32)
        return cls(
            Keypoints(points, octave, features["angle"].astype(np.float64)),
            descriptors,
            np.reciprocal(lengths(descriptors)),
        )

    def __len__(self) -> int:
        return len(self.scale)


@dataclass(frozen=True, slots=True)
class Matches:
    """Row i of `query` matches row i of `image`."""

    query: Keypoints
    image: Keypoints

    def __len__(self) -> int:
        return len(self.query)

    def take(self, rows: npt.NDArray[np.intp]) -> Matches:
        return Matches(self.query.take(rows), self.image.take(rows))


@dataclass(frozen=True, slots=True)
class Verified:
    inliers: int
    homography: Homography
    """(3, 3): query pixels to image pixels."""
    points: Points
    """(inliers, 4): query x, y, image x, y."""

    def shown(self, *, mirrored: bool) -> tuple[list[list[float]], list[list[float]]]:
        """Homography and points in pixels of the given query: a mirrored one's x is -x."""
        sign = -1.0 if mirrored else 1.0
        homography = self.homography * [sign, 1.0, 1.0]
        points = self.points * [sign, 1.0, 1.0, 1.0]
        return homography.tolist(), points.tolist()


def match(query: Side, images: Sequence[Side], ratio: float, farthest: float) -> list[Matches]:
    """Mutual nearest neighbours, nearer than squared L2 `farthest`, by Lowe's ratio test.

    `ratio` is of distances to the nearest and second nearest place; 1 keeps all.
    """
    found = []
    batches = [images[start : start + AT_ONCE] for start in range(0, len(images), AT_ONCE)]
    most = max((sum(map(len, some)) for some in batches), default=0)
    # Memory that is new to a process costs as much as the product: one piece serves all.
    space = np.empty(len(query) * most, np.float32)
    for some in batches:
        rows = np.concatenate([image.descriptors for image in some])
        products = space[: len(query) * len(rows)].reshape(len(query), len(rows))
        np.matmul(query.descriptors, rows.T, out=products)
        start = 0
        for image in some:
            found.append(_matches(query, image, products, start, ratio, farthest))
            start += len(image)
    return found


def _matches(
    query: Side,
    image: Side,
    products: npt.NDArray[np.float32],
    start: int,
    ratio: float,
    farthest: float,
) -> Matches:
    chosen = mutual_nearest(
        products,
        start,
        query.scale,
        image.scale,
        image.keypoints.points,
        image.keypoints.extent / SAME_PLACE,
        ratio,
        farthest,
    )
    rows = np.flatnonzero(chosen >= 0)
    return Matches(query.keypoints.take(rows), image.keypoints.take(chosen[rows].astype(np.intp)))


def agreeing(matches: Matches) -> Matches:
    """The largest group of matches that turn and scale as one of them does.

    Weak geometric consistency (Jégou et al. 2008) without bins: few matches, so all are compared.
    """
    if not len(matches):
        return matches
    turns = matches.image.angle - matches.query.angle
    octaves = matches.image.octave - matches.query.octave
    agree = largest_agreement(turns, octaves)
    return matches.take(np.flatnonzero(agree))


def verify(matches: Matches) -> Verified | None:
    """The homography that most matches follow, by MAGSAC++ (Barath et al. 2020).

    None when there is none that a picture of a picture can have. An inlier must also turn and scale
    its keypoint, if that has a scale, as the homography does there, and places that lie together
    count once.
    """
    if len(matches) < 4:
        return None
    homography = _fit(matches)
    if homography is None:
        return None
    inside = follows(matches, homography)
    places = np.rint(matches.image.points * (SAME_PLACE / matches.image.extent))
    _, first = np.unique(places[inside], axis=0, return_index=True)
    rows = np.flatnonzero(inside)[first]
    points = np.hstack([matches.query.points[rows], matches.image.points[rows]])
    return Verified(len(rows), homography, points)


def follows(matches: Matches, homography: Homography) -> npt.NDArray[np.bool_]:
    """(n,) whether the homography takes each keypoint's place, turn and scale to its match's."""
    query, image = matches.query, matches.image
    result: npt.NDArray[np.bool_] = consistent(
        homography,
        query.points,
        query.octave,
        query.angle,
        image.points,
        image.octave,
        image.angle,
        _reach(matches),
    )
    return result


def _fit(matches: Matches) -> Homography | None:
    import cv2

    # One fixed seed: the same query gets the same answer.
    cv2.setRNGSeed(0)
    homography, _ = cv2.findHomography(
        matches.query.points,
        matches.image.points,
        cv2.USAC_MAGSAC,
        _reach(matches),
        maxIters=1000,
        confidence=0.999,
    )
    if homography is None or not np.isfinite(homography).all() or abs(homography[2, 2]) < 1e-9:
        return None
    fitted: Homography = homography / homography[2, 2]
    return fitted


def _reach(matches: Matches) -> float:
    """How far, in pixels of the image, an inlier may lie from where it should.

    A keypoint's place is uncertain in proportion to the picture, down to a few pixels.
    """
    return max(4.0, 0.012 * matches.image.extent)
