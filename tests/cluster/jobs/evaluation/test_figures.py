"""Figures and proposals, of answers whose figures are known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cluster.jobs.evaluation.alterations import UNALTERED
from cluster.jobs.evaluation.asking import Answer, Hit, read_answers
from cluster.jobs.evaluation.figures import figures
from cluster.jobs.evaluation.proposals import propose, reciprocal_ranks
from cluster.jobs.evaluation.report import write_report


def hit(
    image_id: int,
    confidence: float | None = 0.9,
    verified: bool = False,
    ranks: Mapping[str, int] | None = None,
) -> Hit:
    return Hit(image_id, confidence, verified, ranks or {"phash": 0}, {"phash": confidence or 0})


def answer(
    number: int, hits: Sequence[Hit], alteration: str = "mirrored", all_ms: float = 10.0
) -> Answer:
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    return Answer(number, sha256, alteration, {"all": all_ms, "phash": 1.0}, hits)


def test_recall_counts_the_place_of_the_picture_in_each_list() -> None:
    found = figures(
        [
            answer(1, [hit(1, ranks={"phash": 3, "color": 0})]),
            answer(2, [hit(9), hit(2, ranks={"phash": 0})]),
            answer(3, [hit(9)]),
            answer(4, []),
        ]
    )
    row = found.recall["mirrored"]
    assert (row["fused"].at_1, row["fused"].at_10, row["fused"].count) == (0.25, 0.5, 4)
    assert (row["phash"].at_1, row["phash"].at_10) == (0.25, 0.5)
    assert (row["color"].at_1, row["color"].at_10) == (0.25, 0.25)
    assert found.pictures == 4
    assert found.milliseconds["all"] == (10.0, 10.0)


def test_what_the_unaltered_picture_finds_is_no_false_hit() -> None:
    twin, stranger = hit(7, verified=True), hit(8, verified=True)
    unaltered = answer(1, [hit(1, verified=True), twin], UNALTERED)
    found = figures([unaltered, answer(1, [hit(1, verified=True), twin])])
    assert found.false_hits["mirrored"] == 0
    found = figures([unaltered, answer(1, [hit(1, verified=True), stranger])])
    assert found.false_hits["mirrored"] == 1


def test_a_confidence_that_says_what_is_right_has_no_error() -> None:
    right = [answer(number, [hit(number, 0.75)]) for number in range(3)]
    found = figures([*right, answer(3, [hit(99, 0.75)])])
    assert found.calibration_error["fused"] == pytest.approx(0)
    (only,) = found.calibration["fused"]
    assert (only.confidence, only.right, only.count) == (0.75, 0.75, 4)
    found = figures([answer(number, [hit(99, 1.0)]) for number in range(3)])
    assert found.calibration_error["fused"] == 1


def test_a_least_confidence_keeps_wrong_hits_out_and_right_ones_in() -> None:
    answers = [answer(number, [hit(number, 0.66), hit(99, 0.62)]) for number in range(40)]
    chosen = propose(answers)
    assert chosen.min_confidence == 0.65
    assert (chosen.before.found, chosen.before.wrong) == (1, 1)
    assert (chosen.after.found, chosen.after.wrong) == (1, 0)


def test_weights_follow_the_retriever_that_knows() -> None:
    def confused(number: int) -> Answer:
        wrong = hit(99, ranks={"color": 0, "global": 4})
        return answer(number, [wrong, hit(number, ranks={"color": 4, "global": 0})])

    # At equal weights both have the same sum; the lower id is first.
    answers = [confused(number) for number in range(100, 140)]
    assert set(reciprocal_ranks(answers, {})) == {0.5}
    chosen = propose(answers)
    assert chosen.weights.get("global", 1) > chosen.weights.get("color", 1)
    assert chosen.after.reciprocal_rank == 1
    assert chosen.before.reciprocal_rank == 0.5


def test_weights_that_gain_nothing_are_left_alone() -> None:
    answers = [answer(number, [hit(number, verified=True), hit(99)]) for number in range(40)]
    assert propose(answers).weights == {}


def test_an_unfinished_line_is_dropped(tmp_path: Path) -> None:
    first, second = answer(1, [hit(1)]), answer(2, [])
    path = tmp_path / "answers.jsonl"
    path.write_bytes(first.line() + second.line()[:30])
    assert read_answers(path) == [first]
    with path.open("ab") as file:
        file.write(second.line())
    assert read_answers(path) == [first, second]


def test_a_report_shows_all_figures(tmp_path: Path) -> None:
    answers = [answer(1, [hit(1, verified=True)], UNALTERED), answer(1, [hit(1), hit(2)])]
    page = write_report(tmp_path / "report", figures(answers), propose(answers))
    text = page.read_text()
    assert "1.00 / 1.00" in text
    assert text.count("data:image/png;base64,") == 2
    assert "http" not in text
    for name in ("recall.png", "calibration.png"):
        assert (page.parent / name).read_bytes().startswith(b"\x89PNG")
