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
from indexes.relation.judging import Relation
from models.errors import InvalidInput

TIE = 0.002
"""Part of a verified score that ranks decide; a hundredth of the explained share weighs more."""
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
    relation: Relation | None = None
    """The relation of the query picture to the image, where it is known."""
    proposed_by: frozenset[str] = frozenset()
    """Names of the verifying retrievers that hold the image."""

    @property
    def confidence(self) -> float | None:
        """Confidence of the relation, or else of the surest retriever.

        None where one retriever has no confidence, because that one may be the surest. A retriever
        that proposed a relation which does not hold has none to give.
        """
        if self.relation is not None and (self.verified or self.relation.kind == "shares"):
            return self.relation.confidence
        refuted = self.proposed_by if self.relation is not None else frozenset()
        counted = [place for name, place in self.places.items() if name not in refuted]
        known = [place.hit.confidence for place in counted]
        if self.relation is not None:
            known.append(self.relation.confidence)
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
            **({} if self.relation is None else self.relation.row()),
            "retrievers": self.retrievers,
        }


def fuse(
    lists: Sequence[RankedList],
    exclude: Collection[int] = (),
    relations: Mapping[int, Relation] | None = None,
) -> list[FusedHit]:
    """Weighted reciprocal rank fusion with verified images first; ties by image id.

    With relations, an image is verified if its relation is, and verified images are ordered by the
    relation's confidence and explained share; ranks only break ties.

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
    proposers: defaultdict[int, set[str]] = defaultdict(set)
    for ranked in used:
        for rank, hit in enumerate(_eligible_hits(ranked, exclude)):
            share = ranked.weight / total * (RRF_K + 1) / (RRF_K + 1 + rank)
            shares[hit.image_id].append(share)
            _show(shown[hit.image_id], ranked.name, rank, hit)
            if ranked.verifying:
                proposers[hit.image_id].add(ranked.name)
    fused = []
    for key in shares:
        relation = None if relations is None else relations.get(key)
        verified = key in proposers if relation is None else relation.is_verified
        score = _score(shares[key], verified, relation)
        proposed_by = frozenset(proposers[key]) if key in proposers else frozenset()
        fused.append(FusedHit(key, score, shown[key], verified, relation, proposed_by))
    return sorted(fused, key=lambda hit: (not hit.verified, -hit.score, hit.image_id))


def above_confidence(hits: Sequence[FusedHit], least: float) -> list[FusedHit]:
    """Hits with at least this confidence, and hits without a confidence."""
    return [hit for hit in hits if (sure := hit.confidence) is None or sure >= least]


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


def _score(shares: Sequence[float], verified: bool, relation: Relation | None) -> float:
    # fsum, so that the order of the lists can't break or make a tie.
    ranks = min(1.0, fsum(shares))
    if not verified or relation is None:
        return ranks / 2 + 0.5 * verified
    sure = 0.7 * round(relation.confidence, 1) + 0.3 * round(relation.explained, 2)
    return 0.5 + 0.5 * ((1 - TIE) * sure + TIE * ranks)


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
