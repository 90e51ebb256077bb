"""The bound on pixels in flight."""

from __future__ import annotations

from threading import Thread

from models.pictures.pixel_budget import PixelBudget


def test_what_fits_is_admitted_at_once() -> None:
    budget = PixelBudget(100)
    assert budget.try_acquire(60)
    assert budget.acquire(40).done()
    assert not budget.try_acquire(1)


def test_the_first_that_waits_is_the_first_admitted() -> None:
    budget = PixelBudget(100)
    assert budget.try_acquire(80)
    large, small = budget.acquire(90), budget.acquire(10)
    assert not large.done()
    assert not small.done()
    assert not budget.try_acquire(1)
    budget.release(80)
    assert large.done()
    assert small.done()


def test_a_picture_above_the_whole_budget_gets_in_alone() -> None:
    budget = PixelBudget(100)
    assert budget.try_acquire(1)
    huge = budget.acquire(5000)
    assert not huge.done()
    budget.release(1)
    assert huge.done()
    assert not budget.try_acquire(1)
    budget.release(5000)
    assert budget.try_acquire(100)


def test_a_cancelled_place_is_given_up() -> None:
    budget = PixelBudget(100)
    assert budget.try_acquire(50)
    huge, next_one = budget.acquire(100), budget.acquire(50)
    assert huge.cancel()
    budget.release(50)
    assert next_one.done()
    assert budget.try_acquire(50)
    assert not budget.try_acquire(1)


def test_threads_never_hold_more_than_the_limit() -> None:
    budget = PixelBudget(10)
    held: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(200):
            budget.acquire(4).result()
            held.append(4)
            most.append(sum(held))
            held.pop()
            budget.release(4)

    threads = [Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 8
    assert budget.try_acquire(10)
