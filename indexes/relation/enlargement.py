"""Whether a picture was only enlarged: whether a smaller one explains all that it shows."""

from __future__ import annotations

import cv2
import numpy as np

from models.types import Pixels

MOST_SCALE = 0.85
"""Scale above which too little lies between both sizes to tell."""
LEAST_SIDE = 16
"""Shorter side, in pixels, of the smaller picture below which nothing is told."""
STEPS, RATE = 6, 1.5
"""Steps of back-projection, and the share of the error that each takes back."""
EXPLAINED = 0.62
"""Share of the error of plain reduction that remains below which a picture was enlarged. Of
enlarged photographs 0.2 to 0.6 remains, of others 0.65 to 1."""


def is_enlarged(gray: Pixels, scale: float) -> bool:
    """Whether a picture is one of `scale` times its width and height that was enlarged.

    `gray` is (height, width) uint8. The smaller picture is sought whose enlargement, smooth or by
    repeated pixels, is nearest to it (iterative back-projection, Irani and Peleg 1991). False where
    it can't be told: for scales above MOST_SCALE, and for very small pictures.
    """
    size = round(gray.shape[1] * scale), round(gray.shape[0] * scale)
    if scale > MOST_SCALE or min(size) < LEAST_SIDE:
        return False
    whole = gray.astype(np.float32)
    reduced = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
    plain = _error(whole, reduced, cv2.INTER_LINEAR)
    return any(
        _remaining(whole, reduced, how) <= EXPLAINED * plain
        for how in (cv2.INTER_LINEAR, cv2.INTER_NEAREST_EXACT)
    )


def _remaining(whole: cv2.typing.MatLike, reduced: cv2.typing.MatLike, how: int) -> float:
    """The error of the best smaller picture."""
    height, width = whole.shape
    small = reduced
    for _ in range(STEPS):
        missing = whole - cv2.resize(small, (width, height), interpolation=how)
        size = reduced.shape[1], reduced.shape[0]
        small = small + RATE * cv2.resize(missing, size, interpolation=cv2.INTER_AREA)
    return _error(whole, small, how)


def _error(whole: cv2.typing.MatLike, small: cv2.typing.MatLike, how: int) -> float:
    height, width = whole.shape
    return float(cv2.norm(whole, cv2.resize(small, (width, height), interpolation=how)))
