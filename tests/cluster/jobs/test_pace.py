"""A job keeps to its rate and to its hours."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta

import pytest

from cluster.jobs.pace import Pace, Window, WorkerPace
from models.errors import InvalidInput


class Clock:
    """A clock that moves only when someone sleeps."""

    def __init__(self, start: datetime) -> None:
        self.start, self.seconds = start, 0.0

    def monotonic(self) -> float:
        return self.seconds

    def today(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def paced(clock: Clock, max_rate: float | None, window: Window | None) -> WorkerPace:
    return WorkerPace(max_rate, window, clock.monotonic, clock.today, clock.sleep)


def test_a_rate_is_kept_and_lost_time_is_not_made_up_for() -> None:
    clock = Clock(datetime(2026, 1, 1, 12))
    pace = paced(clock, 4, None)
    times = []
    for _ in range(3):
        pace.wait()
        times.append(clock.seconds)
    clock.sleep(10)
    for _ in range(2):
        pace.wait()
        times.append(clock.seconds)
    assert times == [0, 0.25, 0.5, 10.5, 10.75]


def test_the_workers_of_a_job_share_its_rate() -> None:
    pace: Pace = pickle.loads(pickle.dumps(Pace(max_rate=8)))
    assert pace.of_worker(4)._seconds == 0.5
    assert Pace().of_worker(4)._seconds == 0


@pytest.mark.parametrize(
    ("now", "hours"),
    [("21:00", 1), ("22:00", 0), ("23:59", 0), ("00:10", 0), ("05:59", 0), ("06:00", 16)],
)
def test_a_window_may_pass_midnight(now: str, hours: float) -> None:
    today = datetime.strptime(f"2026-11-27 {now}", "%Y-%m-%d %H:%M")
    assert Window.parse("22:00-06:00").seconds_until_open(today) == hours * 3600


def test_work_waits_for_the_window_to_open() -> None:
    clock = Clock(datetime(2026, 1, 1, 21, 59, 20))
    paced(clock, None, Window.parse("22:00-6:00")).wait()
    assert clock.today() == datetime(2026, 1, 1, 22)


@pytest.mark.parametrize("text", ["", "22-6", "22:00", "25:00-6:00", "1:60-2:00", "6:00-6:00"])
def test_what_is_no_window_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput, match="window"):
        Window.parse(text)
