"""A job as a pipeline of stages on Ray Data, each with workers that are processes of their own.

Pieces of work stream through the stages. The streaming executor starts a stage's next piece only
while there is room for what is under way, so memory stays bounded however many pieces there are.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from cluster.jobs.failures import Failure
from models.machine import yield_to_others

RESULT = "result"
"""The only column that Ray Data sees: a pickled piece, or a failure."""
MAX_BLOCK_BYTES = 16 * 2**20
"""Largest block of a stage's output, by which the executor plans its memory."""

P = TypeVar("P")
Batch = dict[str, Any]
Worker = Callable[[list[Any]], list[Any]]
"""Takes and returns as many pieces. The first stage's worker takes lists of items instead."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a job."""

    name: str
    worker: Callable[..., Worker]
    """Makes a worker of `arguments`, in the worker's own process."""
    arguments: tuple[Any, ...]
    workers: int
    cpus: float
    """CPUs that each worker reserves; no limit on what it uses."""
    gpus: float = 0.0
    """GPUs that each worker reserves; a worker that reserves none may be shown none."""
    pieces: int = 1
    """Number of pieces that a worker takes at once."""
    in_background: bool = True
    """Whether other processes of the machine go first."""


@dataclass(frozen=True, slots=True)
class Piece(Generic[P]):
    """What has passed all stages, and the seconds that it took in each."""

    result: P
    seconds: Mapping[str, float]


def run_stages(items: Sequence[Any], stages: Sequence[Stage], size: int) -> Iterator[Piece[Any]]:
    """Pieces of `size` items that have passed all stages, as they come.

    Ray must be connected. Raises the AmbienceError of a worker, and UnexpectedFailure for any other
    of its errors.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = MAX_BLOCK_BYTES
    # Small enough that every worker has work until the end.
    blocks = max(stages[0].workers, -(-len(items) // size))
    data: ray.data.Dataset = ray.data.from_items(
        [{RESULT: pickle.dumps(one)} for one in items], override_num_blocks=blocks
    )
    for number, stage in enumerate(stages):
        data = data.map_batches(
            _StageWorker,
            fn_constructor_args=(stage, number == 0),
            batch_size=size if number == 0 else stage.pieces,
            compute=ActorPoolStrategy(size=stage.workers, max_tasks_in_flight_per_actor=4),
            num_cpus=stage.cpus,
            num_gpus=stage.gpus or None,
        )
    for rows in data.iter_batches(batch_size=None, batch_format="numpy"):
        for row in rows[RESULT]:
            piece: Piece[Any] | Failure = pickle.loads(row)  # Only our own workers write it.
            if isinstance(piece, Failure):
                raise piece.error
            yield piece


def slowest(seconds: Mapping[str, float], stages: Sequence[Stage]) -> str:
    """The stage whose workers were busy for longest."""
    return max(stages, key=lambda one: seconds.get(one.name, 0.0) / one.workers).name


class _StageWorker:
    """A worker that returns its errors, those of its construction as well, and passes on those of
    earlier stages."""

    def __init__(self, stage: Stage, is_first: bool) -> None:
        self._stage = stage
        self._is_first = is_first
        self._failure: Failure | None = None
        if stage.in_background:
            with contextlib.suppress(OSError):
                yield_to_others()
        try:
            self._worker = stage.worker(*stage.arguments)
        except Exception as exc:  # noqa: BLE001 (the command raises it again)
            self._failure = Failure.of(exc)

    def __call__(self, batch: Batch) -> Batch:
        given = [pickle.loads(row) for row in batch[RESULT]]  # Only our own workers write it.
        if self._is_first:
            given = [Piece(given, {})]
        failed = next((one for one in given if isinstance(one, Failure)), self._failure)
        done = [failed] if failed is not None else self._worked(given)
        return {RESULT: np.array([pickle.dumps(one) for one in done], object)}

    def _worked(self, given: Sequence[Piece[Any]]) -> Sequence[Piece[Any] | Failure]:
        began = time.perf_counter()
        try:
            results = self._worker([piece.result for piece in given])
        except Exception as exc:  # noqa: BLE001 (the command raises it again)
            return [Failure.of(exc)]
        spent = (time.perf_counter() - began) / len(given)
        name = self._stage.name
        return [
            Piece(result, {**piece.seconds, name: spent})
            for piece, result in zip(given, results, strict=True)
        ]
