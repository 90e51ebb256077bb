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
def _angle_gap(one, other):  # type: ignore[no-untyped-def]
    """Angle between two directions in degrees, 0 to 180."""
    return abs((one - other + 180) % 360 - 180)
