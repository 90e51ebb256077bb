"""Geometric verification of one picture against another: matches, homography, inliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.local.descriptors import lengths
from indexes.local.kernels import mutual_nearest
from indexes.local.verification_kernels import (
    NO_OCTAVE,
    consistent,
    largest_agreement,
    largest_similarity,
)
from models.types import Features

Points = npt.NDArray[np.float64]
Homography = npt.NDArray[np.float64]

SAME_PLACE = 60
"""Keypoints within a sixtieth of the picture count as one position."""
ROW_OF_PLACES = 1 << 20
"""More than there are places in a line of a picture."""
STEADY = 0.75
"""Inliers of a similarity transform, as a share of a homography's, from which it is preferred."""
AT_ONCE = 4
"""Images in one matrix product; more do not fit into the processor's cache."""


@dataclass(frozen=True, slots=True)
class Keypoints:
    points: Points
    """Positions (n, 2) in pixels."""
    octave: npt.NDArray[np.float64]
    """Log2 of the scales (n,)."""
    angle: npt.NDArray[np.float64]
    """Angles (n,) in degrees."""

    def __len__(self) -> int:
        return len(self.angle)

    @property
    def extent(self) -> float:
        """The long side, in pixels, of the area that the keypoints cover; at least 1."""
        if not len(self):
            return 1.0
        return max(1.0, float((self.points.max(axis=0) - self.points.min(axis=0)).max()))

    def take(self, rows: npt.NDArray[np.intp]) -> Keypoints:
        return Keypoints(self.points[rows], self.octave[rows], self.angle[rows])


@dataclass(frozen=True, slots=True)
class KeypointArrays:
    """One picture's features, split into arrays."""

    keypoints: Keypoints
    descriptors: npt.NDArray[np.float32]
    """Descriptors (n, d) as the stored whole numbers. Their matrix product is exact, and so does
    not depend on what else is multiplied."""
    scale: npt.NDArray[np.float32]
    """Factors (n,) that bring each descriptor to unit length; a descriptor of zeros stays zero."""

    @classmethod
    def of(cls, features: Features) -> KeypointArrays:
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
    """Matches: row i of `query` matches row i of `image`."""

    query: Keypoints
    image: Keypoints

    def __len__(self) -> int:
        return len(self.query)

    def take(self, rows: npt.NDArray[np.intp]) -> Matches:
        return Matches(self.query.take(rows), self.image.take(rows))

    @property
    def geometry(self) -> tuple[Points, Points, Points, Points, Points, Points]:
        """Points, octaves and angles of `query`, then of `image`, as the kernels take them."""
        one, other = self.query, self.image
        return one.points, one.octave, one.angle, other.points, other.octave, other.angle


@dataclass(frozen=True, slots=True)
class Verified:
    inliers: int
    homography: Homography
    """Homography (3, 3) from query pixels to image pixels."""
    points: Points
    """Inliers (inliers, 4): query x, y, image x, y."""

    def shown(self, *, mirrored: bool) -> tuple[list[list[float]], list[list[float]]]:
        """Homography and points in pixels of the given query; the x of a mirrored query is -x."""
        sign = -1.0 if mirrored else 1.0
        homography = self.homography * [sign, 1.0, 1.0]
        points = self.points * [sign, 1.0, 1.0, 1.0]
        return homography.tolist(), points.tolist()


def match(
    query: KeypointArrays, images: Sequence[KeypointArrays], ratio: float, farthest: float
) -> list[Matches]:
    """Mutual nearest neighbours, nearer than squared L2 `farthest`, that pass Lowe's ratio test.

    `ratio` compares the distances to the nearest and second nearest position; 1 keeps all.
    """
    found = []
    batches = [images[start : start + AT_ONCE] for start in range(0, len(images), AT_ONCE)]
    most = max((sum(map(len, some)) for some in batches), default=0)
    # One reused buffer: memory that is new to a process costs as much as the product.
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
    query: KeypointArrays,
    image: KeypointArrays,
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
    return matches_of(query, image, np.column_stack([rows, chosen[rows]]))


def matches_of(
    query: KeypointArrays, image: KeypointArrays, pairs: npt.NDArray[np.integer[Any]]
) -> Matches:
    """The matches of rows (m, 2) of the query and of the image."""
    here, there = pairs.astype(np.intp).T
    return Matches(query.keypoints.take(here), image.keypoints.take(there))


def agreeing(matches: Matches) -> Matches:
    """The largest group of matches that rotate and scale like one of them.

    Weak geometric consistency (Jégou et al. 2008) without bins: the matches are few, so all pairs
    are compared.
    """
    if not len(matches):
        return matches
    turns = matches.image.angle - matches.query.angle
    octaves = matches.image.octave - matches.query.octave
    agree = largest_agreement(turns, octaves)
    return matches.take(np.flatnonzero(agree))


def verify(matches: Matches) -> Verified | None:
    """The homography that most matches follow, by MAGSAC++ (Barath et al. 2020).

    None when no plausible homography is found. An inlier must also rotate and scale its keypoint,
    if that has a scale, as the homography does at that point. Inliers at the same position count
    once.
    """
    if len(matches) < 4:
        return None
    homography = _fit(matches)
    if homography is None:
        return None
    points = _distinct(matches, follows(matches, homography))
    return Verified(len(points), homography, points)


def similarity(matches: Matches) -> Verified | None:
    """The similarity transform that most matches follow; of few matches, which fix no homography.

    None if fewer than three positions follow it. It only proposes an alignment.
    """
    found = _distinct(matches, largest_similarity(*matches.geometry, _reach(matches)))
    if len(found) < 3:
        return None
    one, other = (found[:, at] + 1j * found[:, at + 1] for at in (0, 2))
    here, there = one.mean(), other.mean()
    factor = np.vdot(one - here, other - there) / max(
        float(np.vdot(one - here, one - here).real), 1e-9
    )
    shift = there - factor * here
    homography = [
        [factor.real, -factor.imag, shift.real],
        [factor.imag, factor.real, shift.imag],
        [0.0, 0.0, 1.0],
    ]
    return Verified(len(found), np.array(homography), found)


def steadied(verified: Verified, matches: Matches) -> Verified:
    """The same inliers under the similarity transform of these matches, if most of them follow it.

    A few inliers close together fix its four numbers, while a homography's eight stray beyond them.
    """
    steady = similarity(matches)
    if steady is None or steady.inliers < STEADY * verified.inliers:
        return verified
    return replace(verified, homography=steady.homography)


def follows(matches: Matches, homography: Homography) -> npt.NDArray[np.bool_]:
    """Whether the homography maps each keypoint's position, angle and scale to its match's,
    (n,)."""
    result: npt.NDArray[np.bool_] = consistent(homography, *matches.geometry, _reach(matches))
    return result


def _distinct(matches: Matches, inside: npt.NDArray[np.bool_]) -> Points:
    """The chosen (n,) matches, one of each position, as rows of `Verified.points`."""
    places = np.rint(matches.image.points[inside] * (SAME_PLACE / matches.image.extent))
    # One number a place: `unique` of rows takes five times as long.
    _, first = np.unique(places @ (ROW_OF_PLACES, 1), return_index=True)
    rows = np.flatnonzero(inside)[first]
    return np.hstack([matches.query.points[rows], matches.image.points[rows]])


def _fit(matches: Matches) -> Homography | None:
    import cv2

    # A fixed seed, so that the same query gets the same answer.
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
    """Maximum distance, in pixels of the image, of an inlier from its predicted position.

    The uncertainty of a keypoint's position is proportional to the picture's size, down to a few
    pixels.
    """
    return max(4.0, 0.012 * matches.image.extent)
