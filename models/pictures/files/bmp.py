"""BMP files whose samples lie at bits of their own choice (BITMAPINFOHEADER, BI_BITFIELDS)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_BITFIELDS, _ALPHA_BITFIELDS = 3, 6
_MASKS, _FIRST_HEADER_WITH_ALPHA = 54, 56


@dataclass(frozen=True, slots=True)
class BitFields:
    """The layout of the pixels."""

    width: int
    height: int
    bits: int
    """Bits of a pixel: 16 or 32."""
    masks: tuple[int, ...]
    """The bits of red, green and blue, and those of alpha if there are any."""
    begin: int
    top_down: bool


def bit_fields(data: bytes) -> BitFields | None:
    """The layout of a BMP with bit fields; None for another BMP."""
    if len(data) < _MASKS + 16:
        return None
    begin, size, width, height, _, bits, kind = struct.unpack_from("<IIiiHHI", data, 10)
    if kind not in (_BITFIELDS, _ALPHA_BITFIELDS) or bits not in (16, 32) or width < 1:
        return None
    alpha = size >= _FIRST_HEADER_WITH_ALPHA or kind == _ALPHA_BITFIELDS
    masks = struct.unpack_from("<4I" if alpha else "<3I", data, _MASKS)
    colors, rest = masks[:3], masks[3:]
    if not all(colors):
        return None
    return BitFields(
        width, abs(height), bits, colors + (rest if any(rest) else ()), begin, height < 0
    )


def samples_of(data: bytes, layout: BitFields) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Samples of 8 bits (height, width, 3 or 4), and which pixels (height, width) are there."""
    kind = np.dtype(f"<u{layout.bits // 8}")
    row = -(-layout.width * layout.bits // 32) * 4
    body = np.zeros(row * layout.height, np.uint8)
    there = np.zeros((layout.height, layout.width), np.bool_)
    given = np.frombuffer(data, np.uint8)[layout.begin :][: body.size]
    body[: given.size] = given
    there[: given.size // row] = True
    pixels = body.reshape(layout.height, row).view(kind)[:, : layout.width]
    samples = np.stack([_sample(pixels, mask) for mask in layout.masks], axis=2)
    if layout.top_down:
        return samples, there
    return np.ascontiguousarray(samples[::-1]), there[::-1]


def _sample(pixels: npt.NDArray[np.unsignedinteger], mask: int) -> Pixels:
    shift = (mask & -mask).bit_length() - 1
    high = mask >> shift
    values = ((pixels.astype(np.uint32) & np.uint32(mask)) >> shift).astype(np.float32)
    scaled: Pixels = np.rint(values * np.float32(255 / high)).astype(np.uint8)
    return scaled
