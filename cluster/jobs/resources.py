"""What a job takes of the machine or cluster: workers, and what each reserves.

Reservations let Ray place the workers; they limit nothing. All of a job's fit beside a service on
the same cores, during an upgrade too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.service.sizing import gpu_share, reservable

READERS_SHARE, NETWORKS_SHARE, WRITER_SHARE = 0.5, 0.15, 0.05
"""Shares of all cores that the stages reserve."""


@dataclass(frozen=True, slots=True)
class NetworkShare:
    """What the stage of one network takes."""

    workers: int
    cpus: float
    gpus: float
    on_gpu: bool


@dataclass(frozen=True, slots=True)
class Resources:
    """Cores and GPUs, those that are not reserved yet, and the number of readers."""

    cpus: float
    gpus: float
    free_gpus: float
    readers: int

    @classmethod
    def of_ray(cls, readers: int | None) -> Resources:
        """Those of the connected Ray; by default with a reader on each core."""
        import ray

        known: Any = ray
        total, free = known.cluster_resources(), known.available_resources()
        cpus = float(total.get("CPU", 1))
        gpus, free_gpus = float(total.get("GPU", 0)), float(free.get("GPU", 0))
        return cls(cpus, gpus, free_gpus, readers or max(1, int(cpus)))

    @property
    def reader_cpus(self) -> float:
        return _down(READERS_SHARE * self.cpus / self.readers)

    @property
    def writer_cpus(self) -> float:
        return _down(WRITER_SHARE * self.cpus)

    def network_shares(self, wanted: Sequence[float | None]) -> list[NetworkShare]:
        """The share of each network, given the GPUs that its replicas reserve.

        A GPU has one worker of each network. Without GPUs, half as many workers as cores run each:
        they are most of the work then, and the slowest network may need half of the machine. Where
        too little of the GPUs is free, all get an equal part of that.
        """
        count = len(wanted)
        if not self.gpus:
            workers = max(1, int(self.cpus) // 2)
            share = NetworkShare(workers, self._network_cpus(count * workers), 0.0, on_gpu=False)
            return [share] * count
        workers = max(1, int(self.gpus))
        usual = gpu_share(self.gpus, count)
        asked = [usual if one is None else one for one in wanted]
        if sum(asked) * workers > self.free_gpus:
            asked = [self.free_gpus / (count * workers)] * count
        cpus = self._network_cpus(count * workers)
        return [NetworkShare(workers, cpus, reservable(one), on_gpu=True) for one in asked]

    def _network_cpus(self, workers: int) -> float:
        return _down(NETWORKS_SHARE * self.cpus / workers) if workers else 0.0


def _down(cpus: float) -> float:
    """Rounded down to what Ray can reserve, but something."""
    return max(0.0001, math.floor(cpus * 10_000) / 10_000)
