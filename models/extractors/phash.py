"""pHash: the signs of a picture's low frequencies, compared by Hamming distance."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.base import Extractor, dihedral
from models.types import Features, Pixels, Variants

_GRID = 96
_LOW = 24
_LOBES = 3
_ROUNDING = 150.0
"""Distance from the median that rounding to whole grey values makes; its standard deviation is
55."""
_MOST = 0.9
"""Share of meaningful bits from which a mask makes no difference."""


class PHash(Extractor):
    """Hash of 576 bits as 72 bytes, most significant bit first; near-copies differ in fewer than 64
    bits.

    The luma is reduced to 96x96 by Lanczos and transformed by DCT-II; a bit is set where one of the
    24x24 lowest frequencies exceeds their median. Zauner, "Implementation and Benchmarking of
    Perceptual Image Hash Functions" (2010), with a larger grid.

    A coefficient at the median up to rounding has a bit without meaning. Where a query has many of
    them, as drawings, patterns and gradients do, its variants are 144 bytes: the hash, then a mask
    with the bits that mean something.

    `mirrored` returns None: a stored hash with its odd columns negated differs from the hash of the
    mirrored picture by 10 bits in the median and up to 38, because the median of the frequencies is
    not 0.
    """

    view = "full"
    place = "ingress"
    index = "binary"
    dtype = np.dtype(np.uint8)
    shape = (_LOW * _LOW // 8,)

    def extract_variants(self, pixels: Pixels, variants: Variants) -> list[Features]:
        """The hash of each variant; with its mask, uint8 (144,), where many bits mean nothing."""
        # Flips and rotations commute with the reduction: 8 small transforms replace 8
        # extractions.
        count = {"identity": 1, "mirror": 2, "dihedral": 8}[variants]
        found = [_frequencies(grid) for grid in dihedral(_grid(pixels))[:count]]
        codes = [_hash(frequencies) for frequencies in found]
        masks = [_meaningful(frequencies) for frequencies in found]
        if masks[0].mean() >= _MOST:
            return codes
        return [
            np.concatenate([code, np.packbits(mask)])
            for code, mask in zip(codes, masks, strict=True)
        ]

    def _extract(self, pixels: Pixels) -> Features:
        return _hash(_frequencies(_grid(pixels)))


EXTRACTOR = PHash


def _grid(pixels: Pixels) -> Pixels:
    """Luma reduced to 96x96 uint8. It equals Pillow's Lanczos, including its rounding between the
    passes, and is 3 times as fast."""
    luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = luma.shape
    across = _rounded(_lanczos(width) @ cv2.transpose(luma).astype(np.float32))
    return _rounded(_lanczos(height) @ across.T.astype(np.float32))


def _rounded(values: npt.NDArray[np.float32]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@lru_cache(maxsize=128)
def _lanczos(length: int) -> Any:
    """Weights of the antialiased 3-lobed Lanczos filter as a sparse (96, length) float32 matrix."""
    from scipy import sparse

    scale = max(length / _GRID, 1.0)
    centre = (np.arange(_GRID)[:, None] + 0.5) * length / _GRID
    taps = np.arange(int(2 * _LOBES * scale) + 2)
    positions = np.floor(centre - _LOBES * scale + 0.5).astype(np.int64) + taps
    offset = (positions + 0.5 - centre) / scale
    weights = np.sinc(offset) * np.sinc(offset / _LOBES)
    weights[(abs(offset) >= _LOBES) | (positions < 0) | (positions >= length)] = 0
    weights /= weights.sum(1, keepdims=True)
    rows = np.broadcast_to(np.arange(_GRID)[:, None], positions.shape)
    kept = weights != 0
    return sparse.csr_array(
        (weights[kept].astype(np.float32), (rows[kept], positions[kept])), shape=(_GRID, length)
    )


def _frequencies(grid: Pixels) -> npt.NDArray[np.float64]:
    from scipy import fft  # Most processes that import this module compute no hash.

    low = fft.dct(fft.dct(grid.astype(np.float64), axis=0), axis=1)[:_LOW, :_LOW]
    return np.asarray(low, np.float64)


def _hash(frequencies: npt.NDArray[np.float64]) -> Features:
    return np.packbits(frequencies > np.median(frequencies))


def _meaningful(frequencies: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return abs(frequencies - np.median(frequencies)) > _ROUNDING


def turned_codes(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Stored hashes (n, 72) under all 8 flips and rotations of their pictures, (n, 8, 72).

    A flip negates the odd frequencies across or down, a transposition swaps both. A hash of the
    turned picture differs by 10 bits in the median, because the median of the frequencies is not 0.
    """
    bits = np.unpackbits(codes, axis=1).reshape(-1, _LOW, _LOW)
    odd = np.arange(_LOW, dtype=np.uint8) & 1
    found = [
        square ^ (odd[:, None] * down) ^ (odd * across)
        for square in (bits, bits.transpose(0, 2, 1))
        for down in (np.uint8(0), np.uint8(1))
        for across in (np.uint8(0), np.uint8(1))
    ]
    flat = np.stack(found, axis=1).reshape(len(codes), len(found), _LOW * _LOW)
    return np.packbits(flat, axis=2)
