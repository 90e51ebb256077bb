"""A limit on the number of pixels that are decoded at once; callers beyond it wait."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from threading import Lock


class PixelBudget:
    """A thread-safe budget, first come, first served. A picture larger than the limit is admitted
    alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._acquired = 0
        self._queue: deque[tuple[int, Future[None]]] = deque()
        self._lock = Lock()

    def try_acquire(self, pixels: int) -> bool:
        """Acquire the pixels if there is room and no caller waits. Return whether it succeeded."""
        with self._lock:
            share = min(pixels, self._limit)
            if self._queue or self._acquired + share > self._limit:
                return False
            self._acquired += share
            return True

    def acquire(self, pixels: int) -> Future[None]:
        """A future that completes once the pixels are acquired; cancelling it leaves the queue."""
        ticket: Future[None] = Future()
        with self._lock:
            self._queue.append((min(pixels, self._limit), ticket))
        self._admit()
        return ticket

    def release(self, pixels: int) -> None:
        """Release acquired pixels."""
        with self._lock:
            self._acquired -= min(pixels, self._limit)
        self._admit()

    def _admit(self) -> None:
        admitted = []
        with self._lock:
            while self._queue:
                share, ticket = self._queue[0]
                # A cancelled caller must not block those behind it.
                if not ticket.cancelled() and self._acquired + share > self._limit:
                    break
                self._queue.popleft()
                if ticket.set_running_or_notify_cancel():
                    self._acquired += share
                    admitted.append(ticket)
        for ticket in admitted:
            ticket.set_result(None)
