"""What `ambience train` would make of rows that lie in no store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexes.inverted import trained
from indexes.inverted.file import POINTS_PER_LIST, Method, list_count
from indexes.inverted.learning import TrainingState, learn


def train_file(
    sample: npt.NDArray[np.float32], rows: int, method: Method | None, folder: Path
) -> Path:
    """Learnt, step by step, from a sample (n, d) of so many rows."""
    assert method is not None
    lists = min(list_count(rows), len(sample) // POINTS_PER_LIST)
    steps = learn(sample, lists, method, TrainingState(folder / "partial", {}))
    path = folder / "trained.npz"
    while True:
        try:
            next(steps)
        except StopIteration as end:
            trained.save(path, trained.Trained(1, len(sample), rows, None, end.value))
            return path
