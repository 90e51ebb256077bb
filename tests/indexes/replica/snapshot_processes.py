"""The process of the kill test that writes snapshots of two states in turn until it is killed."""

from __future__ import annotations

from pathlib import Path

from tests.indexes.replica.index_with_rows import IndexWithRows, pool
from tests.indexes.store.forks import say

COUNT = 20_000


def state(which: int) -> IndexWithRows:
    """Return one of two states, which differ in every row and in the number of rows."""
    codes = pool("binary")
    kept = IndexWithRows("binary")
    kept.apply({at: codes[(at + which) % 6] for at in range(COUNT + which)})
    return kept


STATES = [state(0), state(1)]
"""The two states, made before the processes that are killed are forked."""


def write_in_turn(path: str, report: str) -> None:
    for turn in range(10**9):
        STATES[turn % 2].save(Path(path))
        say(report, "written")
