"""A follower's answer to a search, and how current it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from indexes.base import Hit, Part


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of a search, and how current the index was."""

    hits: list[Hit]
    applied_seq: int
    stale: bool
    """Whether the store was unreadable, or the log's end or `min_seq` was not reached in time."""
    part: Part | None = None
    """The part of a shard in a sharded search, in place of the hits."""

    def may_improve(self, min_seq: int, until: float) -> bool:
        """Whether the search should be repeated, because `min_seq` may still arrive in time."""
        return self.applied_seq < min_seq and not self.stale and time.monotonic() < until

    def checked(self, min_seq: int) -> Answer:
        """The answer, marked stale if it does not reach `min_seq`."""
        return replace(self, stale=self.stale or self.applied_seq < min_seq)
