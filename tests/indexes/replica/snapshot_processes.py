"""A process of the kill test: writes snapshots of two states in turn until it is killed."""

from __future__ import annotations

from pathlib import Path

from tests.indexes.replica.keeping import Kept, pool
from tests.indexes.store.forks import say

COUNT = 20_000


def state(which: int) -> Kept:
    """One of two states, which differ in every row and in their number."""
    codes = pool("binary")
    kept = Kept("binary")
    kept.apply({at: codes[(at + which) % 6] for at in range(COUNT + which)})
    return kept


STATES = [state(0), state(1)]
"""Made once, before the processes that are killed are forked."""


def write_in_turn(path: str, report: str) -> None:
    for turn in range(10**9):
        STATES[turn % 2].save(Path(path))
        say(report, "written")
