"""Limits of requests a minute."""

from __future__ import annotations

import time
from collections import OrderedDict

from models.errors import AmbienceError

MAX_COUNTED = 10_000


class TooManyRequests(AmbienceError):
    """The rate limit of this client or key is used up."""

    status = 429
    title = "Too many requests"


class Rates:
    """Counts of requests in the current minute."""

    def __init__(self) -> None:
        self._minutes: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def count(self, of: str, limit: int | None) -> None:
        """Count a request of a client or key. Raises TooManyRequests above its limit."""
        if limit is None:
            return
        minute = int(time.monotonic() // 60)
        seen, count = self._minutes.pop(of, (minute, 0))
        count = count + 1 if seen == minute else 1
        self._minutes[of] = (minute, count)
        if len(self._minutes) > MAX_COUNTED:
            self._minutes.popitem(last=False)
        if count > limit:
            raise TooManyRequests(f"more than {limit} requests a minute; try again in a minute")
