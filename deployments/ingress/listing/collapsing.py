"""Folds hits of one answer that are copies of each other into the first of them.

Files with the same content are copies. Of others the hash proposes, under all 8 flips and
rotations, and comparing the previews decides; each pair of contents is compared once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from indexes.relation.judging import relate
from indexes.relation.side import Side
from indexes.store.base import Image, Preview, Space, Store
from models.extractors.phash import turned_codes

PHASH = "phash"
_BYTES = 72
CANDIDATE = 100
"""Distance below which hits are compared. That of copies is below 64; turning a hash instead of
its picture adds up to 38."""
SURE_DISTANCE = 24
"""Distance below which hits without a preview are copies."""
MAX_COMPARED = 32
"""Nearest candidates of one hit that are compared, at most."""
KEPT_PAIRS = 100_000

Pair = tuple[str, str]


class Folding:
    """Folds hits, and remembers by content which pairs it compared. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pairs: OrderedDict[Pair, bool] = OrderedDict()

    def folded(
        self,
        store: Store,
        image_ids: Sequence[int],
        images: Mapping[int, Image],
        fingerprint: str | None,
    ) -> Iterator[tuple[int, list[int]]]:
        """Yield each hit that is no copy of an earlier one, with the ids of its later copies.

        `image_ids` are in the order of the answer. `fingerprint` is that of the hashes; None
        without any. A hit costs a comparison of hashes with all later ones. Raises
        StoreUnavailable.
        """
        rows = {} if fingerprint is None else store.rows(Space(PHASH, fingerprint), image_ids)
        left = list(image_ids)
        while left:
            first, *others = left
            copies = set(self._copies(store, first, others, images, rows))
            yield first, [at for at in others if at in copies]
            left = [at for at in others if at not in copies]

    def _copies(
        self,
        store: Store,
        first: int,
        others: Sequence[int],
        images: Mapping[int, Image],
        rows: Mapping[int, bytes],
    ) -> Iterator[int]:
        if first not in images:
            return
        content = images[first].sha256
        yield from (at for at in others if at in images and images[at].sha256 == content)
        near = _nearest(rows, first, others)
        unknown = {}
        for at, distance in near.items():
            if at not in images or images[at].sha256 == content:
                continue
            known = self._known(_pair(content, images[at].sha256))
            if known:
                yield at
            elif known is None:
                unknown[at] = distance
        if unknown:
            previews = store.previews([first, *unknown])
            yield from self._compared(first, unknown, images, previews)

    def _compared(
        self,
        first: int,
        near: Mapping[int, int],
        images: Mapping[int, Image],
        previews: Mapping[int, Preview],
    ) -> Iterator[int]:
        side = Side.read(previews[first].jpeg) if first in previews else None
        for at, distance in near.items():
            other = Side.read(previews[at].jpeg) if at in previews and side is not None else None
            if side is None or other is None:
                if distance < SURE_DISTANCE:
                    yield at
                continue
            found = relate(side, other, (), whole=True)
            is_copy = found.kind == "same" and "negative" not in found.changes
            self._keep(_pair(images[first].sha256, images[at].sha256), is_copy)
            if is_copy:
                yield at

    def _known(self, pair: Pair) -> bool | None:
        with self._lock:
            return self._pairs.get(pair)

    def _keep(self, pair: Pair, is_copy: bool) -> None:
        with self._lock:
            self._pairs[pair] = is_copy
            if len(self._pairs) > KEPT_PAIRS:
                self._pairs.popitem(last=False)


def _pair(one: str, other: str) -> Pair:
    return (one, other) if one < other else (other, one)


def _nearest(rows: Mapping[int, bytes], first: int, others: Sequence[int]) -> dict[int, int]:
    """The MAX_COMPARED nearest candidates of a hit, nearest first, with their distances."""
    hashed = [at for at in others if len(rows.get(at, b"")) == _BYTES]
    if len(rows.get(first, b"")) != _BYTES or not hashed:
        return {}
    codes = np.frombuffer(b"".join(rows[at] for at in hashed), np.uint64).reshape(len(hashed), -1)
    (turned,) = turned_codes(np.frombuffer(rows[first], np.uint8)[None]).view(np.uint64)
    apart = np.bitwise_count(codes[:, None] ^ turned).sum(-1).min(-1)
    order = np.argsort(apart, kind="stable")[:MAX_COMPARED]
    return {hashed[n]: int(apart[n]) for n in order if apart[n] < CANDIDATE}
