"""Which images of a store carry a tag, kept in memory by following the log."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.store.base import Image, Store

PAGE = 4096
TAGS = "tags"
"""The key of an image's metadata that holds its tags: a list, or one text."""


@dataclass(frozen=True)
class Membership:
    """The images that carried the tag at one moment; it never changes."""

    generations: Mapping[int, int]
    """Generation by id."""

    @cached_property
    def ids(self) -> npt.NDArray[np.int64]:
        """All ids, ascending."""
        return np.sort(np.fromiter(self.generations, np.int64, len(self.generations)))

    def __contains__(self, image_id: int) -> bool:
        return image_id in self.generations


class Members:
    """Follows which images carry a tag. Its methods may be called by any thread."""

    def __init__(self, base: Store, tag: str) -> None:
        self._base = base
        self._tag = tag
        self._lock = threading.Lock()
        self._known = Membership({})
        self._seq: int | None = None
        """Seq up to which the log was applied; None before the first read."""

    def current(self) -> Membership:
        """The members after every write that was acknowledged before. Raises StoreUnavailable."""
        with self._lock:
            if self._seq is None:
                self._seq = self._read_all()
            while (head := self._base.head()) != self._seq:
                page = self._base.log(self._seq, PAGE)
                if page is None:
                    self._seq = self._read_all()
                    continue
                self._update(page.seqs)
                self._seq = page.head
                if page.head >= head:
                    break
            return self._known

    def _update(self, changed: Iterable[int]) -> None:
        ids = list(changed)
        now = self._carrying(ids)
        before = self._known.generations
        if any(before.get(at) != now.get(at) for at in ids):
            kept = {at: before[at] for at in before.keys() - set(ids)}
            self._known = Membership(kept | now)

    def _read_all(self) -> int:
        """Read all members. What changes meanwhile stands in the log after the returned seq."""
        seq = self._base.head()
        ids = self._base.ids_by_metadata({TAGS: self._tag})
        found: dict[int, int] = {}
        for start in range(0, len(ids), PAGE):
            found |= self._carrying(ids[start : start + PAGE])
        self._known = Membership(found)
        return seq

    def _carrying(self, ids: list[int]) -> dict[int, int]:
        images = self._base.images_by_id(ids).values()
        return {one.image_id: one.generation for one in images if carries(one, self._tag)}


def carries(image: Image, tag: str) -> bool:
    """Whether an image's metadata has the tag. Tags of annotations don't count: a model makes
    them."""
    tags: Any = image.metadata.get(TAGS)
    return tags == tag or (isinstance(tags, list) and tag in tags)
