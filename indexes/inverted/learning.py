"""Resumable training of inverted lists: an interruption costs one step."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from indexes.inverted.file import (
    ITERATIONS,
    Floats,
    Method,
    TrainedIndex,
    improve_centroids,
    rotation_of,
    train,
)

Step = tuple[str, int, int]
"""The name of a step, how much of it is done, and the total."""


class TrainingState:
    """Intermediate results of a training in a folder of its own; a later run continues from
    them."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Results of a training with another identity are removed."""
        self._folder = folder
        self._state = folder / "state.json"
        try:
            self.state: dict[str, Any] = orjson.loads(self._state.read_bytes())
        except (OSError, ValueError):
            self.state = {}
        if self.state.get("identity") != identity:
            self.remove()
            self.state = {"identity": identity}
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str) -> Floats | None:
        if name not in self.state:
            return None
        loaded: Floats = np.load(self._folder / f"{name}.npy")
        return loaded

    def save(self, name: str, array: Floats, **state: int) -> None:
        """Write the array, then the state that names it: a kill between the two repeats one
        step."""
        np.save(self._folder / f"{name}.npy", array)
        self.state |= {name: True, **state}
        partial = self._state.with_suffix(".partial")
        partial.write_bytes(orjson.dumps(self.state))
        partial.rename(self._state)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def learn(
    sample: Floats, lists: int, method: Method, work: TrainingState
) -> Generator[Step, None, TrainedIndex]:
    """Train the rotation (where the method has one), the lists and the codes on a sample (n, d)."""
    rotation, rotated = work.load("rotation"), sample
    if rotation is None:
        yield "rotation", 0, 1
        rotation = rotation_of(sample, method)
        if rotation is not None:
            work.save("rotation", rotation)
    if rotation is not None:
        rotated = sample @ rotation.T
    centroids = work.load("centroids")
    for iteration in range(work.state.get("iterations", 0), ITERATIONS):
        yield "lists", iteration, ITERATIONS
        centroids = improve_centroids(rotated, lists, method, centroids)
        work.save("centroids", centroids, iterations=iteration + 1)
    yield "codes", 0, 1
    return train(sample, lists, method, centroids, rotation)
