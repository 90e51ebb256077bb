"""A small exact index over packed bits, for tests of the code around an index."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from indexes.arrays.frozen import Frozen, FrozenArray, Saved
from indexes.base import DistanceParams, Hit, Index, Query, Rows, SearchParams
from models.types import Features, Options


def decode(row: bytes) -> Features:
    """Decode 72 bytes as uint8 (72,); raise ValueError for any other length."""
    return np.frombuffer(row, np.uint8).reshape(72)


def nearest(row: bytes, k: int = 5) -> tuple[Query, SearchParams]:
    return Query([decode(row)]), DistanceParams(k=k)


class TinyIndex(Index):
    """An index that computes the Hamming distance to every row."""

    def __init__(self, options: Options, rows: Rows) -> None:
        super().__init__(options, rows)
        self.held: dict[int, Features] = {}
        self.applied: list[int] = []
        """Number of changes in each apply."""

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        self.applied.append(len(changes))
        for image_id, features in changes.items():
            if features is None:
                self.held.pop(image_id, None)
            else:
                self.held[image_id] = features

    def freeze(self) -> Frozen:
        rows = np.array(list(self.held.values()), np.uint8).reshape(-1, 72)
        ids = np.array(list(self.held), np.int64)
        return Frozen({}, {"ids": FrozenArray.of(ids), "rows": FrozenArray.of(rows)})

    def restore(self, saved: Saved) -> None:
        self.held = dict(zip(saved.array("ids").tolist(), saved.array("rows"), strict=True))

    def rows_held(self) -> dict[int, bytes]:
        return {image_id: features.tobytes() for image_id, features in self.held.items()}

    def __len__(self) -> int:
        return len(self.held)

    @property
    def nbytes(self) -> int:
        return 72 * len(self.held)

    @property
    def kind(self) -> str:
        return "tiny"

    def _search(self, query: Query, params: SearchParams) -> list[Hit]:
        ids = sorted(self.held)
        rows = np.stack([self.held[image_id] for image_id in ids])
        distances = np.bitwise_count(rows ^ query.variants[0]).sum(axis=1)
        order = np.argsort(distances, kind="stable")[: params.k]
        return [Hit(ids[at], distance=float(distances[at])) for at in order]


def no_rows(_: object) -> dict[int, Features]:
    return {}


def tiny() -> TinyIndex:
    return TinyIndex(Options(), no_rows)
