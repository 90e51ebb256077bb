"""What of this machine a process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")


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
