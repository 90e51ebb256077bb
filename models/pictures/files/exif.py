"""What a block of EXIF says of a photograph (CIPA DC-008): how it is turned, when it was taken, and
how much the camera told."""

from __future__ import annotations

import re
import struct
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

from models.pictures.files.ifd import Tags, directories, number

_ORIENTATION = 0x0112
_DATES = ((36867, 37521, 36881), (36868, 37522, 36882), (306, 37520, 36880))
"""Tags of date, fraction of a second and offset from UTC: DateTimeOriginal, then DateTimeDigitized,
then DateTime."""
_DATE = re.compile(rb"\s*(\d{4})[:/.-](\d\d)[:/.-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_OFFSET = re.compile(rb"\s*([+-])(\d\d):(\d\d)")
_FRACTION = re.compile(rb"\d{1,9}")
_FIRST_YEAR = 1826
"""The year of the oldest photograph."""
_AHEAD_SECONDS = 86400.0
"""By how much a date may lie in the future: a local time without its offset may."""
_IMAGE_TAGS = frozenset({270, 271, 272, 305, 306, 315, 33432, 34853})
"""Tags that tell of the photograph, of the directory that describes the pixels."""
_EXIF_TAGS = frozenset(range(33434, 42241)) - {33723, 34377, 34665, 34675}
"""The range of the tags of the EXIF directory, without other blocks and pointers."""


class Exif(NamedTuple):
    """What EXIF says."""

    orientation: int = 1
    """1 to 8."""
    taken: float | None = None
    """Seconds since the epoch; a local time without its offset is read as UTC."""
    tags: int = 0
    """Number of tags about the photograph and the camera."""


NO_EXIF = Exif()


def read_exif(block: object) -> Exif:
    """Read a block of EXIF, which is a TIFF file after an optional `Exif` and two zero bytes.

    What is missing or damaged is left out; a date that can't be is none.
    """
    if not isinstance(block, bytes):
        return NO_EXIF
    merged: Tags = {}
    first: Tags | None = None
    try:
        for tags in directories(block.removeprefix(b"Exif\0\0")):
            first = tags if first is None else first
            merged = tags | merged
    except (struct.error, ValueError):
        pass
    turn = number(first or {}, _ORIENTATION, 1)
    told = sum(tag in _IMAGE_TAGS or tag in _EXIF_TAGS for tag in merged)
    return Exif(turn if 1 <= turn <= 8 else 1, _taken(merged), told)


def _taken(tags: Tags) -> float | None:
    latest = time.time() + _AHEAD_SECONDS
    for date, fraction, offset in _DATES:
        seconds = _seconds(_text(tags, date), _text(tags, fraction), _text(tags, offset))
        if seconds is not None and seconds <= latest:
            return seconds
    return None


def _seconds(date: bytes, fraction: bytes, offset: bytes) -> float | None:
    found = _DATE.match(date)
    if found is None:
        return None
    try:
        moment = datetime(*map(int, found.groups()), tzinfo=_zone(offset))  # type: ignore[arg-type,misc]
    except ValueError:
        return None
    if moment.year < _FIRST_YEAR:
        return None
    part = _FRACTION.match(fraction.strip())
    return moment.timestamp() + (float(b"0." + part[0]) if part else 0.0)


def _zone(offset: bytes) -> timezone:
    found = _OFFSET.match(offset)
    if found is None:
        return UTC
    apart = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-apart if found[1] == b"-" else apart)


def _text(tags: Tags, tag: int) -> bytes:
    value = tags.get(tag, b"")
    return value if isinstance(value, bytes) else b""
