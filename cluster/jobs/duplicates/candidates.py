"""Candidates: pairs of images that may be duplicates, with why."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np

from indexes.base import Hit
from indexes.duplicates.facts import Facts
from indexes.duplicates.levels import BURST_SECONDS
from indexes.relation.proposals import Proposal

MOST = 48
"""Candidates of one image, the likeliest first; what is left out is counted."""
NEAR = 40
"""Distance of hashes below which local features are not needed."""
NEIGHBOURS = 8
"""Pictures of a burst with which one is compared, before and after it."""


@dataclass(slots=True)
class Candidate:
    """Two images, `a` below `b`, and why they may be duplicates."""

    a: int
    b: int
    proposal: Proposal = field(default_factory=Proposal)
    """What the hash and local features say, with `query` as the query."""
    query: int = -1
    """The image whose local features were searched for."""
    close: bool = False
    """Whether vectors call them close."""
    identical: bool = False
    beside: bool = False
    """Whether their files have one name, and one is camera RAW."""
    at_once: bool = False
    """Whether they were taken within seconds."""

    @property
    def key(self) -> float:
        """Sort key: the likeliest come first."""
        strong = self.identical or self.beside
        return -1e6 if strong else self.proposal.key - 20 * self.close - 5 * self.at_once


class Candidates:
    """Candidates of a block of images, each pair once."""

    def __init__(self) -> None:
        self.of: dict[tuple[int, int], Candidate] = {}

    def between(self, one: int, other: int) -> Candidate:
        ends = min(one, other), max(one, other)
        return self.of.setdefault(ends, Candidate(*ends))

    def add_hash(self, one: int, other: int, distance: int) -> None:
        found = self.between(one, other)
        known = found.proposal.distance
        found.proposal.distance = distance if known is None else min(known, distance)

    def are_near(self, one: int, other: int) -> bool:
        """Whether the hashes alone tell that two pictures are to be compared whole on whole."""
        found = self.of.get((min(one, other), max(one, other)))
        distance = None if found is None else found.proposal.distance
        return distance is not None and distance < NEAR

    def add_hit(self, query: int, hit: Hit) -> None:
        """Add a hit of local features."""
        found = self.between(query, hit.image_id)
        if hit.homography is not None and (hit.inliers or 0) > found.proposal.inliers:
            found.query, found.proposal.inliers = query, hit.inliers or 0
            found.proposal.homography = np.array(hit.homography)
            found.proposal.support = hit.support

    def likeliest(self) -> tuple[list[Candidate], int]:
        """Of each image at most MOST candidates, and the number of those left out."""
        counts: dict[int, int] = {}
        kept = []
        for one in sorted(self.of.values(), key=lambda one: (one.key, one.a, one.b)):
            if min(counts.get(one.a, 0), counts.get(one.b, 0)) >= MOST:
                continue
            kept.append(one)
            for at in (one.a, one.b):
                counts[at] = counts.get(at, 0) + 1
        return kept, len(self.of) - len(kept)


class Roster:
    """What is known of all images beside their features: dates, names of RAW files."""

    def __init__(self) -> None:
        self._taken: list[tuple[float, int]] = []
        self._by_name: dict[tuple[str, str], set[int]] = {}
        self._raw: set[int] = set()
        self._known: dict[int, tuple[float | None, tuple[str, str]]] = {}

    def update(self, facts: Iterable[Facts]) -> None:
        """Add images, or update what is known of them."""
        dated = []
        for one in facts:
            image_id = one.image.image_id
            self.remove([image_id])
            name = str(PurePath(one.image.source).parent), one.stem
            self._known[image_id] = one.taken, name
            if one.stem and one.image.source != "online":
                self._by_name.setdefault(name, set()).add(image_id)
            if one.is_raw:
                self._raw.add(image_id)
            if one.taken is not None:
                dated.append((one.taken, image_id))
        if dated:
            self._taken = sorted([*self._taken, *dated])

    def remove(self, image_ids: Collection[int]) -> None:
        for image_id in image_ids:
            known = self._known.pop(image_id, None)
            if known is None:
                continue
            taken, name = known
            self._raw.discard(image_id)
            self._by_name.get(name, set()).discard(image_id)
            if taken is not None:
                del self._taken[bisect_left(self._taken, (taken, image_id))]

    def add_to(self, candidates: Candidates, image_id: int, allowed: Collection[int]) -> None:
        """Add what was taken within seconds of an image, or lies beside it as RAW."""
        taken, name = self._known[image_id]
        for other in self._by_name.get(name, ()):
            if other in allowed and (image_id in self._raw) != (other in self._raw):
                candidates.between(image_id, other).beside = True
        if taken is None:
            return
        at = bisect_left(self._taken, (taken, image_id))
        first = max(bisect_left(self._taken, (taken - BURST_SECONDS, -1)), at - NEIGHBOURS)
        last = min(bisect_right(self._taken, (taken + BURST_SECONDS, 1 << 62)), at + NEIGHBOURS + 1)
        for _, other in self._taken[first:last]:
            if other != image_id and other in allowed:
                candidates.between(image_id, other).at_once = True


def add_identical(
    candidates: Candidates, image_id: int, same: Collection[int], allowed: Collection[int]
) -> None:
    """Add the one before an image, by ids, of those with the same bytes. All together they are a
    chain, of which each has few pairs, however many there are."""
    others = sorted(at for at in same if at != image_id and at in allowed)
    if others:
        candidates.between(image_id, others[bisect_left(others, image_id) - 1]).identical = True
