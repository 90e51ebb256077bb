"""Colour: a coarse RGB histogram, compared by L1 distance."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np

from models.base import Extractor
from models.types import Features, Pixels, Variants

TOTAL = 1e7
RECODED = 4
"""By how much, in values of a channel, a re-encode may shift a colour."""


class ColorHistogram(Extractor):
    """Histogram of 512 float32 that sum to 1e7, over 8x8x8 equal cells of RGB; blue varies fastest.

    Swain and Ballard, "Color Indexing" (1991).
    """

    view = "full"
    place = "ingress"
    index = "histogram"
    dtype = np.dtype(np.float32)
    shape = (512,)

    def mirrored(self, features: Features) -> Features:
        """The same features: no flip or rotation changes a histogram."""
        return features

    def _extract(self, pixels: Pixels) -> Features:
        return _histogram(pixels)

    def _variants(self, pixels: Pixels, variants: Variants) -> list[Features]:  # noqa: ARG002
        return [self.extract(pixels)]


def _histogram(pixels: Pixels) -> Features:
    red, green, blue = (np.asarray(plane, np.uint8) for plane in cv2.split(pixels))
    # Counting two axes of 64 and 8 bins is twice as fast as three axes of 8, with the
    # same result.
    red_green = (red & 0xE0) | ((green >> 3) & 0x1C)
    counts = cv2.calcHist([red_green, blue], [0, 1], None, [64, 8], [0, 256, 0, 256])
    height, width = pixels.shape[:2]
    return counts.ravel() * np.float32(TOTAL / (height * width))


def recoloured(pixels: Pixels) -> list[Features]:
    """Histograms (512,) float32 of a picture with channels brighter or darker by RECODED: those in
    which half of the pixels change their cells, each once.

    The edges of cells split colours that a re-encode shifts, and all of a plain picture with them.
    """
    given = _histogram(pixels)
    found: dict[bytes, Features] = {}
    for shift in product((-RECODED, 0, RECODED), repeat=3):
        shifted = np.clip(pixels + np.array(shift, np.int16), 0, 255).astype(np.uint8)
        histogram = _histogram(shifted)
        if np.abs(histogram - given).sum() >= TOTAL:
            found.setdefault(histogram.tobytes(), histogram)
    return list(found.values())


EXTRACTOR = ColorHistogram
