"""The boxes of HEIC and AVIF files (ISO/IEC 14496-12 and 23008-12): brands, colours, metadata."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from models.pictures.files.color_tags import SRGB_CURVE, TELEVISION_CURVES, ColorTags

_MAX_BOXES = 10_000
_FULL_BOX = 4
_CODEC_BRANDS = (
    {b"avif", b"avis"},
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"},
)


def boxes(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of the body of each box between two positions."""
    for _ in range(_MAX_BOXES):
        if begin + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", data, begin)
        body = begin + 8
        if size == 1 and body + 8 <= end:
            size, body = int.from_bytes(data[body : body + 8], "big"), body + 8
        until = end if size == 0 else begin + size
        if until < body or until > end:
            return
        yield name, body, until
        begin = until


def box(data: bytes, path: str, begin: int = 0, end: int | None = None) -> tuple[int, int] | None:
    """Begin and end of the body of the first box at a path such as `meta/iprp/ipco`."""
    end = len(data) if end is None else end
    name, _, rest = path.partition("/")
    for found, body, until in boxes(data, begin, end):
        if found == name.encode():
            inside = body + _FULL_BOX if found == b"meta" else body
            return box(data, rest, inside, until) if rest else (body, until)
    return None


def items(data: bytes) -> list[tuple[int, int, bytes]]:
    """Number, position of the kind, and kind, such as `av01`, of each item of the item
    information."""
    if (where := box(data, "meta/iinf")) is None:
        return []
    begin, end = where
    begin += _FULL_BOX + (4 if data[begin] else 2)
    found = []
    for name, body, until in boxes(data, begin, end):
        at = body + _FULL_BOX + (4 if data[body] >= 3 else 2) + 2
        if name == b"infe" and data[body] >= 2 and at + 4 <= until:
            number = int.from_bytes(data[body + _FULL_BOX : at - 2], "big")
            found.append((number, at, data[at : at + 4]))
    return found


def codec(data: bytes) -> str | None:
    """The codec of the pictures by the file's items, `AVIF` or `HEIC`; None if none is known."""
    kinds = {kind for *_, kind in items(data)}
    if kinds & {b"hvc1", b"hev1"}:
        return "HEIC"
    return "AVIF" if b"av01" in kinds else None


def mended(data: bytes, brand: bytes) -> bytes:
    """The file with the brand of its codec, and its Exif marked as of no known kind.

    Decoders look at the brands only, and refuse a picture whose Exif is damaged; its Exif
    counts for nothing, because the container has an orientation of its own.
    """
    parts = bytearray(data)
    ours = next(known for known in _CODEC_BRANDS if brand in known)
    if data[8:12] not in ours:
        parts[8:12] = brand
    compatible = range(16, min(int.from_bytes(data[:4], "big"), len(data)) - 3, 4)
    if compatible and all(data[at : at + 4] not in ours for at in compatible):
        parts[16:20] = brand
    for _, at, kind in items(data):
        if kind == b"Exif":
            parts[at : at + 4] = b"skip"
    return bytes(parts)


def exif_of(data: bytes) -> bytes | None:
    """The block of EXIF; None where there is none, or its place makes no sense."""
    try:
        number = next((number for number, _, kind in items(data) if kind == b"Exif"), None)
        body = None if number is None else _located(data, number)
    except (struct.error, IndexError):
        return None
    return None if body is None else body[4 + int.from_bytes(body[:4], "big") :]


def _located(data: bytes, item: int) -> bytes | None:
    """The bytes of an item of one piece, by the item locations (ISO/IEC 14496-12, `iloc`)."""
    if (where := box(data, "meta/iloc")) is None:
        return None
    at = where[0]
    version, sizes = data[at], data[at + 4 : at + 6]
    offset, length, base = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4
    index = sizes[1] & 15 if version else 0
    wide = 4 if version == 2 else 2
    at += 6

    def take(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(take(wide)):
        number = take(wide)
        in_file = not version or take(2) & 15 == 0
        take(2)
        start = take(base)
        pieces = [(take(index), take(offset), take(length)) for _ in range(take(2))]
        if at > where[1]:
            return None
        if number == item and in_file and len(pieces) == 1:
            begin = start + pieces[0][1]
            return data[begin : begin + pieces[0][2]]
    return None


def color_tags(data: bytes) -> ColorTags:
    """What the boxes of the primary picture say of its colours; a profile goes before codes."""
    cicp = None
    for name, body, end in _properties_of_primary(data):
        kind = data[body : body + 4]
        if name == b"colr" and kind in (b"prof", b"rICC"):
            return ColorTags(icc=data[body + 4 : end])
        if name == b"colr" and kind == b"nclx" and cicp is None and end >= body + 8:
            first, second = struct.unpack_from(">HH", data, body + 4)
            # Browsers take the curves of television for sRGB's here, but not in PNG.
            cicp = first, SRGB_CURVE if second in TELEVISION_CURVES else second
    return ColorTags(cicp=cicp)


def clean_aperture(data: bytes, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of what is shown of the primary picture of this width and height,
    before it is turned (`clap`); None for all of it, or where the box makes no sense."""
    found = (body for name, body, end in _properties_of_primary(data) if name == b"clap")
    body = next((at for at in found if at + 32 <= len(data)), None)
    if body is None:
        return None
    # Width, height and the offset of the centre, each as numerator and denominator.
    values = struct.unpack_from(">IIIIiIiI", data, body)
    if not all(values[1::2]):
        return None
    across, down, right_by, down_by = (
        top / bottom for top, bottom in zip(values[::2], values[1::2], strict=True)
    )
    left, top = (size[0] - across) / 2 + right_by, (size[1] - down) / 2 + down_by
    area = round(left), round(top), round(left + across), round(top + down)
    inside = 0 <= area[0] < area[2] <= size[0] and 0 <= area[1] < area[3] <= size[1]
    return area if inside else None


def _properties_of_primary(data: bytes) -> list[tuple[bytes, int, int]]:
    """Name, begin and end of the primary item's properties; all where it is not said which."""
    where = box(data, "meta/iprp/ipco")
    properties = [] if where is None else list(boxes(data, *where))
    numbers = _property_numbers(data) or range(1, len(properties) + 1)
    return [properties[one - 1] for one in numbers if 0 < one <= len(properties)]


def _property_numbers(data: bytes) -> list[int]:
    """One-based numbers of the primary item's properties; none where that is not said."""
    primary, where = box(data, "meta/pitm"), box(data, "meta/iprp/ipma")
    if primary is None or where is None:
        return []
    begin, end = primary
    item = int.from_bytes(data[begin + _FULL_BOX : end], "big")
    at, end = where
    wide_ids, wide_numbers = data[at] > 0, data[at + 3] & 1
    at += _FULL_BOX + 4
    id_bytes, number_bytes = (4 if wide_ids else 2), (2 if wide_numbers else 1)
    while at + id_bytes < end:
        named = int.from_bytes(data[at : at + id_bytes], "big")
        at += id_bytes
        count, at = data[at], at + 1
        until = at + count * number_bytes
        if named == item:
            essential = 0x7FFF if wide_numbers else 0x7F
            numbers = (data[one : one + number_bytes] for one in range(at, until, number_bytes))
            return [int.from_bytes(number, "big") & essential for number in numbers]
        at = until
    return []
