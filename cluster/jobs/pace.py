"""When and how fast a job may work, so that it leaves the machine to others."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from models.errors import InvalidInput

MINUTES = 24 * 60
LOOK_SECONDS = 30.0
"""Seconds between two looks at the clock: it may be set, or the machine may sleep."""


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of the day, in local time; they may pass midnight."""

    start: int
    """Minute of the day at which work may begin."""
    end: int
    """Minute of the day at which it pauses."""

    @classmethod
    def parse(cls, text: str) -> Window:
        """Parse `22:00-06:00`. Raises InvalidInput."""
        found = re.fullmatch(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})", text.strip())
        parts = [int(part) for part in found.groups()] if found else []
        if not parts or max(parts[::2]) > 24 or max(parts[1::2]) > 59:
            raise InvalidInput(f"{text!r} is no window of hours such as 22:00-06:00", "window")
        start, end = (hours * 60 + minutes for hours, minutes in (parts[:2], parts[2:]))
        if start % MINUTES == end % MINUTES:
            raise InvalidInput(f"the window {text} is empty", "window")
        return cls(start % MINUTES, end % MINUTES)

    def seconds_until_open(self, now: datetime) -> float:
        """Seconds until work may begin; 0 within the window."""
        minute = now.hour * 60 + now.minute
        inside = (minute - self.start) % MINUTES < (self.end - self.start) % MINUTES
        if inside:
            return 0.0
        opens = now.replace(hour=self.start // 60, minute=self.start % 60, second=0, microsecond=0)
        if opens <= now:
            opens += timedelta(days=1)
        return (opens - now).total_seconds()


@dataclass(frozen=True, slots=True)
class Pace:
    """Limits of a whole job; each of its workers takes a share."""

    max_rate: float | None = None
    """Pictures a second."""
    window: Window | None = None

    def of_worker(self, workers: int) -> WorkerPace:
        """The pace of one of so many workers."""
        rate = None if self.max_rate is None else self.max_rate / workers
        return WorkerPace(rate, self.window)


class WorkerPace:
    """Makes one worker wait before each picture."""

    def __init__(
        self,
        max_rate: float | None,
        window: Window | None,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], datetime] = datetime.now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds = 0.0 if max_rate is None else 1 / max_rate
        self._window = window
        self._clock, self._today, self._sleep = clock, today, sleep
        self._next = clock()

    def wait(self) -> None:
        """Wait until the next picture may be worked on."""
        if self._window is not None:
            while (left := self._window.seconds_until_open(self._today())) > 0:
                self._sleep(min(left, LOOK_SECONDS))
        now = self._clock()
        if self._next > now:
            self._sleep(self._next - now)
        # Time that was lost is not made up for by a burst.
        self._next = max(self._next, now) + self._seconds
