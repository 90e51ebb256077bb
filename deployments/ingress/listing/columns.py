"""What image rows hold that a filter may ask for, of all images, in arrays that follow the log.

The arrays are read anew where the log no longer reaches back to them. They take 41 bytes an image.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.queries import Filter
from indexes.store.base import Image, Store
from indexes.store.summary import Summary
from models.pictures.formats import ENCODING_NAMES

PAGE = 4096
UNKNOWN = 255
"""Number of the format of an image without facts."""
DAY_SECONDS = 86_400
_FORMATS = {name: number for number, name in enumerate(ENCODING_NAMES)}
_ROW = np.dtype(
    [
        *(("id", "i8"), ("width", "i4"), ("height", "i4"), ("bytes", "i8")),
        *(("taken", "f8"), ("created", "f8"), ("format", "u1")),
    ]
)
Rows = npt.NDArray[np.void]
Mask = npt.NDArray[np.bool_]


class ImageColumns:
    """The columns of one store. Its methods may be called by any thread, and raise
    StoreUnavailable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: Rows = np.empty(0, _ROW)
        self._store = ""
        """UUID of the store that was read."""
        self._seq = 0
        """Seq up to which the log was applied."""

    def matching(self, store: Store, wanted: Filter, larger: int | None) -> npt.NDArray[np.int64]:
        """Ids, ascending, of the images that meet the conditions on rows as the store is now.

        `larger` is the number of pixels that an image must exceed. An image of which a value is
        unknown meets no condition on it.
        """
        rows = self._current(store)
        met: Mask = np.ones(len(rows), np.bool_)
        for mask in _masks(rows, wanted, larger):
            met &= mask
        return np.asarray(rows["id"][met], np.int64)

    def added_by_day(self, store: Store, days: int, today: int) -> npt.NDArray[np.int64]:
        """How many of the stored images were added on each of the last `days` days, today's last.

        A day is a number of days since the epoch, in UTC; of shape (days,).
        """
        ago = today - self._current(store)["created"] // DAY_SECONDS
        within = ago[(ago >= 0) & (ago < days)].astype(np.int64)
        return np.bincount(days - 1 - within, minlength=days)

    def _current(self, store: Store) -> Rows:
        """The rows up to the head of the log; the array is never changed afterwards."""
        with self._lock:
            if self._store != store.uuid:
                self._read_all(store)
            while (head := store.head()) != self._seq:
                page = store.log(self._seq, PAGE)
                if page is None:
                    self._read_all(store)
                    continue
                changed = sorted(page.seqs)
                self._rows = _replaced(self._rows, changed, store.images_by_id(changed).values())
                self._seq = page.head
                if page.head >= head:
                    break
            return self._rows

    def _read_all(self, store: Store) -> None:
        # What changes meanwhile stands in the log after this seq.
        seq, after = store.head(), -1
        parts = []
        while summaries := store.summaries(after, PAGE):
            after = summaries[-1].image_id
            parts.append(_rows_of(summaries))
        self._rows = np.concatenate(parts) if parts else np.empty(0, _ROW)
        self._seq, self._store = seq, store.uuid


def _replaced(rows: Rows, changed: list[int], images: Iterable[Image]) -> Rows:
    """The rows, ascending by id, after these ids changed; ids without an image are removed."""
    fresh = _rows_of(images)
    at = np.searchsorted(rows["id"], changed)
    known = at < len(rows)
    known[known] = rows["id"][at[known]] == np.asarray(changed)[known]
    if known.all() and len(fresh) == len(changed):
        updated = rows.copy()
        updated[at] = fresh
        return updated
    kept = np.delete(rows, at[known])
    return np.insert(kept, np.searchsorted(kept["id"], fresh["id"]), fresh)


def _rows_of(images: Iterable[Image | Summary]) -> Rows:
    return np.array([_row(image) for image in images], _ROW)


def _row(image: Image | Summary) -> tuple[Any, ...]:
    facts = image.facts
    size, taken, number = -1, None, UNKNOWN
    if facts is not None:
        size, taken, number = facts.bytes, facts.taken, _FORMATS.get(facts.format, UNKNOWN)
    shot = np.nan if taken is None else taken
    return image.image_id, image.width, image.height, size, shot, image.created, number


def _masks(rows: Rows, wanted: Filter, larger: int | None) -> Iterable[Mask]:
    """One mask for each condition."""
    if wanted.formats is not None:
        yield np.isin(rows["format"], [_FORMATS[name] for name in wanted.formats])
    if wanted.min_width is not None:
        yield rows["width"] >= wanted.min_width
    if wanted.min_height is not None:
        yield rows["height"] >= wanted.min_height
    if wanted.min_bytes is not None:
        yield rows["bytes"] >= wanted.min_bytes
    if wanted.max_bytes is not None:
        yield (rows["bytes"] >= 0) & (rows["bytes"] <= wanted.max_bytes)
    if larger is not None:
        yield rows["width"].astype(np.int64) * rows["height"] > larger
    for field, after, before in (
        ("taken", wanted.taken_after, wanted.taken_before),
        ("created", wanted.added_after, wanted.added_before),
    ):
        # A comparison with NaN, the date of what has none, is false.
        if after is not None:
            yield rows[field] >= _seconds(after)
        if before is not None:
            yield rows[field] < _seconds(before)


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
