"""The adaptive size of the batches in which log entries are applied to an index."""

from __future__ import annotations

CHUNK = 1024
"""Maximum number of log entries in one batch."""
FIRST = 16
TURN = 0.02
"""Target time of one batch in seconds; a search that arrives meanwhile waits for its end."""


class AdaptiveBatch:
    """Adapts the batch size to the time of the last batch, because an entry costs some indexes a
    thousand times more than others."""

    def __init__(self) -> None:
        self.entries = min(FIRST, CHUNK)
        """Size of the next batch in log entries."""

    def record(self, entries: int, seconds: float) -> None:
        """Record how long a batch took, and adapt the next one."""
        each = max(seconds, 1e-9) / max(1, entries)
        self.entries = max(1, min(CHUNK, int(TURN / each)))
