"""Proposals: a least confidence and weights of fusion, fitted on one half of the pictures and
reported on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.jobs.evaluation.alterations import UNALTERED
from cluster.jobs.evaluation.asking import Answer
from cluster.jobs.evaluation.figures import Known
from indexes.ranking.fusion import RRF_K

WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
CONFIDENCES = (*(step / 20 for step in range(1, 20)), 0.97, 0.99)
MOST_WRONG = 0.01
"""Share of queries that may have a wrong hit."""
SLACK = 0.5
"""Share of the least confidence with which the unaltered picture must find what else is right: near
a limit, one may be just above it and the other just below."""
LEAST_GAIN = 0.002
"""Gain of mean reciprocal rank below which weights are left as they are."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What settings do on some pictures."""

    found: float
    """Share of the copies whose picture is among the hits."""
    wrong: float
    """Share of the copies with a hit that the unaltered picture does not find."""
    reciprocal_rank: float
    """Mean reciprocal rank of the picture, without a least confidence."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Settings of the fused search."""

    min_confidence: float
    weights: Mapping[str, float]
    """Of retrievers; 1 for those that are left out."""
    before: Measured
    """On the half that was not used to choose them: by the settings without an evaluation."""
    after: Measured


def propose(answers: Sequence[Answer], default: float = 0.5) -> Proposal:
    """Choose the least confidence and the weights.

    The least confidence is the lowest at which at most MOST_WRONG of the queries have a wrong hit.
    The weights are found by coordinate ascent on the mean reciprocal rank.
    """
    known = Known(answers)
    copies = [answer for answer in answers if answer.alteration != UNALTERED]
    one = [answer for answer in copies if int(answer.sha256[:8], 16) % 2 == 0]
    other = [answer for answer in copies if int(answer.sha256[:8], 16) % 2]
    if not one or not other:
        one = other = copies
    weights = _weights(one)
    chosen = _least_confidence(one, known)
    return Proposal(
        chosen,
        weights,
        _measured(other, known, default, {}),
        _measured(other, known, chosen, weights),
    )


def _measured(
    answers: Sequence[Answer], known: Known, least: float, weights: Mapping[str, float]
) -> Measured:
    found = [
        any(
            hit.image_id == answer.image_id and (hit.confidence or 0) >= least
            for hit in answer.hits
        )
        for answer in answers
    ]
    ranks = reciprocal_ranks(answers, weights)
    return Measured(float(np.mean(found)), _wrong(answers, known, least), float(np.mean(ranks)))


def _wrong(answers: Sequence[Answer], known: Known, least: float) -> float:
    wrong = [
        any(
            hit.confidence is not None
            and hit.confidence >= least
            and not known.is_right(answer, hit, least * SLACK)
            for hit in answer.hits
        )
        for answer in answers
    ]
    return float(np.mean(wrong))


def _least_confidence(answers: Sequence[Answer], known: Known) -> float:
    shares = {least: _wrong(answers, known, least) for least in CONFIDENCES}
    good = [least for least, share in shares.items() if share <= MOST_WRONG]
    return min(good) if good else min(shares, key=lambda least: (shares[least], least))


def _weights(answers: Sequence[Answer]) -> dict[str, float]:
    names = sorted({name for answer in answers for hit in answer.hits for name in hit.ranks})
    weights = dict.fromkeys(names, 1.0)

    def merit(tried: Mapping[str, float]) -> float:
        return float(np.mean(reciprocal_ranks(answers, tried)))

    began = best = merit(weights)
    for name in names * 2:
        for weight in WEIGHTS:
            tried = weights | {name: weight}
            if (gained := merit(tried)) > best + 1e-9:
                best, weights = gained, tried
    if best < began + LEAST_GAIN:
        return {}
    return {name: weight for name, weight in weights.items() if weight != 1}


def reciprocal_ranks(answers: Sequence[Answer], weights: Mapping[str, float]) -> list[float]:
    """Of each answer, the reciprocal of the picture's place, from 1, under these weights; 0 if it
    was not found.

    Verified images come first, in their order, which weights do not touch; the others are ordered
    as `indexes.ranking.fusion.fuse` orders them.
    """
    return [_reciprocal_rank(answer, weights) for answer in answers]


def _reciprocal_rank(answer: Answer, weights: Mapping[str, float]) -> float:
    verified = [hit.image_id for hit in answer.hits if hit.is_verified]
    if answer.image_id in verified:
        return 1 / (1 + verified.index(answer.image_id))
    scores = {
        hit.image_id: sum(
            weights.get(name, 1.0) / (RRF_K + 1 + rank) for name, rank in hit.ranks.items()
        )
        for hit in answer.hits
        if not hit.is_verified
    }
    if answer.image_id not in scores:
        return 0.0
    own = scores[answer.image_id]
    before = sum(
        score > own or (score == own and image_id < answer.image_id)
        for image_id, score in scores.items()
    )
    return 1 / (1 + len(verified) + before)
