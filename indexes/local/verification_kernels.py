"""Numba kernels of geometric verification: which matches agree, and which follow a homography.

They release the GIL and run on one core; see `indexes.arrays.kernels` for how they are compiled and
cached.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ANGLE_TOLERANCE = 25.0
"""Tolerance of rotations, in degrees."""
OCTAVE_TOLERANCE = 0.7
LARGEST_SCALE = 32.0
APART = 3.0
"""Least distance, in reaches of an inlier, of two matches that fix a transform."""
NO_OCTAVE = -20.0
"""The octave of a keypoint of scale 0, which has neither scale nor angle."""


@njit(nogil=True, cache=True)
def largest_agreement(turns, octaves):  # type: ignore[no-untyped-def]
    """The matches that agree in rotation and scale with the match with which most agree: bool (n,).

    `turns` (degrees) and `octaves` are float64 (n,).
    """
    most, centre = 0, 0
    for one in range(len(turns)):
        count = _agreeing(turns, octaves, one).sum()
        if count > most:
            most, centre = count, one
    return _agreeing(turns, octaves, centre)


@njit(nogil=True, cache=True)
def _agreeing(turns, octaves, centre):  # type: ignore[no-untyped-def]
    agree = np.zeros(len(turns), np.bool_)
    for other in range(len(turns)):
        agree[other] = (
            _angle_gap(turns[centre], turns[other]) < ANGLE_TOLERANCE
            and abs(octaves[centre] - octaves[other]) < OCTAVE_TOLERANCE
        )
    return agree


@njit(nogil=True, cache=True)
def consistent(homography, points, octaves, angles, to_points, to_octaves, to_angles, reach):  # type: ignore[no-untyped-def]
    """Whether a homography maps each keypoint's position, angle and scale to its match's: bool
    (n,).

    `homography` (3, 3), positions (n, 2), octaves (n,) and angles (n,), in degrees, are float64. A
    position may be off by `reach`. Keypoints without a scale are judged by their position alone.
    """
    h = homography
    weights = np.empty(len(points))
    for row in range(len(points)):
        weights[row] = h[2, 0] * points[row, 0] + h[2, 1] * points[row, 1] + h[2, 2]
    ahead = np.median(weights)
    result = np.zeros(len(points), np.bool_)
    for row in range(len(points)):
        x, y, weight = points[row, 0], points[row, 1], weights[row]
        if weight * ahead <= 0 or abs(weight) < 1e-9:
            continue
        across = (h[0, 0] * x + h[0, 1] * y + h[0, 2]) / weight
        down = (h[1, 0] * x + h[1, 1] * y + h[1, 2]) / weight
        if np.hypot(across - to_points[row, 0], down - to_points[row, 1]) >= reach:
            continue
        # The homography's Jacobian at this point.
        a, b = (h[0, 0] - across * h[2, 0]) / weight, (h[0, 1] - across * h[2, 1]) / weight
        c, d = (h[1, 0] - down * h[2, 0]) / weight, (h[1, 1] - down * h[2, 1]) / weight
        area = a * d - b * c
        # A negative area is a reflection; mirrored queries are searched for separately.
        if area <= LARGEST_SCALE**-2 or area >= LARGEST_SCALE**2:
            continue
        if to_octaves[row] != NO_OCTAVE:
            cosine, sine = np.cos(np.deg2rad(angles[row])), np.sin(np.deg2rad(angles[row]))
            turned = np.rad2deg(np.arctan2(c * cosine + d * sine, a * cosine + b * sine))
            octave = octaves[row] + 0.5 * np.log2(area)
            if (
                abs(octave - to_octaves[row]) >= OCTAVE_TOLERANCE
                or _angle_gap(turned, to_angles[row]) >= ANGLE_TOLERANCE
            ):
                continue
        result[row] = True
    return result


@njit(nogil=True, cache=True)
def largest_similarity(points, octaves, angles, to_points, to_octaves, to_angles, reach):  # type: ignore[no-untyped-def]
    """The matches that follow the similarity transform, of all that two matches fix, that most
    follow: bool (n,).

    Arrays are as in `consistent`. Each match must turn and scale its keypoint as the transform
    does, so hardly three follow one by chance.
    """
    turns, zooms = to_angles - angles, to_octaves - octaves
    best = np.zeros(len(points), np.bool_)
    most = 2
    for one in range(len(points)):
        for other in range(one):
            # Most pairs differ by themselves; this is cheaper than their transform.
            if (
                abs(zooms[one] - zooms[other]) > 2 * OCTAVE_TOLERANCE
                or _angle_gap(turns[one], turns[other]) > 2 * ANGLE_TOLERANCE
            ):
                continue
            across = points[one, 0] - points[other, 0]
            down = points[one, 1] - points[other, 1]
            to_across = to_points[one, 0] - to_points[other, 0]
            to_down = to_points[one, 1] - to_points[other, 1]
            size = max(across**2 + down**2, 1e-9)
            to_size = to_across**2 + to_down**2
            if not (APART * reach) ** 2 < to_size < size * LARGEST_SCALE**2:
                continue
            a = (to_across * across + to_down * down) / size
            b = (to_down * across - to_across * down) / size
            turn, octave = np.rad2deg(np.arctan2(b, a)), 0.5 * np.log2(to_size / size)
            agree = _turned(turns, zooms, to_octaves, turn, octave, one)
            if not (agree and _turned(turns, zooms, to_octaves, turn, octave, other)):
                continue
            follows = np.zeros(len(points), np.bool_)
            count = 0
            for row in range(len(points)):
                x, y = points[row, 0] - points[other, 0], points[row, 1] - points[other, 1]
                off = np.hypot(
                    a * x - b * y + to_points[other, 0] - to_points[row, 0],
                    b * x + a * y + to_points[other, 1] - to_points[row, 1],
                )
                if off < reach:
                    follows[row] = _turned(turns, zooms, to_octaves, turn, octave, row)
                    count += follows[row]
            if count > most:
                most, best = count, follows
    return best


@njit(nogil=True, cache=True)
def _turned(turns, zooms, to_octaves, turn, octave, row):  # type: ignore[no-untyped-def]
    """Whether a match turns its keypoint by `turn` degrees and scales it by `octave` octaves."""
    if to_octaves[row] == NO_OCTAVE:
        return True
    zoomed = abs(zooms[row] - octave) < OCTAVE_TOLERANCE
    return zoomed and _angle_gap(turns[row], turn) < ANGLE_TOLERANCE


@njit(nogil=True, cache=True)
def _angle_gap(one, other):  # type: ignore[no-untyped-def]
    """Angle between two directions in degrees, 0 to 180."""
    return abs((one - other + 180) % 360 - 180)
