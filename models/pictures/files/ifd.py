"""Image file directories of TIFF and of the camera RAW formats built on it (TIFF 6.0)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

Tags = dict[int, tuple[int, ...] | bytes]

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4}
_LETTERS = {3: "H", 4: "I", 8: "h", 9: "i", 13: "I"}
_MAX_DIRECTORIES = 64
_MAX_ENTRIES = 1000
_MAX_VALUES = 4096
SUB_IFDS, EXIF_IFD = 330, 34665


def directories(data: bytes) -> Iterator[Tags]:
    """The directories of a file, those inside others too; values of whole numbers and bytes only.

    Of a tag that is repeated the first counts. A damaged directory ends or shortens the list.
    """
    order = "<" if data[:2] == b"II" else ">"
    todo, seen = [_whole(data, 4, order)], set[int]()
    while todo and len(seen) < _MAX_DIRECTORIES:
        at = todo.pop(0)
        if at in seen or not 8 <= at < len(data) - 2:
            continue
        seen.add(at)
        tags, after = _directory(data, at, order)
        for pointer in (SUB_IFDS, EXIF_IFD):
            values = tags.get(pointer, ())
            todo += values if isinstance(values, tuple) else ()
        todo.append(after)
        yield tags


def numbers(tags: Tags, tag: int) -> tuple[int, ...]:
    """The whole numbers of a tag; none where it is missing or of another type."""
    values = tags.get(tag, ())
    return values if isinstance(values, tuple) else ()


def number(tags: Tags, tag: int, missing: int = 0) -> int:
    """The first whole number of a tag."""
    return next(iter(numbers(tags, tag)), missing)


def _directory(data: bytes, at: int, order: str) -> tuple[Tags, int]:
    (count,) = struct.unpack_from(order + "H", data, at)
    tags: Tags = {}
    for entry in range(at + 2, min(at + 2 + 12 * min(count, _MAX_ENTRIES), len(data) - 11), 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, entry)
        size = _SIZES.get(kind, 0) * values
        where = entry + 8 if size <= 4 else _whole(data, entry + 8, order)
        if not size or where + size > len(data) or tag in tags:
            continue
        if kind not in _LETTERS:
            tags[tag] = data[where : where + size]
        elif values <= _MAX_VALUES:
            tags[tag] = struct.unpack_from(f"{order}{values}{_LETTERS[kind]}", data, where)
    return tags, _whole(data, at + 2 + 12 * count, order)


def _whole(data: bytes, at: int, order: str) -> int:
    found = data[at : at + 4]
    return int(struct.unpack(order + "I", found)[0]) if len(found) == 4 else 0
