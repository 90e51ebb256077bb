"""HardNet8 descriptors at DoG keypoints: a network replaces SIFT's histograms.

Pultar, "Improving the HardNet Descriptor", 2020; Mishchuk et al., "Working hard to know your
neighbor's margins", 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from models.descriptors.base import Described, Descriptor, load_weights, quantise
from models.descriptors.keypoints import Sift, compile_kernels
from models.descriptors.selection import Floats, Selection
from models.types import Pixels
from models.weights import UrlWeights, Weights

URL = "https://huggingface.co/kornia/hardnet/resolve/main/hardnet8v2.pt"
PATCH = 32
MEASURED = 6.0
"""Half the side of the patch in units of the keypoint's diameter: 12 sigma, as HardNet is used
on DoG keypoints (Jin et al., "Image Matching across Wide Baselines", 2020, and kornia's
DoGHardNet)."""


class HardNet8(Descriptor):
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.int8)

    def weights(self, path: str | None) -> Sequence[Weights]:
        return (UrlWeights("hardnet8", URL, None, path),)

    def load(self, files: Mapping[str, Path]) -> None:
        import torch
        from kornia.feature import HardNet8 as Network

        # Built on the meta device, because creating the initial orthogonal weights takes
        # seconds.
        with torch.device("meta"):
            network = Network(pretrained=False).to_empty(device="cpu")
        load_weights(network, files["hardnet8"])
        self._network = network
        compile_kernels()

    def describe(self, gray: Pixels, sides: tuple[int, int], selection: Selection) -> Described:
        sift = Sift(gray, sides, selection)
        return Described(sift.keypoints, quantise(self.run(sift.gray, sift.frames())))

    def run(self, gray: Pixels, frames: Floats) -> Floats:
        """Unit descriptors (n, 128) float32 of frames (n, 4): x, y, diameter in pixels, angle in
        degrees."""
        if not len(frames):
            return np.empty((0, self.width), np.float32)
        import torch
        from kornia.feature import extract_patches_from_pyramid, laf_from_center_scale_ori

        with torch.inference_mode():
            x, y, diameter, angle = torch.from_numpy(frames).T
            # kornia's angles are counter-clockwise on the screen, OpenCV's are
            # clockwise.
            lafs = laf_from_center_scale_ori(
                torch.stack([x, y], dim=1)[None],
                (MEASURED * diameter)[None, :, None, None],
                -angle[None, :, None],
            )
            picture = torch.from_numpy(np.divide(gray, 255, dtype=np.float32))
            patches = extract_patches_from_pyramid(picture[None, None], lafs, PATCH)[0]
            described: Floats = self._network(patches).numpy()
        return described
