"""How many cores a process may use, and when."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.machine import cores, run_when_idle


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


def test_a_thread_that_runs_when_idle_leaves_the_others_as_they_are() -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(run_when_idle).result()
        assert threads.submit(os.sched_getscheduler, 0).result() == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
