"""How many cores a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.machine import cores


def test_all_cores_on_which_it_may_run_are_used(tmp_path: Path) -> None:
    assert cores(tmp_path / "none") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", None), ("100000 100000", 1), ("20000 100000", 1), ("99999900000 100000", None)],
)
def test_a_containers_quota_of_cpu_time_limits_them(
    quota: str, expected: int | None, tmp_path: Path
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota + "\n")
    assert cores(file) == (expected or len(os.sched_getaffinity(0)))
