"""A snapshot of the rows of one feature space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Scan:
    """A snapshot of one space. Close it soon (or leave its `with`): while it is open, the store
    can't free old data."""

    head: int
    batches: Iterator[list[tuple[int, bytes]]]
    close: Callable[[], None]

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
