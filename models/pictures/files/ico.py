"""Icons and cursors: their directory, and transparency that stands in a mask of one bit."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

_HEADER = 40
_ENTRY = 16
_ICON = 1


def mended(data: bytes) -> bytes:
    """The file as an icon whose directory names the true bits of each picture.

    Many leave them at 0, and cursors have the position of their hot spot there.
    """
    parts = bytearray(data)
    (count,) = struct.unpack_from("<H", data, 4)
    struct.pack_into("<H", parts, 2, _ICON)
    for entry in range(6, min(6 + _ENTRY * count, len(data) - _ENTRY + 1), _ENTRY):
        (begin,) = struct.unpack_from("<I", data, entry + 12)
        if data[begin : begin + 4] == _HEADER.to_bytes(4, "little") and begin + 16 <= len(data):
            parts[entry + 4 : entry + 8] = b"\1\0" + data[begin + 14 : begin + 16]
    return bytes(parts)


def mask(data: bytes, begin: int, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """Which pixels (height, width) of an icon of 32 bits are shown by its mask; None without one.

    `begin` is the position of its BITMAPINFOHEADER, `size` its width and height. Programs of the
    time before alpha leave the alpha of such icons at 0.
    """
    width, height = size
    row = -(-width // 32) * 4
    at = begin + _HEADER + 4 * width * height
    if at + row * height > len(data):
        return None
    hidden = np.frombuffer(data, np.uint8, row * height, at).reshape(height, row)[::-1]
    shown: npt.NDArray[np.bool_] = np.unpackbits(hidden, axis=1)[:, :width] == 0
    return shown
