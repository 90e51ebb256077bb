"""One of two pictures to compare, at several scales, and what kind of picture it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from indexes.relation.alignment import THUMB, Box, Floats, content_box, thumb
from indexes.relation.kernels import WINDOW, has_edges, histogram
from models.types import Pixels

SCALES = 96
"""Number of scales up to 1 to which pictures are reduced."""
BLUR = 0.9
"""Blur, in pixels, that evens out noise, blocks and moiré."""
SMOOTH = 5.0
"""Spread of the steepest windows of a picture without edges, where no edge is."""
EDGES = 0.004
"""Share of steeper windows up to which there are no edges."""
PHOTO_LEVELS, DRAWN_LEVELS = 0.20, 0.31
"""Share of the pixels with one of the three commonest grey values, up to which a picture is a
photograph, and from which it is drawn."""
FULL_RANGE = 100.0
"""Range of grey values below which a picture has few because it is dark or pale."""
DRAWN_LONG = 400
"""Largest long side, in pixels, at which the kind of a picture is decided."""
MOSAIC = 16
"""Side, in pixels, to which pictures without edges are reduced."""


@dataclass(frozen=True, eq=False)
class Side:
    """One picture to compare; what is derived from it is kept."""

    gray: Pixels
    """Luma (height, width)."""
    _rgb: Callable[[], Pixels]
    """RGB (height, width, 3), which only pictures without edges need."""
    _levels: list[Pixels] = field(default_factory=list)
    _scaled: dict[float, Pixels] = field(default_factory=dict)

    @classmethod
    def of(cls, rgb: Pixels) -> Side:
        """A picture by its pixels, (height, width, 3)."""
        return cls(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), lambda: rgb)

    @classmethod
    def read(cls, jpeg: bytes) -> Side | None:
        """A picture by its JPEG file; None if that is damaged."""
        data = np.frombuffer(jpeg, np.uint8)
        gray = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        if gray is None:
            return None
        return cls(
            np.asarray(gray, np.uint8),
            lambda: np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8),
        )

    @property
    def shape(self) -> tuple[int, int]:
        return self.gray.shape[0], self.gray.shape[1]

    @property
    def rgb(self) -> Pixels:
        """RGB (height, width, 3)."""
        return self._rgb()

    def level(self, number: int) -> Pixels:
        """The grey picture, halved so many times."""
        if not self._levels:
            self._levels.append(self.gray)
        while len(self._levels) <= number:
            self._levels.append(_halved(self._levels[-1]))
        return self._levels[number]

    def scaled(self, factor: float) -> Pixels:
        """The grey picture at this scale, smoothed."""
        if factor not in self._scaled:
            self._scaled[factor] = smoothed(self._resized(factor))
        return self._scaled[factor]

    def _resized(self, factor: float) -> Pixels:
        if factor == 1:
            return self.gray
        height, width = (max(1, round(side * factor)) for side in self.shape)
        how = cv2.INTER_LINEAR if factor < 1 else cv2.INTER_CUBIC
        pixels = self.level(level_of(factor))
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=how), np.uint8)

    @cached_property
    def box(self) -> Box:
        """The box without plain borders."""
        return content_box(self.gray)

    @cached_property
    def thumb(self) -> Floats:
        """The whole picture as `alignment.thumb` reduces it."""
        small = self.level(max(0, int(np.log2(max(1, min(self.shape)) / (2 * THUMB)))))
        return thumb(small, (0, 0, small.shape[1], small.shape[0]))

    @cached_property
    def mosaic(self) -> Pixels:
        """RGB (MOSAIC, MOSAIC, 3)."""
        small = cv2.resize(self._rgb(), (MOSAIC, MOSAIC), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)

    @cached_property
    def _small(self) -> Pixels:
        return self.level(max(0, int(np.ceil(np.log2(max(self.shape) / DRAWN_LONG)))))

    @cached_property
    def is_smooth(self) -> bool:
        """Whether the picture has hardly any edges: one colour, or a gradient."""
        if min(self._small.shape) < WINDOW:
            return float(self.gray.std()) < SMOOTH
        return not has_edges(self._small, SMOOTH, EDGES)

    @cached_property
    def plain(self) -> float:
        """How much the picture is drawn rather than photographed, 0 to 1: whether few grey values
        fill it."""
        counts = histogram(self._small) / self._small.size
        dark, light = np.searchsorted(counts.cumsum(), (0.02, 0.98))
        common = 0.0
        for _ in range(3):
            peak = int(counts.argmax())
            near = slice(max(0, peak - 1), peak + 2)
            common += float(counts[near].sum())
            counts[near] = 0
        common *= min(1.0, float(light - dark) / FULL_RANGE)
        return min(1.0, max(0.0, (common - PHOTO_LEVELS) / (DRAWN_LEVELS - PHOTO_LEVELS)))


def quantised(factor: float) -> float:
    """The nearest of 96 scales up to 1, so that scaled pictures can be kept."""
    return max(1.0, round(factor * SCALES)) / SCALES


def level_of(factor: float) -> int:
    """How often a picture is halved before it is brought to this scale."""
    return max(0, int(np.floor(np.log2(1.04 / factor))))


def smoothed(gray: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(gray, (5, 5), BLUR), np.uint8)


def _halved(gray: Pixels) -> Pixels:
    height, width = (max(1, side // 2) for side in gray.shape)
    whole = gray[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
