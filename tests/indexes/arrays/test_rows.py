from __future__ import annotations

import numpy as np
import pytest

from indexes.arrays.kernels import _home, count_nearest
from indexes.arrays.rows import AHEAD, AHEAD_SHARE, PIECE, SEGMENT, SMALLEST, Column, RowArrays


def as_dict(rows: RowArrays) -> dict[int, int]:
    positions = np.arange(len(rows), dtype=np.int32)
    return dict(zip(rows.ids.tolist(), rows.take("value", positions)[:, 0].tolist(), strict=True))


def put(rows: RowArrays, values: dict[int, int]) -> None:
    ids = np.array(list(values), np.int64)
    rows.put(ids, {"value": np.array(list(values.values()), np.int64)[:, None]})


@pytest.mark.parametrize(("live", "rounds"), [(40, 20), (SMALLEST - 30, 12), (SEGMENT + 200, 4)])
def test_any_ids_are_kept_like_a_dict_while_they_come_and_go(live: int, rounds: int) -> None:
    """At SMALLEST - 30 the id table is as full as it gets, so probe sequences collide."""
    rng = np.random.default_rng(live)
    rows, kept = RowArrays({"value": Column(np.int64, 1)}), dict[int, int]()
    pool = np.unique(rng.integers(0, 2**47, 2 * live))
    for _ in range(rounds):
        new = dict.fromkeys(rng.choice(pool, live // 2, replace=False).tolist(), 0)
        new = {key: int(rng.integers(0, 1 << 40)) for key in new}
        put(rows, new)
        kept |= new
        surplus = max(0, len(kept) - live) + live // 10
        gone = rng.permutation(list(kept))[:surplus]
        rows.remove(np.append(gone, 2**47))
        for key in gone.tolist():
            del kept[key]
        assert as_dict(rows) == kept
        found = rows.positions(pool)
        assert sorted(rows.ids[found].tolist()) == sorted(kept)
        assert (np.diff(found) > 0).all()


def test_growth_leaves_rows_where_they_are_and_counts_only_what_is_used() -> None:
    rows = RowArrays({"value": Column(np.int64, 1)})
    put(rows, {7: 70})
    (_, first), *_ = rows.used("value")
    small = rows.nbytes
    put(rows, dict.fromkeys(range(SEGMENT + 5), 1))
    (_, grown), (start, last) = rows.used("value")
    assert np.shares_memory(first, grown)
    assert (start, len(last)) == (SEGMENT, 5)
    assert small < SEGMENT
    assert rows.nbytes >= 8 * (SEGMENT + 5)


def test_ids_that_probe_round_the_end_of_the_table_are_not_lost() -> None:
    bits = (2 * SMALLEST).bit_length() - 1
    homes = {key: int(_home(key, np.uint64(64 - bits))) for key in range(20_000)}
    edge = [key for key, home in homes.items() if home >= 2 * SMALLEST - 2 or home <= 1]
    assert len(edge) > 20
    rng = np.random.default_rng(1)
    for _ in range(50):
        rows = RowArrays({"value": Column(np.int64, 1)})
        kept = {int(key): int(key) + 1 for key in rng.permutation(edge)}
        put(rows, kept)
        for key in rng.permutation(edge)[:20].tolist():
            rows.remove(np.array([key]))
            del kept[key]
            found = rows.positions(np.array(edge))
            assert set(rows.ids[found].tolist()) == set(kept)


def test_an_id_given_again_keeps_its_place() -> None:
    rows = RowArrays({"value": Column(np.int64, 1)})
    put(rows, {5: 1, 6: 2})
    put(rows, {6: 3, 5: 4})
    assert as_dict(rows) == {5: 4, 6: 3}


def test_growth_copies_no_full_segment() -> None:
    rows = RowArrays({"value": Column(np.int64, 1)})
    put(rows, dict.fromkeys(range(SEGMENT), 7))
    first = rows._segments["value"][0]
    put(rows, dict.fromkeys(range(SEGMENT, 3 * SEGMENT), 8))
    assert rows._segments["value"][0] is first


def made(rows: RowArrays) -> list[int]:
    """Preallocate until there is nothing left to allocate; return the bytes of each piece."""
    pieces, more = list[int](), True
    while more:
        before = rows.nbytes
        more = rows.preallocate()
        pieces.append(rows.nbytes - before)
    return pieces


@pytest.mark.parametrize("count", [0, 7, 80, SEGMENT + 80, 3 * SEGMENT - 1])
def test_room_is_made_for_a_share_of_the_rows_and_changes_none(count: int) -> None:
    rows = RowArrays({"value": Column(np.int64, 1), "wide": Column(np.uint8, 90)})
    kept = {at * 3: at for at in range(count)}

    def write(values: dict[int, int]) -> None:
        wide = np.array(list(values.values()), np.int64)[:, None] % 251
        value = np.array(list(values.values()), np.int64)[:, None]
        both = {"value": value, "wide": np.repeat(wide, 90, axis=1).astype(np.uint8)}
        rows.put(np.array(list(values), np.int64), both)

    write(kept)
    before = rows.nbytes
    ahead = min(AHEAD, count // AHEAD_SHARE)
    pieces = made(rows)
    assert max(pieces) <= PIECE
    assert sum(pieces) == 98 * ahead
    assert not rows.preallocate()
    assert as_dict(rows) == kept
    new = {at: at + 5 for at in range(1, 3 * ahead, 3)}
    write(new)
    assert as_dict(rows) == kept | new
    wide = rows.take("wide", np.arange(len(rows), dtype=np.int32))
    assert (wide == rows.take("value", np.arange(len(rows), dtype=np.int32)) % 251).all()
    assert rows.nbytes - before == 98 * ahead


def test_room_is_made_anew_after_a_segment_was_given_back() -> None:
    rows = RowArrays({"value": Column(np.int64, 1)})
    put(rows, dict.fromkeys(range(3 * SEGMENT - 1), 1))
    made(rows)
    full = rows.nbytes
    rows.remove(np.arange(10, 3 * SEGMENT))
    assert rows.nbytes < full
    put(rows, dict.fromkeys(range(10, 3 * SEGMENT - 1), 2))
    made(rows)
    assert rows.nbytes == full
    assert as_dict(rows) == dict.fromkeys(range(10), 1) | dict.fromkeys(
        range(10, 3 * SEGMENT - 1), 2
    )


def test_room_is_not_made_where_a_frozen_row_lies() -> None:
    rows = RowArrays({"value": Column(np.int64, 1)})
    put(rows, {at: at + 1 for at in range(1000)})
    arrays, thaw = rows.freeze()
    rows.remove(np.arange(500))
    made(rows)
    assert np.concatenate(list(arrays["value"].pieces))[:, 0].tolist() == list(range(1, 1001))
    thaw()


@pytest.mark.parametrize("count", [1, 127, 128, 129, 5000])
@pytest.mark.parametrize("spread", [1, 3, 577])
def test_the_kth_smallest_is_that_of_a_sorted_list(count: int, spread: int) -> None:
    distances = np.random.default_rng(count).integers(0, spread, count).astype(np.uint16)
    for k in sorted({1, min(2, count), count // 2 + 1, count}):
        found = count_nearest(distances, k, np.zeros(578, np.int64))
        assert found == np.sort(distances)[k - 1]
    assert count_nearest(distances, count + 1, np.zeros(578, np.int64)) == 577
