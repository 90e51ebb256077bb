"""RootSIFT at DoG keypoints; it needs no weights.

Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004; Arandjelović & Zisserman,
"Three things everyone should know to improve object retrieval", 2012.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from models.descriptors.base import Described, Descriptor, Quantised
from models.descriptors.keypoints import Sift, compile_kernels
from models.descriptors.selection import Selection
from models.types import Pixels

DESCRIPTOR_SCALE = 512
"""Factor by which a unit descriptor is multiplied before it is rounded to uint8. No value of a unit
descriptor reaches 0.5."""
_MIRRORED_BINS = [0, 7, 6, 5, 4, 3, 2, 1]


class RootSift(Descriptor):
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.uint8)

    def load(self, files: Mapping[str, Path]) -> None:  # noqa: ARG002
        compile_kernels()

    def describe(self, gray: Pixels, sides: tuple[int, int], selection: Selection) -> Described:
        sift = Sift(gray, sides, selection)
        return Described(sift.keypoints, rootsift(sift.describe()))

    def mirrored(self, descriptors: Quantised) -> Quantised:
        """The mirrored descriptors, exact, by a permutation of values.

        SIFT's 4×4 cells are aligned with the keypoint's own axis. Mirroring reverses the rows of
        cells on both sides of that axis, and the direction of the 8 orientations in each cell.
        """
        cells = descriptors.reshape(-1, 4, 4, 8)
        return cells[:, ::-1][..., _MIRRORED_BINS].reshape(-1, 128)


def rootsift(sift: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """RootSIFT of SIFT descriptors (n, 128) float32, as (n, 128) uint8 of length DESCRIPTOR_SCALE.

    RootSIFT is the square root of the L1-normalised vector: the Euclidean distance of roots is the
    Hellinger distance.
    """
    total = np.maximum(sift.sum(axis=1, keepdims=True), 1e-9)
    quantised = np.rint(np.sqrt(sift / total) * DESCRIPTOR_SCALE)
    return np.asarray(np.minimum(quantised, 255), np.uint8)
