"""How much of the log to apply in one turn of an index's thread."""

from __future__ import annotations

CHUNK = 1024
"""Log entries, at most."""
FIRST = 16
TURN = 0.02
"""Seconds that a turn should take: a search that comes meanwhile waits for it."""


class AdaptiveBatch:
    """An entry costs some indexes a thousand times what it costs others: the last turn tells."""

    def __init__(self) -> None:
        self.entries = min(FIRST, CHUNK)
        """To take next."""

    def record(self, entries: int, seconds: float) -> None:
        """What a turn took."""
        each = max(seconds, 1e-9) / max(1, entries)
        self.entries = max(1, min(CHUNK, int(TURN / each)))
