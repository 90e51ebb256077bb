"""Parameters of a search by local features, and the ranking of its candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from pydantic import Field, model_validator

from indexes.base import MAX_K, Hit, SearchParams, Support
from indexes.local.support import supported, with_rarity
from indexes.local.verification import (
    KeypointArrays,
    Matches,
    Verified,
    agreeing,
    match,
    matches_of,
    similarity,
    steadied,
    verify,
)
from models.lightglue import LightGlue
from models.types import Features

DEFAULT_K = 20
MIN_INLIERS = 6
"""Minimum number of inliers; fewer than 1 in 1,000 unrelated pairs reach it
(benchmarks/quality.py)."""


SURE_INLIERS = 12
"""Number of inliers from which nothing else is proposed."""
PROPOSED = 6
"""Number of images that are proposed on a similarity transform."""


class LocalParams(SearchParams):
    """Parameters; verification is on unless switched off, and then `matches` are votes."""

    k: int | None = Field(None, ge=1, le=MAX_K, description="At most this many hits; default 20.")
    k_clusters: int = Field(
        5, ge=1, le=64, description="Nearest descriptors that each query descriptor votes for."
    )
    knn_min_matches: int = Field(1, ge=1, description="Minimum number of votes of a candidate.")
    matching_threshold: float = Field(
        0.9, gt=0, le=4, description="Maximum squared L2 distance of a match, of unit descriptors."
    )
    use_smnn_matching: bool = Field(
        True, description="Match stored descriptors: mutual nearest neighbours with ratio test."
    )
    smnn_match_threshold: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Ratio of the distances to the nearest and second nearest descriptor.",
    )
    use_ransac: bool = Field(True, description="Verify by a homography; hits have `inliers`.")
    min_inliers: int = Field(
        MIN_INLIERS, ge=4, description="Minimum number of inliers of a verified hit."
    )
    explain: bool = Field(False, description="Return the homography and the matched points.")
    aligned: bool = Field(
        False,
        description="Return the homography, and propose likely candidates that do not verify.",
    )

    @model_validator(mode="after")
    def _no_distance(self) -> LocalParams:
        if self.distance_threshold is not None:
            raise ValueError("local matches have no distance: give k or min_inliers")
        return self

    @property
    def proposes(self) -> bool:
        """Whether images are proposed for a comparison by pixels."""
        return self.use_ransac and self.aligned

    @property
    def verifies(self) -> bool:
        """Whether stored descriptors are compared; otherwise votes alone make the hits."""
        return self.use_smnn_matching or self.use_ransac


class Ranking:
    """Collects the best hit of each image while its candidates arrive by falling number of
    matches."""

    def __init__(self, params: LocalParams, *, mirrors: bool) -> None:
        self._params = params
        self._mirrors = mirrors
        self._best: dict[int, Hit] = {}

    def is_settled(self, matches: int) -> bool:
        """Whether no candidate with at most so many matches can change the first k hits."""
        k = self._params.k or DEFAULT_K
        least = self._params.min_inliers if self._params.use_ransac else 1
        if matches < least:
            return True
        if len(self._best) < k:
            return False
        return sorted(map(score, self._best.values()), reverse=True)[k - 1] > matches

    def add(self, image_id: int, variant: int, matches: Matches) -> None:
        mirrored = bool(variant) if self._mirrors else None
        matched = Hit(image_id, matches=len(matches), mirrored=mirrored)
        hit = self._checked(matched, variant, matches) if self._params.use_ransac else matched
        best = self._best.get(image_id)
        if hit is not None and (best is None or score(hit) > score(best)):
            self._best[image_id] = hit

    def match_again(
        self,
        matched: Sequence[tuple[Matches, int, int]],
        rows: Callable[[int, int], Matches],
        most: int,
    ) -> None:
        """Verify the likeliest candidates, given by falling number of matches, on the matches of a
        better matcher, unless a hit is sure."""
        if self._has_sure_hit:
            return
        likeliest: dict[int, int] = {}
        for _, image_id, variant in matched:
            likeliest.setdefault(image_id, variant)
        for image_id, variant in islice(likeliest.items(), most):
            self.add(image_id, variant, rows(image_id, variant))

    def propose(self, matched: Sequence[tuple[Matches, int, int]]) -> None:
        """Add candidates that may show a small part of the query or of the image, unless a hit is
        sure."""
        if self._has_sure_hit:
            return
        proposed: dict[int, Hit] = {}
        for matches, image_id, variant in matched:
            fit = None if image_id in self._best else similarity(matches)
            best = proposed.get(image_id)
            if fit is None or (best is not None and score(best) >= fit.inliers):
                continue
            mirrored = bool(variant) if self._mirrors else None
            hit = Hit(image_id, matches=len(matches), mirrored=mirrored)
            hit = hit._replace(support=Support(0.0, 0.0, 0.0, 0.0, proposed=True))
            proposed[image_id] = self._described(hit, variant, fit)
        self._best |= proposed

    @property
    def _has_sure_hit(self) -> bool:
        return any(score(hit) >= SURE_INLIERS for hit in self._best.values())

    def hits(self) -> list[Hit]:
        return sorted(self._best.values(), key=lambda hit: (-score(hit), hit.image_id))

    def _checked(self, hit: Hit, variant: int, matches: Matches) -> Hit | None:
        verified = verify(matches)
        if verified is None or verified.inliers < self._params.min_inliers:
            return None
        if self._params.proposes and verified.inliers < SURE_INLIERS:
            verified = steadied(verified, matches)
        return self._described(hit, variant, verified)

    def _described(self, hit: Hit, variant: int, verified: Verified) -> Hit:
        hit = hit._replace(inliers=verified.inliers)
        if not (self._params.explain or self._params.aligned):
            return hit
        homography, points = verified.shown(mirrored=bool(variant))
        return hit._replace(homography=homography, points=points)


def score(hit: Hit) -> int:
    """Inliers or, without verification, matches."""
    count = hit.matches if hit.inliers is None else hit.inliers
    assert count is not None
    return count


def chosen(hits: Sequence[Hit]) -> list[Hit]:
    """The hits, of whatever is proposed only the best, and none of it beside a sure hit."""
    proposed = [hit for hit in hits if hit.support is not None and hit.support.proposed]
    rest = {hit.image_id for hit in hits} - {hit.image_id for hit in proposed}
    if any(score(hit) >= SURE_INLIERS for hit in hits if hit.image_id in rest):
        proposed = []
    proposed.sort(key=lambda hit: (-score(hit), hit.image_id))
    rest |= {hit.image_id for hit in proposed[:PROPOSED]}
    return [hit for hit in hits if hit.image_id in rest]


def verified_hits(
    variants: Sequence[Features],
    stored: Mapping[int, Features],
    shortlist: Sequence[tuple[int, int]],
    params: LocalParams,
    matcher: LightGlue | None = None,
) -> list[Hit]:
    """Hits of the shortlist, given as image id and number of the variant, best first.

    If no hit is sure, the `matcher`, once it is loaded, matches the likeliest candidates again.
    """
    images = {image_id: KeypointArrays.of(features) for image_id, features in stored.items()}
    ratio = params.smnn_match_threshold if params.use_smnn_matching else 1.0
    every = []
    for variant, features in enumerate(variants):
        ids = [one for one, which in shortlist if which == variant and one in images]
        sides = [images[image_id] for image_id in ids]
        found = match(KeypointArrays.of(features), sides, ratio, params.matching_threshold)
        every += [(one, image_id, variant) for one, image_id in zip(found, ids, strict=True)]
    matched = [
        (agreeing(one) if params.use_ransac else one, image_id, variant)
        for one, image_id, variant in every
    ]
    matched.sort(key=lambda found: (-len(found[0]), *found[1:]))
    ranking = Ranking(params, mirrors=len(variants) > 1)
    for matches, image_id, variant in matched:
        if ranking.is_settled(len(matches)):
            break
        ranking.add(image_id, variant, matches)
    if matcher is not None and matcher.reason is None and params.use_ransac:

        def rows(image_id: int, variant: int) -> Matches:
            pairs = matcher.match(variants[variant], stored[image_id])
            return matches_of(KeypointArrays.of(variants[variant]), images[image_id], pairs)

        ranking.match_again(matched, rows, matcher.options.candidates)
    if params.proposes:
        ranking.propose(every)
        return supported(ranking.hits(), KeypointArrays.of(variants[0]), images)
    return ranking.hits()


def aligned_pair(variants: Sequence[Features], image: Features) -> Hit | None:
    """The alignment of a query, given with its mirror image, and one picture; None if none is
    likely. Of few inliers, it is only to be compared by pixels."""
    params = LocalParams(aligned=True, explain=True, min_inliers=5)
    shortlist = [(0, variant) for variant in range(len(variants))]
    if not len(image) or not all(map(len, variants)):
        return None
    kept = with_rarity(chosen(verified_hits(variants, {0: image}, shortlist, params)))
    return kept[0] if kept else None
