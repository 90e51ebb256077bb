"""BMP files whose indices are packed as runs (BI_RLE8, BI_RLE4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_BITS = {1: 8, 2: 4}
"""Bits of an index by codec."""
_HEADERS = {40, 52, 56, 64, 108, 124}
_FILE_HEADER = 14
_END_OF_ROW, _END, _MOVE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Rle:
    """The layout of the picture."""

    width: int
    height: int
    bits: int
    """Bits of an index: 4 or 8."""
    palette: Pixels
    """Colours (2 ** bits, 3); those that the file lacks are black."""
    begin: int


@dataclass(frozen=True, slots=True, eq=False)
class Unpacked:
    """What the runs hold, top row first."""

    samples: Pixels
    """Colours (height, width, 3)."""
    there: Mask
    """The pixels (height, width) that a run has written; a file may skip some."""
    lost: int
    """Number of rows after the last that was written."""
    truncated: bool
    """Whether rows are lost, or the runs end within one without the mark of an end."""


def rle(data: bytes) -> Rle | None:
    """The layout of a BMP of runs; None for another BMP."""
    if len(data) < _FILE_HEADER + 40:
        return None
    begin, size, width, height, _, bits, codec = struct.unpack_from("<IIiiHHI", data, 10)
    if size not in _HEADERS or _BITS.get(codec) != bits or width < 1 or height < 1:
        return None
    used = int.from_bytes(data[46:50], "little") or 1 << bits
    at = _FILE_HEADER + size
    entries = np.frombuffer(data[at : min(at + 4 * min(used, 1 << bits), begin)], np.uint8)
    entries = entries[: len(entries) // 4 * 4].reshape(-1, 4)
    palette = np.zeros((1 << bits, 3), np.uint8)
    palette[: len(entries)] = entries[:, 2::-1]
    return Rle(width, height, bits, palette, begin)


def unpacked(data: bytes, layout: Rle) -> Unpacked:
    """Unpack the runs as far as they go. What would pass a row's end is dropped."""
    width, height = layout.width, layout.height
    index, there = np.zeros((height, width), np.uint8), np.zeros((height, width), np.bool_)
    at, x, y, ended = layout.begin, 0, 0, False
    while at + 2 <= len(data) and y < height:
        count, value = data[at], data[at + 1]
        at += 2
        if count == 0 and value == _END_OF_ROW:
            x, y = 0, y + 1
            continue
        if count == 0 and value == _END:
            ended = True
            break
        if count == 0 and value == _MOVE:
            if at + 2 > len(data):
                break
            x, y, at = x + data[at], y + data[at + 1], at + 2
            continue
        if count:
            run = _indices(bytes([value]) * count, layout.bits)[:count]
        else:
            size = -(-value * layout.bits // 8)
            run, at = _indices(data[at : at + size], layout.bits)[:value], at + size + size % 2
        run = run[: max(0, width - x)]
        index[y, x : x + len(run)] = run
        there[y, x : x + len(run)] = True
        x += len(run)
    written = np.flatnonzero(there.any(axis=1))
    lost = height - 1 - int(written[-1]) if len(written) else height
    cut = not ended and y < height and not there.all()
    return Unpacked(layout.palette[index[::-1]], there[::-1], lost, lost > 0 or cut)


def _indices(packed: bytes, bits: int) -> Pixels:
    values = np.frombuffer(packed, np.uint8)
    if bits == 8:
        return values
    return np.stack([values >> 4, values & 15], axis=1).ravel()
