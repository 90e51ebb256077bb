"""Settings that all stages of one job share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster.jobs.pace import Pace, WorkerPace
from cluster.jobs.pipeline import Stage, Worker
from cluster.jobs.resources import NetworkShare, Resources
from models.pictures.limits import DecodeLimits


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The store, what the job may take of the machine, and the limits on pictures."""

    store: str
    resources: Resources
    pace: Pace = field(default_factory=Pace)
    limits: DecodeLimits | None = None

    @property
    def pace_of_reader(self) -> WorkerPace:
        return self.pace.of_worker(self.resources.readers)

    def reading(self, reader: Callable[..., Worker], *arguments: Any) -> Stage:
        """The first stage: `reader(*arguments, settings)` on each core."""
        resources = self.resources
        return Stage(
            "reading", reader, (*arguments, self), resources.readers, resources.reader_cpus
        )

    def network(
        self,
        name: str,
        worker: Callable[..., Worker],
        arguments: tuple[Any, ...],
        share: NetworkShare,
        pieces: int = 1,
    ) -> Stage:
        """The stage of one network; a GPU takes several pieces at once."""
        return Stage(
            name,
            worker,
            arguments,
            share.workers,
            share.cpus,
            share.gpus,
            pieces=pieces if share.on_gpu else 1,
            in_background=not share.on_gpu,
        )
