"""How many cores and how much memory a process may use, and when."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.machine import cores, free_memory, run_when_idle


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


def test_free_memory_is_what_the_machine_can_give(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  4000 kB\nMemAvailable:    3000 kB\nSwapFree: 1 kB\n")
    assert free_memory(meminfo, tmp_path) == 3000 * 1024
    assert free_memory() > 0


@pytest.mark.parametrize(("limit", "free"), [("max", 3_072_000), ("1000000", 400_000)])
def test_the_limit_of_a_container_leaves_less_of_it_but_for_cached_files(
    limit: str, free: int, tmp_path: Path
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable:    3000 kB\n")
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 300000\nactive_file 7\n")
    assert free_memory(meminfo, tmp_path) == free
