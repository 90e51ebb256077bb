"""Geometric verification of one picture against another: matches, homography, inliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexes.descriptors import Descriptors, unit
from indexes.local_kernels import mutual_nearest
from models.types import Features

Points = npt.NDArray[np.float64]
Homography = npt.NDArray[np.float64]

ANGLE_TOLERANCE = 25.0
OCTAVE_TOLERANCE = 0.7
LARGEST_SCALE = 32.0
NO_OCTAVE = -20.0
"""The octave of a keypoint of scale 0, which has neither scale nor angle."""
SAME_PLACE = 60
"""Keypoints within a sixtieth of the picture count as one place."""


@dataclass(frozen=True, slots=True)
class Side:
    """One picture's features, taken apart."""

    points: Points
    """(n, 2) pixels"""
    octave: npt.NDArray[np.float64]
    """(n,) log2 of the scale"""
    angle: npt.NDArray[np.float64]
    """(n,) degrees"""
    descriptors: Descriptors

    @classmethod
    def of(cls, features: Features) -> Side:
        return cls(
            np.stack([features["x"], features["y"]], axis=1).astype(np.float64),
            np.log2(np.maximum(features["scale"], 2**NO_OCTAVE).astype(np.float64)),
            features["angle"].astype(np.float64),
            unit(features["descriptor"]),
        )

    @property
    def extent(self) -> float:
        """The long side of what the keypoints cover, in pixels; 1 at least."""
        return max(1.0, float(np.ptp(self.points, axis=0).max())) if len(self.points) else 1.0

    def take(self, rows: npt.NDArray[np.intp]) -> Side:
        return Side(self.points[rows], self.octave[rows], self.angle[rows], self.descriptors[rows])


@dataclass(frozen=True, slots=True)
class Matches:
    """Row i of `query` matches row i of `image`."""

    query: Side
    image: Side

    def __len__(self) -> int:
        return len(self.query.angle)

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


def match(query: Side, image: Side, ratio: float, farthest: float) -> Matches:
    """Mutual nearest neighbours, nearer than squared L2 `farthest`, by Lowe's ratio test.

    `ratio` is of distances to the nearest and second nearest place; 1 keeps all.
    """
    if not len(query.angle) or not len(image.angle):
        nobody = np.empty(0, np.intp)
        return Matches(query.take(nobody), image.take(nobody))
    similarity = query.descriptors @ image.descriptors.T
    places = image.points.astype(np.float32)
    nearest, best, second = mutual_nearest(similarity, places, image.extent / SAME_PLACE)
    distance, runner_up = 2 - 2 * best, 2 - 2 * second
    rows = np.flatnonzero(
        (nearest >= 0) & (distance < farthest) & (distance <= ratio**2 * runner_up)
    )
    return Matches(query.take(rows), image.take(nearest[rows].astype(np.intp)))


def agreeing(matches: Matches) -> Matches:
    """The largest group of matches that turn and scale as one of them does.

    Weak geometric consistency (Jégou et al. 2008) without bins: few matches, so all are compared.
    """
    if not len(matches):
        return matches
    turn = matches.image.angle - matches.query.angle
    octaves = matches.image.octave - matches.query.octave
    agree = (_angle_gap(turn[:, None] - turn) < ANGLE_TOLERANCE) & (
        np.abs(octaves[:, None] - octaves) < OCTAVE_TOLERANCE
    )
    return matches.take(np.flatnonzero(agree[agree.sum(axis=1).argmax()]))


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
    inside = _consistent(matches, homography)
    places = np.rint(matches.image.points * (SAME_PLACE / matches.image.extent))
    _, first = np.unique(places[inside], axis=0, return_index=True)
    rows = np.flatnonzero(inside)[first]
    points = np.hstack([matches.query.points[rows], matches.image.points[rows]])
    return Verified(len(rows), homography, points)


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


def _consistent(matches: Matches, homography: Homography) -> npt.NDArray[np.bool_]:
    """(n,) whether the homography takes each keypoint's place, turn and scale to its match's."""
    points = matches.query.points
    weight = points @ homography[2, :2] + homography[2, 2]
    safe = np.where(np.abs(weight) < 1e-9, 1e-9, weight)
    placed = (points @ homography[:2, :2].T + homography[:2, 2]) / safe[:, None]
    near = np.linalg.norm(placed - matches.image.points, axis=1) < _reach(matches)
    jacobian = (homography[:2, :2] - placed[:, :, None] * homography[2, :2]) / safe[:, None, None]
    area = np.linalg.det(jacobian)
    octaves = 0.5 * np.log2(np.maximum(area, 1e-12))
    scaled = np.abs(matches.query.octave + octaves - matches.image.octave) < OCTAVE_TOLERANCE
    heading = np.deg2rad(matches.query.angle)
    moved = np.einsum("nij,nj->ni", jacobian, np.stack([np.cos(heading), np.sin(heading)], axis=1))
    turned = np.rad2deg(np.arctan2(moved[:, 1], moved[:, 0]))
    aligned = _angle_gap(turned - matches.image.angle) < ANGLE_TOLERANCE
    bare = matches.image.octave == NO_OCTAVE
    # A negative area is a reflection, which a mirrored query is searched for on its own.
    possible = (area > LARGEST_SCALE**-2) & (area < LARGEST_SCALE**2)
    ahead = weight * np.median(weight) > 0
    result: npt.NDArray[np.bool_] = near & (bare | scaled & aligned) & possible & ahead
    return result


def _angle_gap(degrees: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.abs((degrees + 180) % 360 - 180)
