"""One of two pictures to compare, at several scales, and what kind of picture it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from indexes.relation.alignment import Floats
from models.types import Pixels

STRIDE = 4
"""Pixels from one window to the next."""
WINDOW = 3 * STRIDE
"""Side, in pixels, of the windows that are compared."""
SCALES = 96
"""Number of scales up to 1 to which pictures are reduced."""
BLUR = 0.9
"""Blur, in pixels, that evens out noise, blocks and moiré."""
SMOOTH = 5.0
"""Spread of the steepest window of a picture without edges."""
PHOTO_LEVELS, DRAWN_LEVELS = 0.20, 0.31
"""Share of the pixels with one of the three commonest grey values, up to which a picture is a
photograph, and from which it is drawn."""
FULL_RANGE = 100.0
"""Range of grey values below which a picture has few because it is dark or pale."""
DRAWN_LONG = 400
"""Long side, in pixels, at which the kind of a picture is decided."""


@dataclass(frozen=True)
class Scaled:
    """A picture at one scale, smoothed."""

    pixels: Pixels

    @cached_property
    def values(self) -> Floats:
        return self.pixels.astype(np.float32)

    @cached_property
    def mean(self) -> Floats:
        """Mean in each window."""
        return window_means(self.values)

    @cached_property
    def spread(self) -> Floats:
        """Standard deviation in each window."""
        variance = window_means(self.values * self.values) - self.mean**2
        return np.asarray(np.sqrt(np.maximum(variance, 0)), np.float32)


@dataclass(frozen=True)
class Side:
    """One picture to compare."""

    rgb: Pixels
    """(height, width, 3), or grey (height, width)."""
    _scaled: dict[float, Scaled] = field(default_factory=dict)

    def scaled(self, factor: float) -> Scaled:
        """The picture at this scale; kept, because one query is compared with many images."""
        if factor not in self._scaled:
            self._scaled[factor] = Scaled(_smooth(_shrunk(self.gray, factor)))
        return self._scaled[factor]

    @cached_property
    def gray(self) -> Pixels:
        if self.rgb.ndim == 2:
            return self.rgb
        return np.asarray(cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY), np.uint8)

    @cached_property
    def is_smooth(self) -> bool:
        """Whether the picture has hardly any edges: one colour, or a gradient."""
        if min(self.shape) < WINDOW:
            return float(self.gray.std()) < SMOOTH
        factor = quantised(min(1.0, DRAWN_LONG / max(self.shape)))
        return float((self.scaled(factor).spread > SMOOTH).mean()) < 0.004

    @cached_property
    def plain(self) -> float:
        """How much the picture is drawn rather than photographed, 0 to 1: whether few grey values
        fill it."""
        gray = self.scaled(quantised(min(1.0, DRAWN_LONG / max(self.shape)))).pixels
        counts = np.bincount(gray.ravel(), minlength=256) / gray.size
        dark, light = np.searchsorted(counts.cumsum(), (0.02, 0.98))
        common = 0.0
        for _ in range(3):
            peak = int(counts.argmax())
            near = slice(max(0, peak - 1), peak + 2)
            common += float(counts[near].sum())
            counts[near] = 0
        common *= min(1.0, float(light - dark) / FULL_RANGE)
        return min(1.0, max(0.0, (common - PHOTO_LEVELS) / (DRAWN_LEVELS - PHOTO_LEVELS)))

    @property
    def shape(self) -> tuple[int, int]:
        return self.gray.shape[0], self.gray.shape[1]


def quantised(factor: float) -> float:
    """The nearest of 96 scales up to 1, so that scaled pictures can be kept."""
    return max(1.0, round(factor * SCALES)) / SCALES


def _shrunk(gray: Pixels, factor: float) -> Pixels:
    if 0.98 < factor <= 1:
        return gray
    size = [max(1, round(side * factor)) for side in gray.shape[::-1]]
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(gray, size, interpolation=how), np.uint8)


def block_means(values: npt.NDArray[Any]) -> Floats:
    """Means of blocks of STRIDE by STRIDE pixels; rows and columns beyond whole blocks are left
    out."""
    rows, columns = (side // STRIDE for side in values.shape)
    whole = values[: rows * STRIDE, : columns * STRIDE]
    # Twice by 2, for which OpenCV has vector code.
    half = cv2.resize(whole, (columns * 2, rows * 2), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(half, (columns, rows), interpolation=cv2.INTER_AREA), np.float32)


def window_means(values: Floats) -> Floats:
    """Means in windows of 3 by 3 blocks."""
    mean = cv2.blur(block_means(values), (3, 3), borderType=cv2.BORDER_REFLECT)
    return np.asarray(mean, np.float32)


def _smooth(gray: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(gray, (5, 5), BLUR), np.uint8)
