"""The previews that cameras put into their RAW files, and the size of the picture itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from models.errors import UnsupportedPicture
from models.pictures.files import jpeg
from models.pictures.files.ifd import Tags, directories, number, numbers

LEAST_LONG = 256
"""Long side of the smallest preview that stands for its picture."""
_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC = 256, 257, 259, 262
_SUBFILE, _MAKE, _STRIPS, _TILES, _ORIENTATION, _DNG, _CROP = 254, 271, 273, 324, 274, 50706, 50720
_EXIF_WIDTH, _EXIF_HEIGHT = 40962, 40963
_SENSOR = {32803, 34892}
"""Photometric interpretations of sensor data: colour filter array and linear RAW."""
_SENSOR_COMPRESSIONS = {32767, 34713, 65535, 65000}
"""Compressions of Sony's ARW, Nikon's NEF, Pentax's PEF and Kodak's KDC."""
_MAX_JPEGS = 1000


@dataclass(frozen=True, slots=True)
class Preview:
    """A JPEG inside a RAW file."""

    jpeg: bytes
    width: int
    """Width of the RAW picture as stored, before it is turned; so is `height`."""
    height: int
    orientation: int | None
    """EXIF orientation of both; None where the RAW file says nothing and the JPEG decides."""
    tiff: bytes
    """The part of the RAW file with its directories; empty where there is none."""


def is_raw(data: bytes) -> bool:
    """Whether a TIFF holds what a camera's sensor saw."""
    found = list(directories(data))
    # Cameras put a small copy first; programs that write TIFF put the picture first.
    if found and _MAKE in found[0] and number(found[0], _SUBFILE) & 1:
        return True
    return any(
        _DNG in tags
        or number(tags, _PHOTOMETRIC) in _SENSOR
        or number(tags, _COMPRESSION) in _SENSOR_COMPRESSIONS
        for tags in found
    )


def preview(data: bytes) -> Preview:
    """The largest embedded JPEG. Raises UnsupportedPicture if there is none of a useful size."""
    tiff = _tiff_part(data)
    found = list(directories(tiff)) if tiff else []
    sensor_tiles = {
        at
        for tags in found
        if number(tags, _PHOTOMETRIC) in _SENSOR
        for at in (*numbers(tags, _TILES), *numbers(tags, _STRIPS))
    }
    best, width, height = 0, 0, 0
    for at, size in _jpegs(data):
        if at not in sensor_tiles and size[0] * size[1] > width * height:
            best, (width, height) = at, size
    if max(width, height) < LEAST_LONG:
        what = f"a preview of only {width}x{height} pixels" if width else "no preview"
        raise UnsupportedPicture(
            f"this is camera RAW with {what} in it: develop it and send a JPEG", "image"
        )
    turn = next((number(tags, _ORIENTATION) for tags in found if _ORIENTATION in tags), None)
    own = _own_size(found, (width, height))
    return Preview(data[best:], *own, turn if turn in range(1, 9) else None, tiff)


def _tiff_part(data: bytes) -> bytes:
    """The part of the file with its directories, from its byte order mark on."""
    if data[4:8] == b"ftyp":  # Canon's CR3
        at = data.find(b"CMT1", 0, 1 << 16)
        return data[at + 4 :] if at >= 0 else b""
    return data if data[:2] in (b"II", b"MM") else b""


def _jpegs(data: bytes) -> Iterator[tuple[int, tuple[int, int]]]:
    """Position and size of each JPEG in the file."""
    at = -1
    for _ in range(_MAX_JPEGS):
        at = data.find(b"\xff\xd8\xff", at + 1)
        if at < 0:
            return
        size = jpeg.size_of(data, at)
        if size is not None:
            yield at, size


def _own_size(found: list[Tags], preview: tuple[int, int]) -> tuple[int, int]:
    """The largest size that a directory names; the preview's without a larger one."""
    sizes = [preview]
    for tags in found:
        if number(tags, _PHOTOMETRIC) in _SENSOR and len(crop := numbers(tags, _CROP)) == 2:
            return crop[0], crop[1]
        sizes += [
            (number(tags, across), number(tags, down))
            for across, down in ((_WIDTH, _HEIGHT), (_EXIF_WIDTH, _EXIF_HEIGHT))
        ]
    return max(sizes, key=lambda size: size[0] * size[1])
