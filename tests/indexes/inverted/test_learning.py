from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexes.inverted.file import ITERATIONS, Method, TrainedIndex
from indexes.inverted.learning import Step, TrainingState, learn

SAMPLE = np.random.default_rng(0).standard_normal((640, 32), np.float32)
ROTATED = Method("OPQ4,IVF{lists},PQ4x4fs", inner_product=True, residual=True)
PLAIN = Method("IVF{lists},PQ16x4fs", inner_product=False, residual=False)


def learnt(folder: Path, method: Method) -> tuple[list[Step], TrainedIndex]:
    steps: list[Step] = []
    learning = learn(SAMPLE, 8, method, TrainingState(folder, {"of": "one"}))
    while True:
        try:
            steps.append(next(learning))
        except StopIteration as end:
            return steps, end.value


@pytest.mark.parametrize("method", [ROTATED, PLAIN], ids=["rotated", "plain"])
def test_a_training_interrupted_after_any_step_gives_the_same_index(
    tmp_path: Path, method: Method
) -> None:
    steps, whole = learnt(tmp_path / "whole", method)
    assert [name for name, *_ in steps] == ["rotation", *["lists"] * ITERATIONS, "codes"]
    for taken in (2, 5, len(steps)):
        folder = tmp_path / str(taken)
        learning = learn(SAMPLE, 8, method, TrainingState(folder, {"of": "one"}))
        for _ in range(taken):
            next(learning)
        learning.close()
        left, again = learnt(folder, method)
        # A method without a rotation repeats the rotation step, which finds none.
        assert [step for step in left if step[0] != "rotation"] == steps[max(1, taken - 1) :]
        np.testing.assert_array_equal(again, whole)


def test_what_is_left_of_another_training_is_removed(tmp_path: Path) -> None:
    work = TrainingState(tmp_path / "work", {"of": "one"})
    work.save("sample", SAMPLE, lists=8)
    again = TrainingState(tmp_path / "work", {"of": "one"})
    np.testing.assert_array_equal(again.load("sample"), SAMPLE)
    assert again.state["lists"] == 8
    other = TrainingState(tmp_path / "work", {"of": "another"})
    assert other.load("sample") is None
    assert list((tmp_path / "work").iterdir()) == []
    other.remove()
    assert not (tmp_path / "work").exists()
