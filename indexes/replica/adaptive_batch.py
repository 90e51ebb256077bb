"""The number of log entries that are applied in one turn of an index's thread."""

from __future__ import annotations

CHUNK = 1024
"""Maximum number of log entries in one turn."""
FIRST = 16
TURN = 0.02
"""Target length of a turn in seconds; a search that arrives meanwhile waits for its end."""


class AdaptiveBatch:
    """Adapts the batch size to the last turn, because an entry costs some indexes a thousand times
    more than others."""

    def __init__(self) -> None:
        self.entries = min(FIRST, CHUNK)
        """Number of entries to take next."""

    def record(self, entries: int, seconds: float) -> None:
        """Record the length of a turn."""
        each = max(seconds, 1e-9) / max(1, entries)
        self.entries = max(1, min(CHUNK, int(TURN / each)))
