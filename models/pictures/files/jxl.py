"""The header of JPEG XL pictures (ISO/IEC 18181-1 and -2)."""

from __future__ import annotations

from dataclasses import dataclass

from models.pictures.files.heif import boxes

_CODESTREAM = b"\xff\x0a"
_HEAD = 34
_SIDE_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


@dataclass(frozen=True, slots=True)
class JxlHeader:
    """What is known before anything is decoded."""

    width: int
    """Width in pixels; a picture that lies on its side is turned first, as in all decoders."""
    height: int
    animated: bool
    orientation: int = 1
    """1 to 8, as EXIF numbers them; decoders apply it."""


def header_of(data: bytes) -> JxlHeader:
    """Read the header. Raises ValueError if it is damaged."""
    stream = _codestream(data)
    if stream[:2] != _CODESTREAM or len(stream) < 12:
        raise ValueError("it has no size")
    bits = _Bits(int.from_bytes(stream[2:], "little"))
    width, height = _size(bits)
    orientation, animated = 1, False
    all_default = bits.take(1)
    if not all_default and bits.take(1):
        orientation = bits.take(3) + 1
        if bits.take(1):  # The size at which it is meant to be shown.
            _size(bits)
        has_preview = bits.take(1)
        animated = not has_preview and bool(bits.take(1))
    if orientation >= 5:
        width, height = height, width
    return JxlHeader(width, height, animated, orientation)


def exif_of(data: bytes) -> bytes | None:
    """The block of EXIF of a file in a container; None where there is none, or it is packed."""
    if data.startswith(_CODESTREAM):
        return None
    found = (data[at:end] for name, at, end in boxes(data, 0, len(data)) if name == b"Exif")
    body = next(found, b"")
    # The library that writes JPEG XL for Pillow leaves out the offset that belongs before it.
    return body if body[:2] in (b"II", b"MM") else body[4 + int.from_bytes(body[:4], "big") :]


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return (bits.take(5) + 1) * 8 if small else bits.take(_SIDE_BITS[bits.take(2)]) + 1

    height = side()
    if ratio := bits.take(3):
        across, down = _RATIOS[ratio - 1]
        return height * across // down, height
    return side(), height


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
        return data[:_HEAD]
    stream = b""
    for name, begin, end in boxes(data, 0, len(data)):
        if name == b"jxlc":
            return data[begin : min(end, begin + _HEAD)]
        if name == b"jxlp" and len(stream) < _HEAD:
            stream += data[begin + 4 : min(end, begin + 4 + _HEAD)]
    return stream
