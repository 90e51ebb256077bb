"""Networks that detect keypoints and describe them in one pass."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from models.descriptors.base import Described, Descriptor, quantise
from models.descriptors.keypoints import Keypoints, resized
from models.descriptors.selection import Floats, Selection
from models.types import Pixels

STRONGEST = 1600
"""Maximum number of a network's keypoints among which the even selection chooses."""


class DetectingDescriptor(Descriptor):
    """Base class of networks whose keypoints have neither scale nor angle; both are 0, which the
    index treats as unknown."""

    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.int8)
    floor: ClassVar[float] = 0.0
    """Scores up to this one are of blank places."""

    def describe(self, gray: Pixels, sides: tuple[int, int], selection: Selection) -> Described:
        small, factor = resized(gray, sides)
        points, score, descriptors = self.run(small)
        points = (points + np.float32(0.5)) / np.float32(factor) - np.float32(0.5)
        strong = np.flatnonzero(score > self.floor)
        order = strong[np.lexsort((points[strong, 1], points[strong, 0], -score[strong]))]
        chosen = order[selection.rows(points[order], gray.shape)]
        unknown = np.zeros(len(chosen), np.float32)
        keypoints = Keypoints(points[chosen], unknown, unknown)
        return Described(keypoints, quantise(descriptors[chosen]))

    @abstractmethod
    def run(self, gray: Pixels) -> tuple[Floats, Floats, Floats]:
        """Points (n, 2) in pixels, scores (n,) and unit descriptors (n, width), all float32."""
