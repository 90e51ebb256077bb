"""LightGlue for RootSIFT: a network that matches the keypoints of two pictures.

Lindenberger et al., "LightGlue: Local Feature Matching at Light Speed", 2023.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from models.descriptors.base import load_weights
from models.descriptors.rootsift import RootSift
from models.errors import RetrieverUnavailable
from models.neural import device_of
from models.types import Features, Options
from models.weights import UrlWeights, Weights, locate

URL = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/sift_lightglue.pth"
CONSTANTS = frozenset({"confidence_thresholds"})
"""A function of the number of layers; kornia computes it."""
RETRY_SECONDS = 60.0
FEWEST = 4
"""Keypoints below which there is nothing to match; a homography takes as many."""

Pairs = npt.NDArray[np.intp]
"""Pairs (m, 2): rows of the one picture and of the other."""


class LightGlueOptions(Options):
    weights: str | None = None
    """Path of a file of weights that replaces the published one."""
    device: str = "auto"
    """Device: `cpu`, `cuda` or `cuda:1`; `auto` takes CUDA where it is available."""
    candidates: int = Field(4, ge=1, le=32)
    """Images per search that are matched by it, at most."""


class LightGlue:
    """Loads in a thread of its own, so that no search waits for it."""

    def __init__(self, options: LightGlueOptions) -> None:
        self.options = options
        self.reason: str | None = "loading"
        """Why it does not match; None once it does."""
        self._network: Any = None
        self._lock = threading.Lock()
        self._loading: threading.Thread | None = None

    @staticmethod
    def weights(options: LightGlueOptions) -> Sequence[Weights]:
        return (UrlWeights("lightglue", URL, None, options.weights),)

    @staticmethod
    def suits(dtype: np.dtype[Any]) -> bool:
        """Whether it was trained on keypoints of this dtype: on RootSIFT."""
        return dtype["descriptor"] == np.dtype((RootSift.dtype, (RootSift.width,)))

    def start(self) -> None:
        """Begin to load, once; what fails is tried again every minute."""
        with self._lock:
            if self._loading is None:
                self._loading = threading.Thread(
                    target=self._load_until_it_works, name="lightglue", daemon=True
                )
                self._loading.start()

    def load(self) -> None:
        """Find, fetch and build the network. Raises RetrieverUnavailable with the reason."""
        (weights,) = self.weights(self.options)
        path = locate(weights, fetch=True).path
        try:
            # Without the name of a feature, kornia fetches nothing by itself.
            from kornia.feature import LightGlue as Network

            none: Any = None
            network = Network(none, input_dim=RootSift.width, add_scale_ori=True)
            load_weights(network, path, CONSTANTS, _kornia_name)
            self._device = device_of(self.options.device)
            self._network = network.to(self._device)
        except ImportError as exc:
            raise RetrieverUnavailable(
                f"{exc.name} is not installed: install ambience[neural]"
            ) from exc
        self.reason = None

    def match(self, query: Features, image: Features) -> Pairs:
        """Rows of both that show the same point, each at most once.

        `query` (n,) and `image` (m,) are features of `local` with RootSIFT descriptors.
        """
        if min(len(query), len(image)) < FEWEST:
            return np.empty((0, 2), np.intp)
        import torch

        with torch.inference_mode():
            given = {"image0": self._input(query), "image1": self._input(image)}
            (pairs,) = self._network(given)["matches"]
            return np.asarray(pairs.cpu().numpy(), np.intp)

    def _input(self, features: Features) -> dict[str, Any]:
        import torch

        return {
            name: torch.from_numpy(values)[None].to(self._device)
            for name, values in network_input(features).items()
        }

    def _load_until_it_works(self) -> None:
        while True:
            try:
                self.load()
            except RetrieverUnavailable as exc:
                self.reason = str(exc)
                time.sleep(RETRY_SECONDS)
            else:
                return


def network_input(features: Features) -> dict[str, npt.NDArray[np.float32]]:
    """What the network takes of one picture, float32: it was trained on keypoints of COLMAP.

    `keypoints` (n, 2) are pixels from the corner of the box that they span, whose size is
    `image_size` (2,): stored rows do not keep the picture's, and the network compares relative
    places. `scales` (n,) are sigmas, half of our diameters; `oris` (n,) are radians in (-π, π],
    clockwise; `descriptors` (n, 128) are of unit length in OpenCV's layout, as ours are.
    """
    points = np.column_stack([features["x"], features["y"]])
    corner = points.min(axis=0)
    descriptors = features["descriptor"].astype(np.float32)
    lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
    made = {
        "keypoints": points - corner,
        "image_size": np.maximum(points.max(axis=0) - corner, 1),
        "scales": features["scale"] / 2,
        "oris": np.pi - np.deg2rad((180 - features["angle"]) % 360),
        "descriptors": descriptors / np.maximum(lengths, 1e-9),
    }
    return {name: np.asarray(values, np.float32) for name, values in made.items()}


@cache
def shared(options: LightGlueOptions) -> LightGlue:
    """The one of this process with these options: an index that replaces another shares it."""
    return LightGlue(options)


def _kornia_name(name: str) -> str:
    """The name that kornia gives a tensor of the published file."""
    return re.sub(r"^(self|cross)_attn\.(\d+)", r"transformers.\2.\1_attn", name)
