"""ALIKED: one network detects keypoints and describes them.

Zhao et al., "ALIKED: A Lighter Keypoint and Descriptor Extraction Network via Deformable
Transformation", 2023. The grey picture is used for all three colour channels.
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

MODEL = "aliked-n16"
URL = (
    "https://github.com/Shiaoming/ALIKED/raw/"
    "683d7c65197395c0b3f01ebe76e1084a27e73a65/models/aliked-n16.pth"
)
SHA256 = "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2"
CONSTANTS = frozenset({"dkd.hw_grid"})
"""The detector's grid of offsets. kornia creates it, so published files do not contain it."""


class Aliked(DetectingDescriptor):
    floor: ClassVar[float] = 0.05
    """Scores in blank pictures reach 0.02."""

    def weights(self, path: str | None) -> Sequence[Weights]:
        return (UrlWeights("aliked", URL, SHA256, path),)

    def load(self, files: Mapping[str, Path]) -> None:
        from kornia.feature import ALIKED

        network = ALIKED(MODEL, max_num_keypoints=STRONGEST, detection_threshold=0)
        load_weights(network, files["aliked"], CONSTANTS)
        self._network = network

    def run(self, gray: Pixels) -> tuple[Floats, Floats, Floats]:
        import torch

        picture = torch.from_numpy(np.divide(gray, 255, dtype=np.float32))
        with torch.inference_mode():
            found = self._network(picture[None, None])[0]
        return found.keypoints.numpy(), found.keypoint_scores.numpy(), found.descriptors.numpy()
