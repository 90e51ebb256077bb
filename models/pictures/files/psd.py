"""Photoshop documents and large documents: the flattened picture (Adobe Photoshop File Formats
Specification)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import UnsupportedPicture

Pixels = npt.NDArray[np.uint8]
_BITMAP, _GRAY, _INDEXED, _RGB, _CMYK, _MULTICHANNEL, _DUOTONE, _LAB = 0, 1, 2, 3, 4, 7, 8, 9
_COLORS = {
    **dict.fromkeys((_BITMAP, _GRAY, _INDEXED, _MULTICHANNEL, _DUOTONE), 1),
    **dict.fromkeys((_RGB, _LAB), 3),
    _CMYK: 4,
}
_MODES = {_CMYK: "CMYK", _LAB: "LAB", _RGB: "RGB"}
_ICC, _ALPHA_IDS, _EXIF = 1039, 1053, 1058
_STORED, _PACKED = 0, 1
_MAX_RESOURCES = 10_000


@dataclass(frozen=True, slots=True)
class PsdHeader:
    """What stands before the flattened picture."""

    width: int
    height: int
    depth: int
    """Bits of a sample: 1, 8 or 16."""
    mode: str
    """Pillow's mode of the colours."""
    colors: int
    channels: int
    """Number of channels that are stored, of which the colours are the first."""
    has_alpha: bool
    """Whether the channel after the colours is transparency, and no saved selection."""
    palette: bytes
    icc: bytes | None
    exif: bytes | None
    large: bool
    begin: int
    """Position of the flattened picture."""


def header_of(data: bytes) -> PsdHeader:
    """Read the header. Raises UnsupportedPicture, which names the encoding, or struct.error."""
    version, channels, height, width, depth, mode = struct.unpack_from(">H6xHIIHH", data, 4)
    if depth not in (1, 8, 16) or mode not in _COLORS:
        raise UnsupportedPicture(
            f"this PSD has samples of {depth} bits in colour mode {mode}, which are not read: "
            "save it as 8-bit RGB",
            "image",
        )
    colors = _COLORS[mode]
    if channels < colors:
        raise ValueError(f"it has {channels} channels of {colors}")
    palette, at = _block(data, 26)
    resources, at = _block(data, at)
    found = _resources(resources)
    large = version == 2
    layers, begin = _block(data, at, wide=large)
    return PsdHeader(
        width,
        height,
        depth,
        _MODES.get(mode, "L"),
        colors,
        channels,
        channels > colors and _is_transparency(found.get(_ALPHA_IDS, b""), layers, large),
        palette if mode == _INDEXED else b"",
        found.get(_ICC),
        found.get(_EXIF),
        large,
        begin,
    )


def flattened_picture(data: bytes, head: PsdHeader) -> Pixels:
    """Samples of 8 bits (planes, height, width): the colours, and the alpha if there is any.

    Raises UnsupportedPicture, or ValueError if it is damaged.
    """
    used = head.colors + head.has_alpha
    row = (head.width * head.depth + 7) // 8
    size = row * head.height
    compression, at = int.from_bytes(data[head.begin : head.begin + 2], "big"), head.begin + 2
    if compression == _STORED:
        ends = [at + size * number for number in range(used + 1)]
    elif compression == _PACKED:
        ends = _packed_ends(data, at, head)
    else:
        raise UnsupportedPicture(
            "this PSD's flattened picture is packed with ZIP, which is not read: save it as 8-bit "
            "RGB",
            "image",
        )
    pixels = np.empty((used, head.height, head.width), np.uint8)
    for number in range(used):
        part = data[ends[number] : ends[number + 1]]
        plane = np.frombuffer(part if compression == _STORED else _unpacked(part, size), np.uint8)
        pixels[number] = _eight_bits(plane.reshape(head.height, row), head)
    if head.mode == "CMYK":
        np.subtract(255, pixels[: head.colors], out=pixels[: head.colors])
    return pixels


def _packed_ends(data: bytes, at: int, head: PsdHeader) -> list[int]:
    """Where the planes begin, and where the last one ends."""
    kind: npt.DTypeLike = ">u4" if head.large else ">u2"
    sizes = np.frombuffer(data, kind, head.channels * head.height, at).astype(np.int64)
    begin = at + sizes.size * np.dtype(kind).itemsize
    planes = sizes.reshape(head.channels, head.height).sum(axis=1)
    return [begin, *(begin + np.cumsum(planes)).tolist()]


def _unpacked(packed: bytes, size: int) -> bytes:
    from imagecodecs import packbits_decode

    unpacked = bytes(packbits_decode(packed, out=size))
    if len(unpacked) < size:
        raise ValueError("it ends before its pixels")
    return unpacked


def _eight_bits(plane: Pixels, head: PsdHeader) -> npt.NDArray[np.uint8]:
    if head.depth == 1:  # A set bit is black.
        bits: Pixels = np.unpackbits(plane, axis=1)[:, : head.width]
        return (1 - bits) * np.uint8(255)
    if head.depth == 16:
        deep = plane.view(">u2").astype(np.uint32)
        return ((deep * 255 + 32767) // 65535).astype(np.uint8)
    return plane


def _block(data: bytes, at: int, wide: bool = False) -> tuple[bytes, int]:
    """The bytes of a section after its length, and the position behind it."""
    (size,) = struct.unpack_from(">Q" if wide else ">I", data, at)
    begin = at + (8 if wide else 4)
    return data[begin : begin + size], begin + size


def _resources(data: bytes) -> dict[int, bytes]:
    found, at = dict[int, bytes](), 0
    for _ in range(_MAX_RESOURCES):
        if at + 12 > len(data):
            break
        (number,) = struct.unpack_from(">H", data, at + 4)
        at += 6 + (data[at + 6] + 2) // 2 * 2
        body, at = _block(data, at)
        at += at & 1
        found.setdefault(number, body)
    return found


def _is_transparency(ids: bytes, layers: bytes, large: bool) -> bool:
    """Whether the first channel after the colours is the transparency of the flattened picture.

    Saved selections have identifiers above 0; among layers, a negative number of them says so.
    """
    if len(ids) >= 4:
        return int.from_bytes(ids[:4], "big") == 0
    layer_info, _ = _block(layers, 0, large) if len(layers) >= 8 else (b"", 0)
    if len(layer_info) >= 2:
        return int.from_bytes(layer_info[:2], "big", signed=True) < 0
    return True
