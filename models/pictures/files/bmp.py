"""BMP files whose samples lie at bits of their own choice (BITMAPINFOHEADER, BI_BITFIELDS), and
those that hold another format."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import UnsupportedPicture

Pixels = npt.NDArray[np.uint8]

_CODECS = {4: "JPEG", 5: "PNG"}
_BITFIELDS, _ALPHA_BITFIELDS = 3, 6
_MASKS, _FIRST_HEADER_WITH_ALPHA = 54, 56
_INFO_HEADERS = {40, 52, 56, 108, 124}
"""Sizes of the headers of Windows; OS/2 gives the same codecs other meanings."""


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


def refuse_codecs(data: bytes) -> None:
    """Raise UnsupportedPicture for a BMP that holds a JPEG or PNG (BI_JPEG, BI_PNG): only printer
    drivers read those."""
    inner = _CODECS.get(int.from_bytes(data[30:34], "little"))
    if inner is not None and int.from_bytes(data[14:18], "little") in _INFO_HEADERS:
        raise UnsupportedPicture(
            f"this is a BMP that holds a {inner}, which is not read: save it as {inner}", "image"
        )


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
