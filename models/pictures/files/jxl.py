"""The size of a JPEG XL picture, by its header (ISO/IEC 18181-1 and -2)."""

from __future__ import annotations

from models.pictures.files.heif import boxes

_CODESTREAM = b"\xff\x0a"
_SIDE_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height before any turn; None if the header is damaged."""
    stream = _codestream(data)
    if stream[:2] != _CODESTREAM or len(stream) < 12:
        return None
    bits = _Bits(int.from_bytes(stream[2:12], "little"))
    small = bits.take(1)
    height = (bits.take(5) + 1) * 8 if small else bits.take(_SIDE_BITS[bits.take(2)]) + 1
    if ratio := bits.take(3):
        across, down = _RATIOS[ratio - 1]
        return height * across // down, height
    width = (bits.take(5) + 1) * 8 if small else bits.take(_SIDE_BITS[bits.take(2)]) + 1
    return width, height


class _Bits:
    """Bits, the least significant first."""

    def __init__(self, value: int) -> None:
        self._value = value

    def take(self, count: int) -> int:
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        return taken


def _codestream(data: bytes) -> bytes:
    if data[:2] == _CODESTREAM:
        return data[:16]
    stream = b""
    for name, begin, end in boxes(data, 0, len(data)):
        if name == b"jxlc":
            return data[begin : min(end, begin + 16)]
        if name == b"jxlp" and len(stream) < 16:
            stream += data[begin + 4 : min(end, begin + 20)]
    return stream
