from __future__ import annotations

from indexes.replica.adaptive_batch import CHUNK, FIRST, TURN, AdaptiveBatch


def turns(each: float, count: int) -> list[int]:
    """Return the batch sizes in a long log, each entry of which takes `each` seconds."""
    batch, taken = AdaptiveBatch(), []
    for _ in range(count):
        taken.append(batch.entries)
        batch.record(batch.entries, batch.entries * each)
    return taken


def test_the_first_turn_is_short_and_the_next_ones_take_about_as_long_as_they_should() -> None:
    assert turns(5e-6, 3) == [FIRST, CHUNK, CHUNK]
    assert turns(1e-3, 3) == [FIRST, int(TURN / 1e-3), int(TURN / 1e-3)]
    assert turns(10.0, 3) == [FIRST, 1, 1]


def test_a_turn_that_had_nothing_to_apply_or_took_no_time_is_followed_by_a_full_one() -> None:
    batch = AdaptiveBatch()
    batch.record(0, 0.0)
    assert batch.entries == CHUNK


def test_one_slow_turn_is_soon_made_up_for() -> None:
    batch = AdaptiveBatch()
    batch.record(CHUNK, 100.0)
    assert batch.entries == 1
    for _ in range(6):
        batch.record(batch.entries, batch.entries * 5e-6 + 1e-3)
    assert batch.entries == CHUNK
