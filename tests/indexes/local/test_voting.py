"""Which candidates are worth verifying."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from indexes.local.voting import CANDIDATE, CHANCE_VOTES, SHORTLIST, Candidates, shortlist


def candidates(agreeing: Sequence[int]) -> Candidates:
    """Return candidates with the ids 0, 1, 2 … and these numbers of agreeing votes."""
    made = np.zeros(len(agreeing), CANDIDATE)
    made["agreeing"] = made["votes"] = agreeing
    made["image_id"] = np.arange(len(agreeing))
    return made


def chosen(agreeing: Sequence[int], length: int) -> list[int]:
    return [image_id for image_id, _ in shortlist(candidates(agreeing), length)]


def test_the_most_agreeing_come_first_then_the_most_voted_for_then_the_lowest_id() -> None:
    made = candidates([3, 9, 9, 9])
    made["votes"] = [99, 9, 12, 9]
    assert [image_id for image_id, _ in shortlist(made, 4)] == [2, 1, 3, 0]


def test_all_are_taken_when_there_is_room() -> None:
    assert chosen([1, 1, 1, 2], 4) == [3, 0, 1, 2]


def test_candidates_tied_at_a_chance_vote_count_are_all_dropped_if_they_do_not_fit() -> None:
    assert chosen([4, 30, 4, 4, 5, 4], 4) == [1, 4]


def test_candidates_tied_at_a_chance_vote_count_are_all_kept_if_they_fit() -> None:
    assert chosen([4, 30, 4, 3, 3, 3], 3) == [1, 0, 2]


@pytest.mark.parametrize("votes", [CHANCE_VOTES, 200])
def test_copies_are_taken_even_when_not_all_fit(votes: int) -> None:
    assert chosen([votes] * 6, 4) == [0, 1, 2, 3]


def test_when_all_have_equally_few_votes_none_is_worth_verifying() -> None:
    assert chosen([1] * 9, 4) == []


def test_beyond_the_shortlist_only_those_with_more_than_chance_votes_are_verified() -> None:
    likely = [CHANCE_VOTES + 5] * (SHORTLIST + 8)
    assert len(chosen([*likely, *[CHANCE_VOTES - 1] * 50], 200)) == len(likely)
    falling = [CHANCE_VOTES] * 5 + [*range(CHANCE_VOTES - 1, 1, -1)] * 10
    assert len(chosen(sorted(falling, reverse=True), 200)) <= SHORTLIST
