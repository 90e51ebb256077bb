"""What a file says of its colours."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PROFILE = 4 << 20
"""Bytes of the largest ICC profile that is applied; those of printers have up to 3 MB."""

SRGB_CURVE, TELEVISION_CURVES = 13, frozenset({1, 6, 14, 15})
"""Transfer characteristics of ITU-T H.273."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ColorTags:
    """What a file says of its colours; none of it means sRGB."""

    icc: bytes | None = None
    """ICC profile."""
    cicp: tuple[int, int] | None = None
    """Colour primaries and transfer characteristics of ITU-T H.273, as in `nclx` and `cICP`."""
    gamma: float | None = None
    """Exponent from linear light to samples."""
    chromaticities: tuple[Point, ...] | None = None
    """CIE x and y of white, red, green and blue."""
