"""Icons and cursors: their directory, and transparency that stands in a mask of one bit."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

_HEADER = 40
_ENTRY = 16
_ICON = 1
_MOST = (1 << 32) - 1


def mended(data: bytes) -> bytes:
    """The file as an icon whose directory names the true bits and size of each picture.

    Many leave the bits at 0, and cursors have the position of their hot spot there. Pillow finds a
    mask by the size, and writes masks that end early: what is missing of one hides nothing.
    """
    parts = bytearray(data)
    (count,) = struct.unpack_from("<H", data, 4)
    struct.pack_into("<H", parts, 2, _ICON)
    for entry in range(6, min(6 + _ENTRY * count, len(data) - _ENTRY + 1), _ENTRY):
        size, begin = struct.unpack_from("<II", data, entry + 8)
        header = data[begin : begin + _HEADER]
        if len(header) < _HEADER or header[0] != _HEADER:
            continue
        parts[entry + 4 : entry + 8] = b"\1\0" + header[14:16]
        pixels, masked = _sizes(header)
        given = min(size, len(data) - begin)
        if pixels <= given < pixels + masked:
            moved = data[begin : begin + given].ljust(pixels + masked, b"\0")
            begin = len(parts)
            parts += moved
        struct.pack_into("<II", parts, entry + 8, min(pixels + masked, _MOST), begin)
    return bytes(parts)


def _sizes(header: bytes) -> tuple[int, int]:
    """Bytes of a picture with its BITMAPINFOHEADER and palette, and bytes of its mask."""
    width, height = struct.unpack_from("<II", header, 4)
    (bits,) = struct.unpack_from("<H", header, 14)
    (used,) = struct.unpack_from("<I", header, 32)
    colors = (used or 1 << bits) if bits <= 8 else 0
    rows = height // 2
    return _HEADER + 4 * colors + -(-width * bits // 32) * 4 * rows, -(-width // 32) * 4 * rows


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
