"""What the answers say: recall, false hits, calibration, time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.jobs.evaluation.alterations import UNALTERED
from cluster.jobs.evaluation.asking import Answer, Hit

FUSED = "fused"
BINS = 10
LEAST = 0.1
"""Hits that are surely by chance, nearly all in a long list, would hide every error."""
SURE = 0.5
"""Confidence with which the unaltered picture must find what else is right."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Shares of the copies whose picture is first, and among the first ten."""

    at_1: float
    at_10: float
    count: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Hits of like confidence: how sure, how many, and the share that is right."""

    confidence: float
    right: float
    count: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of an evaluation, by alteration and by retriever (`fused` is the whole)."""

    pictures: int
    retrievers: Sequence[str]
    recall: dict[str, dict[str, Recall]]
    """By alteration and retriever."""
    false_hits: dict[str, float]
    """By alteration: share of the copies with a verified hit that is another picture."""
    calibration: dict[str, list[Bin]]
    calibration_error: dict[str, float]
    """Expected calibration error (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""
    milliseconds: dict[str, tuple[float, float]]
    """By stage and retriever: median and 95th percentile; `all` is the request as the client saw
    it."""


class Known:
    """What each unaltered picture finds, by image: with which confidence, and whether verified."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._found = {
            answer.sha256: {hit.image_id: hit for hit in answer.hits}
            for answer in answers
            if answer.alteration == UNALTERED
        }

    def is_right(self, answer: Answer, hit: Hit, least: float = SURE) -> bool:
        """Whether a hit is the picture, or the unaltered one finds it, too, verified or with this
        confidence."""
        if hit.image_id == answer.image_id:
            return True
        known = self._found.get(answer.sha256, {}).get(hit.image_id)
        if known is None:
            return False
        return known.is_verified or (known.confidence or 0.0) >= least


def figures(answers: Sequence[Answer]) -> Figures:
    """All figures of these answers."""
    known = Known(answers)
    copies = [answer for answer in answers if answer.alteration != UNALTERED]
    names = sorted({name for answer in answers for hit in answer.hits for name in hit.ranks})
    by_alteration: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_alteration[answer.alteration].append(answer)
    bins = {name: calibration(copies, known, name) for name in (FUSED, *names)}
    return Figures(
        len({answer.sha256 for answer in answers}),
        names,
        {
            alteration: {name: _recall(some, name) for name in (FUSED, *names)}
            for alteration, some in by_alteration.items()
        },
        {alteration: _false_hits(some, known) for alteration, some in by_alteration.items()},
        bins,
        {name: _error(some) for name, some in bins.items()},
        _times(answers),
    )


def place_of(answer: Answer, retriever: str = FUSED) -> int | None:
    """The place of the picture in a retriever's list, from 0; None if it is not there."""
    for place, hit in enumerate(answer.hits):
        if hit.image_id == answer.image_id:
            return place if retriever == FUSED else hit.ranks.get(retriever)
    return None


def _recall(answers: Sequence[Answer], retriever: str) -> Recall:
    places = [place_of(answer, retriever) for answer in answers]
    at_1, at_10 = (
        float(np.mean([place is not None and place < most for place in places])) for most in (1, 10)
    )
    return Recall(at_1, at_10, len(places))


def _false_hits(answers: Sequence[Answer], known: Known) -> float:
    wrong = [
        any(hit.is_verified and not known.is_right(answer, hit) for hit in answer.hits)
        for answer in answers
    ]
    return float(np.mean(wrong))


def calibration(answers: Sequence[Answer], known: Known, retriever: str) -> list[Bin]:
    """Hits of at least LEAST by their confidence in BINS bins of equal width; empty ones are left
    out."""
    pairs = [
        (sure, known.is_right(answer, hit))
        for answer in answers
        for hit in answer.hits
        if (sure := hit.confidence if retriever == FUSED else hit.confidences.get(retriever))
        is not None
        and sure >= LEAST
    ]
    if not pairs:
        return []
    sure, right = np.array(pairs, np.float64).T
    which = np.minimum((sure * BINS).astype(int), BINS - 1)
    return [
        Bin(float(sure[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for number in range(BINS)
        if (inside := which == number).any()
    ]


def _error(bins: Sequence[Bin]) -> float:
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.confidence - one.right) for one in bins) / max(total, 1)


def _times(answers: Sequence[Answer]) -> dict[str, tuple[float, float]]:
    spent: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        for stage, milliseconds in answer.milliseconds.items():
            spent[stage].append(milliseconds)
    return {
        stage: (float(np.median(some)), float(np.percentile(some, 95)))
        for stage, some in spent.items()
    }
