"""What of this machine a process may use."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
QUOTA = CGROUP / "cpu.max"
BACKGROUND_NICENESS = 10
"""Niceness of work that no one waits for: a tenth of a core's time where others want all of it. At
a higher one, a thread that holds Python's lock could keep the others of its process waiting."""


def cores(quota: Path = QUOTA) -> int:
    """Number of cores on which this process may run, at least 1.

    A container's quota of CPU time counts too: more threads than it allows would be throttled.
    """
    available = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text().split()
    except (OSError, ValueError):  # No container, or an old kernel.
        return available
    if allowed == "max":
        return available
    return max(1, min(available, math.ceil(int(allowed) / int(period))))


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = CGROUP) -> int:
    """Bytes of memory that this machine, and the container if there is one, can still give."""
    free = _number("MemAvailable:", meminfo) * 1024
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # No container, no limit ("max"), or an old kernel.
        return free
    # What is cached of files gives way.
    return min(free, limit - used + _number("inactive_file ", cgroup / "memory.stat"))


def _number(name: str, path: Path) -> int:
    """The number after a name in a file of the kernel."""
    return int(path.read_text().partition(name)[2].split()[0])


def yield_to_others() -> None:
    """Lower the priority of the calling thread for good, so that searches go first."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICENESS)


def run_when_idle() -> None:
    """Let the calling thread, and those that it starts, run only where no other thread wants the
    core, for good. It must hold nothing for which others wait.

    A thread of a low priority is still given whole slices of time between the many short steps of a
    search; one of this policy is interrupted at once (sched(7), SCHED_IDLE).
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
