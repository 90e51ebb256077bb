"""Fusion: one list from the lists of several retrievers. Pure functions.

`fuse` is weighted reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009); `old_rule` is
the rule of the old gateway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, NamedTuple

from indexes.base import Hit
from models.errors import InvalidInput

RRF_K = 60
"""The constant of Cormack et al.; a larger one makes the first ranks stand out less."""


@dataclass(frozen=True, slots=True)
class RankedList:
    """One retriever's hits, best first, and the limits that a hit must meet to count."""

    name: str
    hits: Sequence[Hit]
    weight: float = 1.0
    verifying: bool = False
    """Whether a hit within the limits proves that it is the same picture or scene."""
    distance_below: float | None = None
    """Only hits strictly nearer than this count."""
    min_inliers: int | None = None
    """Only hits with at least so many inliers count."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise InvalidInput(f"the weight of {self.name} must be 0 or more", "retrievers")

    def is_eligible(self, hit: Hit) -> bool:
        """Whether the hit is within this list's limits."""
        near = self.distance_below is None or (
            hit.distance is not None and hit.distance < self.distance_below
        )
        return near and (self.min_inliers is None or (hit.inliers or 0) >= self.min_inliers)


class Place(NamedTuple):
    """The place of an image in one retriever's list."""

    rank: int
    hit: Hit

    def row(self) -> dict[str, Any]:
        """The place as JSON."""
        said = self.hit.row()
        del said["image_id"]
        return {"rank": self.rank, **said}


@dataclass(frozen=True, slots=True)
class FusedHit:
    image_id: int
    score: float
    """Score of `fuse`: above 0.5 for a verified image, 1 for one that is first in every list."""
    places: Mapping[str, Place]
    verified: bool = False

    @property
    def confidence(self) -> float | None:
        """Confidence of the surest retriever; None where one of them has no confidence, because
        that one may be the surest."""
        known = [place.hit.confidence for place in self.places.values()]
        sure = [one for one in known if one is not None]
        return max(sure) if sure and len(sure) == len(known) else None

    @property
    def retrievers(self) -> dict[str, dict[str, Any]]:
        """By retriever: the rank there (from 0) and what its hit says (distance, inliers, …)."""
        return {name: place.row() for name, place in self.places.items()}

    def row(self) -> dict[str, Any]:
        """The hit as JSON."""
        sure = {} if self.confidence is None else {"confidence": self.confidence}
        return {
            "image_id": self.image_id,
            "score": self.score,
            **sure,
            "retrievers": self.retrievers,
        }


def fuse(lists: Sequence[RankedList], exclude: Collection[int] = ()) -> list[FusedHit]:
    """Weighted reciprocal rank fusion with verified images first; ties by image id.

    Lists are cut to eligible hits, and ranks count the remaining ones. An image's sum of weight /
    (60 + rank), rank from 1, is divided by the largest possible sum. The lower half of the scores
    is for images that no verifying list holds, the upper half for the others. Lists of weight 0 and
    the excluded (and negative) ids are left out. A retriever may have several lists, one for each
    query picture.
    """
    used = [ranked for ranked in lists if ranked.weight > 0]
    total = sum(ranked.weight for ranked in used)
    shares: defaultdict[int, list[float]] = defaultdict(list)
    shown: defaultdict[int, dict[str, Place]] = defaultdict(dict)
    verified: set[int] = set()
    for ranked in used:
        for rank, hit in enumerate(_eligible_hits(ranked, exclude)):
            share = ranked.weight / total * (RRF_K + 1) / (RRF_K + 1 + rank)
            shares[hit.image_id].append(share)
            _show(shown[hit.image_id], ranked.name, rank, hit)
            if ranked.verifying:
                verified.add(hit.image_id)
    fused = [
        FusedHit(key, _score(shares[key], key in verified), shown[key], key in verified)
        for key in shares
    ]
    return sorted(fused, key=lambda hit: (not hit.verified, -hit.score, hit.image_id))


def above_confidence(hits: Sequence[FusedHit], least: float) -> list[FusedHit]:
    """Hits with at least this confidence, and hits without a confidence."""
    return [hit for hit in hits if hit.confidence is None or hit.confidence >= least]


def old_rule(lists: Sequence[RankedList]) -> list[FusedHit]:
    """The old gateway's rule: images in two or more lists, by their sum of 1 / (rank + 1).

    Ranks count from 0 over the whole lists; weights and limits are ignored. Ties by image id.
    """
    shares: defaultdict[int, list[float]] = defaultdict(list)
    shown: defaultdict[int, dict[str, Place]] = defaultdict(dict)
    for ranked in lists:
        for rank, hit in enumerate(ranked.hits):
            shares[hit.image_id].append(1 / (rank + 1))
            _show(shown[hit.image_id], ranked.name, rank, hit)
    fused = [FusedHit(key, fsum(shares[key]), shown[key]) for key in shares if len(shares[key]) > 1]
    return sorted(fused, key=lambda hit: (-hit.score, hit.image_id))


def _score(shares: Sequence[float], verified: bool) -> float:
    # fsum, so that the order of the lists can't break or make a tie.
    return min(1.0, fsum(shares)) / 2 + 0.5 * verified


def _eligible_hits(ranked: RankedList, exclude: Collection[int]) -> list[Hit]:
    barred = frozenset(exclude)
    return [
        hit
        for hit in ranked.hits
        if hit.image_id >= 0 and hit.image_id not in barred and ranked.is_eligible(hit)
    ]


def _show(shown: dict[str, Place], name: str, rank: int, hit: Hit) -> None:
    """Keep the retriever's hit of this image; of several lists of one retriever, the best-ranked
    hit."""
    if name not in shown or rank < shown[name].rank:
        shown[name] = Place(rank, hit)
