"""XFeat: a small network that detects keypoints and describes them by 64 values.

Potje et al., "XFeat: Accelerated Features for Lightweight Image Matching", 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from models.descriptors.base import load_weights
from models.descriptors.detecting import STRONGEST, DetectingDescriptor
from models.descriptors.selection import Floats
from models.types import Pixels
from models.weights import UrlWeights, Weights

URL = "https://github.com/verlab/accelerated_features/raw/main/weights/xfeat.pt"
STEP = 32
"""The network rounds each side of a picture down to a multiple of this number, or up to it."""
PLAIN = 1.0
"""Spread of grey values below which a picture is plain. The network scales every picture to equal
spread, and would describe the rounding of grey values."""


class XFeat(DetectingDescriptor):
    width: ClassVar[int] = 64

    def weights(self, path: str | None) -> Sequence[Weights]:
        return (UrlWeights("xfeat", URL, None, path),)

    def load(self, files: Mapping[str, Path]) -> None:
        from kornia.feature import XFeat as Network

        network = Network(top_k=STRONGEST)
        load_weights(network.net, files["xfeat"])
        self._network = network.eval()

    def run(self, gray: Pixels) -> tuple[Floats, Floats, Floats]:
        if gray.std() < PLAIN:
            none = np.empty((0, self.width), np.float32)
            return none[:, :2], none[:, 0], none
        import torch

        picture = torch.from_numpy(np.divide(gray, 255, dtype=np.float32))
        found = self._network.detectAndCompute(picture[None, None])[0]
        points = found["keypoints"].numpy()
        # kornia scales the numbers of pixels; their centres lie half a pixel after them.
        sides = np.array(gray.shape[::-1], np.float32)
        points = points + (sides / np.maximum(sides // STEP * STEP, STEP) - 1) / 2
        return points, found["scores"].numpy(), found["descriptors"].numpy()
