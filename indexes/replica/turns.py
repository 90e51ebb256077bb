"""Turns on an index: searches share one, a change has one alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A reader-writer lock for any number of readers and one writer.

    It is phase-fair (Brandenburg and Anderson, "Spin-Based Reader-Writer Synchronization for
    Multiprocessor Real-Time Systems", 2010): readers that arrive while the writer works or waits
    go together after its turn, before its next one. So neither side can starve the other.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._blocked = 0
        self._writer_waits = False
        self._writer_works = False
        self._ended = 0
        """Number of turns that the writer has ended."""

    @contextmanager
    def shared(self) -> Iterator[None]:
        """A turn beside other readers. A thread must not take a second one within it."""
        with self._changed:
            if self._writer_waits or self._writer_works:
                self._blocked += 1
                ended = self._ended
                while self._ended == ended:
                    self._changed.wait()
            else:
                self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if self._writer_waits and not self._readers:
                    self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The writer's turn. One thread at a time may ask for it."""
        with self._changed:
            self._writer_waits = True
            while self._readers:
                self._changed.wait()
            self._writer_waits, self._writer_works = False, True
        try:
            yield
        finally:
            with self._changed:
                self._writer_works = False
                # They count as readers from here on, so that the next turn waits for them.
                self._readers += self._blocked
                self._blocked = 0
                self._ended += 1
                self._changed.notify_all()
