"""Readers share turns, the writer has its own, and both come to theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from indexes.replica.turns import Turns
from tests.indexes.store.forks import wait_for


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_readers_share_a_turn() -> None:
    turns, meeting = Turns(), threading.Barrier(3)

    def read() -> None:
        with turns.shared():
            meeting.wait(5)

    threads = [in_thread(read) for _ in range(3)]
    for thread in threads:
        thread.join(5)
    assert not meeting.broken


def test_the_writer_waits_for_readers_and_they_for_the_writer() -> None:
    turns, events = Turns(), list[str]()
    reading, written, finish = threading.Event(), threading.Event(), threading.Event()

    def read_first() -> None:
        with turns.shared():
            reading.set()
            finish.wait(5)
            events.append("first read")

    def write() -> None:
        with turns.alone():
            events.append("written")
            written.set()

    def read_second() -> None:
        with turns.shared():
            events.append("second read")

    first = in_thread(read_first)
    reading.wait(5)
    writer = in_thread(write)
    wait_for(lambda: turns._writer_waits)
    second = in_thread(read_second)
    wait_for(lambda: turns._blocked == 1)
    assert not written.is_set()
    finish.set()
    for thread in (first, writer, second):
        thread.join(5)
    assert events == ["first read", "written", "second read"]


def test_readers_that_waited_for_one_turn_of_the_writer_go_before_its_next() -> None:
    turns, events = Turns(), list[str]()

    def read() -> None:
        with turns.shared():
            events.append("read")

    for _ in range(50):
        events.clear()
        with turns.alone():
            readers = [in_thread(read) for _ in range(2)]
            wait_for(lambda: turns._blocked == 2)
        with turns.alone():
            events.append("written again")
        for thread in readers:
            thread.join(5)
        assert events == ["read", "read", "written again"]
