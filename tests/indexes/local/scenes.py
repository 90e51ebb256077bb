"""Drawn scenes with enough texture for keypoints, and their local features."""

from __future__ import annotations

import cv2
import numpy as np

from models.extractors.local import LOCAL_DTYPE, Local, LocalOptions
from models.types import Features, Pixels

EXTRACTOR = Local(LocalOptions())


def scene(seed: int, height: int = 300, width: int = 400) -> Pixels:
    """Draw overlapping shapes of many sizes on soft noise: grey uint8 (height, width)."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(60, 200, (height // 8 + 1, width // 8 + 1), dtype=np.uint8)
    picture = np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))
    for _ in range(140):
        centre = rng.integers(0, [width, height])
        size = int(rng.integers(4, 40))
        corners = centre + rng.integers(-size, size, (int(rng.integers(3, 6)), 2))
        cv2.fillPoly(picture, [corners.astype(np.int32)], int(rng.integers(0, 256)))
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.8), np.uint8)


def stored(pixels: Pixels) -> Features:
    return EXTRACTOR.extract(pixels)


def asked(pixels: Pixels, *, mirror: bool = True) -> list[Features]:
    return EXTRACTOR.extract_variants(pixels, "mirror" if mirror else "identity")


def random_features(seed: int, count: int) -> Features:
    """Return random keypoints whose descriptors resemble no others."""
    rng = np.random.default_rng(seed)
    features = np.empty(count, LOCAL_DTYPE)
    features["x"], features["y"] = rng.uniform(0, 500, (2, count))
    features["scale"] = rng.uniform(2, 40, count)
    features["angle"] = rng.uniform(0, 360, count)
    raw = rng.gamma(0.5, size=(count, 128))
    raw = np.sqrt(raw / raw.sum(axis=1, keepdims=True))
    features["descriptor"] = np.rint(raw * 512).clip(0, 255)
    return features


def jittered(features: Features, seed: int) -> Features:
    """Return the same keypoints with slightly changed descriptors."""
    rng = np.random.default_rng(seed)
    copy = features.copy()
    shifted = features["descriptor"] + rng.normal(0, 4, features["descriptor"].shape)
    copy["descriptor"] = np.rint(shifted).clip(0, 255)
    return copy
