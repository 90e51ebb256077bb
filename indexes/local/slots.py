"""Slots of the local index: the image of each slot, and the scale and angle of its keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.arrays.frozen import FrozenArray, Saved
from models.types import Features

Slots = npt.NDArray[np.int64]

OCTAVE = 16
"""Steps per octave of a quantised log2 scale."""
SMALLEST_OCTAVE = -4
TURN = 256
"""Steps per turn of a quantised angle."""


def quantise_geometry(features: Features) -> npt.NDArray[np.uint8]:
    """Quantised geometry (n, 2) uint8 of n features: log2 scale in steps of 1/16 from 1/16 px,
    angle in 1/256 turn."""
    octave = np.log2(np.maximum(features["scale"], 1e-6)) - SMALLEST_OCTAVE
    scale = np.clip(np.rint(octave * OCTAVE), 0, 255)
    angle = np.rint(features["angle"] * (TURN / 360)) % TURN
    return np.stack([scale, angle], axis=1).astype(np.uint8)


class SlotTable:
    """Slots count up from 0. A dropped slot is not used again until `compact`."""

    def __init__(self) -> None:
        self.count = 0
        """Number of slots given out."""
        self.live_keypoints = 0
        self._image_ids = np.empty(1024, np.int64)
        self._starts = np.zeros(1025, np.int64)
        self._geometry = np.empty((1024, 2), np.uint8)
        self._slots: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def dead(self) -> int:
        return self.count - len(self)

    @property
    def nbytes(self) -> int:
        return self._image_ids.nbytes + self._starts.nbytes + self._geometry.nbytes

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """Image id by slot (count,); -1 where the slot is dead."""
        return self._image_ids[: self.count]

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Offsets (count + 1,): where each slot's rows of `geometry` begin."""
        return self._starts[: self.count + 1]

    @property
    def geometry(self) -> npt.NDArray[np.uint8]:
        """Scale and angle (keypoints, 2); see `quantise_geometry`."""
        return self._geometry[: self.starts[-1]]

    def freeze(self) -> dict[str, FrozenArray]:
        """See Index.freeze. Only `image_ids` is ever overwritten; all other arrays are appended to
        or replaced."""
        return {
            "image_ids": FrozenArray.of(self.image_ids.copy()),
            "starts": FrozenArray.of(self.starts),
            "geometry": FrozenArray.of(self.geometry),
        }

    @classmethod
    def restored(cls, saved: Saved) -> SlotTable:
        table = cls()
        table._image_ids = saved.array("image_ids")
        table._starts, table._geometry = saved.array("starts"), saved.array("geometry")
        table.count = len(table._image_ids)
        live = np.flatnonzero(table._image_ids >= 0)
        table._slots = dict(zip(table._image_ids[live].tolist(), live.tolist(), strict=True))
        table.live_keypoints = int(np.diff(table._starts)[live].sum())
        return table

    def add(self, image_id: int, features: Features) -> int:
        """Take a fresh slot for an image that has none."""
        assert image_id not in self._slots, image_id
        slot = self.count
        start = int(self._starts[slot])
        end = start + len(features)
        self._image_ids = _grown(self._image_ids, slot + 1)
        self._starts = _grown(self._starts, slot + 2)
        self._geometry = _grown(self._geometry, end)
        self._image_ids[slot] = image_id
        self._starts[slot + 1] = end
        self._geometry[start:end] = quantise_geometry(features)
        self._slots[image_id] = slot
        self.count += 1
        self.live_keypoints += len(features)
        return slot

    def drop(self, image_id: int) -> bool:
        """Drop an image's slot. Returns whether it had one."""
        slot = self._slots.pop(image_id, None)
        if slot is None:
            return False
        self._image_ids[slot] = -1
        self.live_keypoints -= int(self._starts[slot + 1] - self._starts[slot])
        return True

    def has(self, image_id: int) -> bool:
        return image_id in self._slots

    def of(self, image_ids: Sequence[int] | npt.NDArray[np.int64]) -> Slots:
        """The live slots of those image ids that have one."""
        found = (self._slots.get(int(image_id), -1) for image_id in image_ids)
        return np.fromiter((slot for slot in found if slot >= 0), np.int64)

    def compact(self) -> Slots:
        """Renumber the live slots in order. Returns the new slot, or -1, by old slot."""
        live = self.image_ids >= 0
        renumbered = np.where(live, np.cumsum(live) - 1, -1)
        sizes = np.diff(self.starts)
        self._geometry = self.geometry[np.repeat(live, sizes)]
        self._starts = np.concatenate([[0], np.cumsum(sizes[live])])
        self._image_ids = self.image_ids[live]
        self.count = len(self._image_ids)
        self._slots = {int(image_id): slot for slot, image_id in enumerate(self._image_ids)}
        return renumbered


def _grown(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """The array with room for `size` rows; its capacity grows by half whenever it is full."""
    if size <= len(array):
        return array
    grown = np.empty((max(size, len(array) + len(array) // 2), *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
