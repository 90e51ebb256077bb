"""PNG files without the metadata that a decoder might stumble over (PNG, third edition)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

from models.errors import BrokenPicture
from models.pictures.files.color_tags import MAX_PROFILE, ColorTags

_SIGNATURE = 8
_MAX_CHUNKS = 100_000
_PIECE = 512
_ZEROS = 1 << 20
_REPLACE = b"\0"
"""The blend operation of a frame that replaces what is below."""
_PIXELS = {b"IDAT", b"fdAT"}
_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT"}
_CHECKED = {b"acTL", b"fcTL", b"tRNS"}
_READ = {b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", b"tRNS"}
_GRAY, _RGB = 0, 2
_CHANNELS = {_GRAY: 1, _RGB: 3, 3: 1, 4: 2, 6: 4}
_LEAST_TRANSPARENCY = {_GRAY: 2, _RGB: 6}


@dataclass(slots=True)
class CleanedPng:
    """A PNG whose chunks are only those that make its pixels."""

    data: bytes
    colors: ColorTags
    exif: bytes | None = None
    transparency: int | tuple[int, int, int] | None = None
    """The one transparent colour of a picture without palette, in samples of 8 bits; of 16-bit
    gray in samples of 16."""
    interlaced: bool = False


@dataclass(slots=True)
class _Chunks:
    kept: list[memoryview] = field(default_factory=list)
    read: dict[bytes, bytes] = field(default_factory=dict)


def cleaned(data: bytes) -> CleanedPng:
    """Leave out texts, profiles and other metadata, whatever their size and checksums.

    Metadata with a wrong checksum counts as absent, as in libpng. A file that ends early is kept up
    to its end. Raises BrokenPicture for a file of too many chunks.
    """
    chunks = _split(data)
    head = bytes(chunks.kept[1][8:21]) if len(chunks.kept) > 1 else b""
    interlaced = len(head) == 13 and head[12] == 1
    return CleanedPng(
        b"".join(chunks.kept),
        _color_tags(chunks.read),
        chunks.read.get(b"eXIf"),
        _transparency(chunks.read.get(b"tRNS", b""), head),
        interlaced,
    )


def _split(data: bytes) -> _Chunks:
    view, chunks = memoryview(data), _Chunks()
    chunks.kept.append(view[:_SIGNATURE])
    at = begin = _SIGNATURE
    count = 0
    while at + 8 <= len(data) and len(data) > 25:
        count += 1
        if count > _MAX_CHUNKS:
            raise BrokenPicture(f"the PNG has more than {_MAX_CHUNKS:,} chunks", "image")
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        short = name == b"tRNS" and length < _LEAST_TRANSPARENCY.get(data[25], 1)
        if name not in _KEPT or short or (name in _CHECKED and not _intact(view, at, end)):
            chunks.kept.append(view[begin:at])
            begin = end
        if name in _READ and name not in chunks.read and _intact(view, at, end):
            chunks.read[name] = bytes(view[at + 8 : end - 4])
        at = end
        if name == b"IEND":
            break
    if begin < len(data):
        chunks.kept.append(view[begin:at])
    chunks.kept = [chunks.kept[0], *(part for part in chunks.kept[1:] if len(part))]
    return chunks


def _intact(view: memoryview, at: int, end: int) -> bool:
    if end > len(view):
        return False
    return zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")


def _color_tags(read: dict[bytes, bytes]) -> ColorTags:
    """What is said of the colours: cICP before iCCP before sRGB before gAMA and cHRM."""
    if len(cicp := read.get(b"cICP", b"")) == 4:
        return ColorTags(cicp=(cicp[0], cicp[1]))
    if b"iCCP" in read and (profile := _profile(read[b"iCCP"])) is not None:
        return ColorTags(icc=profile)
    if b"sRGB" in read or len(read.get(b"gAMA", b"")) != 4:
        return ColorTags()
    gamma = int.from_bytes(read[b"gAMA"], "big") / 100_000
    points = read.get(b"cHRM", b"")
    white_and_primaries = None
    if len(points) == 32:
        values = [value / 100_000 for value in struct.unpack(">8I", points)]
        white_and_primaries = tuple(zip(values[::2], values[1::2], strict=True))
    return ColorTags(gamma=gamma, chromaticities=white_and_primaries)


def _profile(chunk: bytes) -> bytes | None:
    _, _, rest = chunk.partition(b"\0")
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(rest[1:], MAX_PROFILE)
    except zlib.error:
        return None
    return profile if unpacker.eof else None


def _transparency(chunk: bytes, head: bytes) -> int | tuple[int, int, int] | None:
    if len(head) != 13:
        return None
    depth, kind = head[8], head[9]
    if kind == _GRAY and len(chunk) >= 2 and depth > 1:
        value = int.from_bytes(chunk[:2], "big")
        return value if depth == 16 else value * 255 // ((1 << depth) - 1)
    if kind == _RGB and len(chunk) >= 6:
        red, green, blue = struct.unpack(">3H", chunk[:6])
        drop = 8 if depth == 16 else 0
        return red >> drop, green >> drop, blue >> drop
    return None


def packed_again(data: bytes) -> bytes:
    """A cleaned PNG whose pixels are packed anew, as far as they can be unpacked: the checksum of
    the packed data does not count then.
    """
    parts, packed, at = [data[:_SIGNATURE]], [], _SIGNATURE
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":
            packed.append(data[at + 8 : at + 8 + length])
        elif not packed:
            parts.append(data[at : at + 12 + length])
        at += 12 + length
    body = _repacked(b"".join(packed)[2:], _unpacked_bytes(data[16:29]))
    return b"".join([*parts, _chunk(b"IDAT", body)])


def with_clear_default(data: bytes) -> bytes:
    """A cleaned PNG whose first picture is 0 everywhere.

    Where that picture is no part of the animation, its frames must not be drawn over it. The first
    frame replaces it instead of being blended, because Pillow would weigh its colours twice.
    """
    packer, left = zlib.compressobj(1), _unpacked_bytes(data[16:29])
    parts = [packer.compress(bytes(min(_ZEROS, left - at))) for at in range(0, left, _ZEROS)]
    clear = _chunk(b"IDAT", b"".join([*parts, packer.flush()]))
    kept, at, is_first = [data[:_SIGNATURE]], _SIGNATURE, True
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if name == b"IDAT":
            kept.append(clear)
            clear = b""
        elif name == b"fcTL" and is_first:
            kept.append(_chunk(name, data[at + 8 : end - 5] + _REPLACE))
            is_first = False
        else:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _chunk(name: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I4s", len(body), name) + body + checksum


def _unpacked_bytes(head: bytes) -> int:
    width, height, depth, kind = struct.unpack_from(">IIBB", head)
    row = -(-width * depth * _CHANNELS.get(kind, 4) // 8) + 1
    # Interlacing stores up to two more beginnings of rows for each row.
    size: int = (row + 16) * height + 16
    return size


def _repacked(deflated: bytes, most: int) -> bytes:
    unpacker, packer, parts = zlib.decompressobj(-15), zlib.compressobj(1), []
    for begin in range(0, len(deflated), _PIECE):
        try:
            part = unpacker.decompress(deflated[begin : begin + _PIECE], max(most, 1))
        except zlib.error:
            break
        parts.append(packer.compress(part))
        most -= len(part)
        if unpacker.eof or most <= 0:
            break
    return b"".join([*parts, packer.flush()])


def info_of(png: CleanedPng) -> dict[str, Any]:
    """What Pillow's `info` of the picture should say besides what it says of the cleaned file."""
    found: dict[str, Any] = {}
    if png.transparency is not None:
        found["transparency"] = png.transparency
    if png.exif is not None:
        found["exif"] = png.exif
    return found
