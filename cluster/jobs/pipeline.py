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

import pyarrow as pa

from cluster.jobs.failures import Failure
from models.machine import run_when_idle

RESULT, ARRAYS = "result", "arrays"
"""The columns that Ray Data sees: a pickled piece, or a failure, and the arrays in it, which no
stage copies to read them."""
MAX_BLOCK_BYTES = 16 * 2**20
"""Largest block of a stage's output, by which the executor plans its memory."""

P = TypeVar("P")
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
    each = -(-len(items) // blocks)
    parts = [items[begin : begin + each] for begin in range(0, len(items), each)]
    data: ray.data.Dataset = ray.data.from_arrow([_packed(part) for part in parts])
    for number, stage in enumerate(stages):
        data = data.map_batches(
            _StageWorker,
            fn_constructor_args=(stage, number == 0),
            batch_size=size if number == 0 else stage.pieces,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=stage.workers, max_tasks_in_flight_per_actor=4),
            num_cpus=stage.cpus,
            num_gpus=stage.gpus or None,
        )
    for table in data.iter_batches(batch_size=None, batch_format="pyarrow"):
        for piece in _unpacked(table):
            if isinstance(piece, Failure):
                raise piece.error
            yield piece


def _packed(values: Sequence[Any]) -> pa.Table:
    rows, arrays = [], []
    for value in values:
        buffers: list[pickle.PickleBuffer] = []
        rows.append(pickle.dumps(value, protocol=5, buffer_callback=buffers.append))
        arrays.append([buffer.raw() for buffer in buffers])
    return pa.table(
        {
            RESULT: pa.array(rows, pa.large_binary()),
            ARRAYS: pa.array(arrays, pa.large_list(pa.large_binary())),
        }
    )


def _unpacked(table: pa.Table) -> list[Any]:
    """Arrays are read-only views of the table."""
    return [
        pickle.loads(row.as_buffer(), buffers=[one.as_buffer() for one in arrays.values])
        for row, arrays in zip(table[RESULT], table[ARRAYS], strict=True)
    ]


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
                run_when_idle()
        try:
            self._worker = stage.worker(*stage.arguments)
        except Exception as exc:  # noqa: BLE001 (the command raises it again)
            self._failure = Failure.of(exc)

    def __call__(self, table: pa.Table) -> pa.Table:
        given = _unpacked(table)
        if self._is_first:
            given = [Piece(given, {})]
        failed = next((one for one in given if isinstance(one, Failure)), self._failure)
        return _packed([failed] if failed is not None else self._worked(given))

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
