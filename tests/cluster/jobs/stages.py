"""Stages of a job, run one after the other in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.jobs.pipeline import Stage
from cluster.jobs.resources import Resources

ONE_CORE = Resources(cpus=1, gpus=0, free_gpus=0, readers=1)


def through(stages: Sequence[Stage], todo: Sequence[Any]) -> list[Any]:
    """What comes out at the end for one piece of all items."""
    pieces: list[Any] = [todo]
    for stage in stages:
        worker: Any = stage.worker(*stage.arguments)
        pieces = worker(pieces)
        if hasattr(worker, "store"):
            worker.store.close()
    works: list[Any] = pieces[0]
    return works
