"""Map batches of items with Ray Data in workers that are processes of their own."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cluster.jobs.failures import Failure

WORKER_CPUS = 0.7
"""CPUs reserved by each worker, so that all workers fit beside a service on the same cores."""
RESULT = "result"
"""The only column that Ray Data sees: the pickled results of a batch, or its failure."""

Batch = dict[str, Any]


def map_batches(
    items: Sequence[Mapping[str, Any]],
    worker: Callable[..., Callable[[Batch], Batch]],
    arguments: tuple[Any, ...],
    size: int,
    workers: int,
) -> Iterator[Batch]:
    """Results of `workers` processes, each a `worker(*arguments)`, for batches of `size` items.

    Ray must be connected. Raises the AmbienceError of a worker, and UnexpectedFailure for any other
    of its errors.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Small enough that every worker has work until the end.
    blocks = max(workers, -(-len(items) // size))
    results = ray.data.from_items(list(items), override_num_blocks=blocks).map_batches(
        _Reporting,
        fn_constructor_args=(worker, arguments),
        batch_size=size,
        compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=4),
        num_cpus=WORKER_CPUS,
    )
    for rows in results.iter_batches(batch_size=None, batch_format="numpy"):
        for row in rows[RESULT]:
            result: Batch | Failure = pickle.loads(row)  # Only our own workers write this column.
            if isinstance(result, Failure):
                raise result.error
            yield result


class _Reporting:
    """A worker that returns its errors, those of its construction as well."""

    def __init__(
        self, worker: Callable[..., Callable[[Batch], Batch]], arguments: tuple[Any, ...]
    ) -> None:
        self._failure: Failure | None = None
        try:
            self._worker = worker(*arguments)
        except Exception as exc:  # noqa: BLE001 (the command raises it again)
            self._failure = Failure.of(exc)

    def __call__(self, batch: Batch) -> Batch:
        return {RESULT: np.array([pickle.dumps(self._result(batch))], object)}

    def _result(self, batch: Batch) -> Batch | Failure:
        if self._failure is not None:
            return self._failure
        try:
            return self._worker(batch)
        except Exception as exc:  # noqa: BLE001 (the command raises it again)
            return Failure.of(exc)
