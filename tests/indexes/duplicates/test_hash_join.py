"""The join of hashes finds exactly what comparing each with each finds, in all orientations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from indexes.duplicates.hash_join import BITS, CERTAIN, RADIUS, HashTables, classes
from models.extractors.phash import turned_codes

Codes = npt.NDArray[np.uint8]


def codes(count: int, seed: int = 0) -> Codes:
    return np.random.default_rng(seed).integers(0, 256, (count, BITS // 8), np.uint8)


def flipped(code: Codes, bits: int, seed: int) -> Codes:
    """A code with so many bits flipped."""
    changed = np.unpackbits(code)
    changed[np.random.default_rng(seed).permutation(BITS)[:bits]] ^= 1
    return np.packbits(changed)


def distances(one: Codes, other: Codes) -> int:
    return int(np.bitwise_count(turned_codes(one[None])[0] ^ other).sum(axis=1).min())


@pytest.mark.parametrize("bits", [0, 1, 20, CERTAIN])
def test_near_codes_are_found_in_every_orientation(bits: int) -> None:
    stored = codes(500)
    for variant in range(8):
        stored[variant] = flipped(turned_codes(stored[100][None])[0, variant], bits, variant)
    tables = HashTables(stored)
    found = tables.near(np.array([100]), stored[[100]], np.ones(500, bool))
    assert {(int(a), int(b)) for a, b, _ in found} >= {(100, variant) for variant in range(8)}
    for a, b, distance in found:
        assert distance == distances(stored[a], stored[b]) <= RADIUS


def test_what_is_near_is_found_and_nothing_else() -> None:
    stored = codes(2000, 3)
    for at in range(1000, 2000):
        stored[at] = flipped(stored[at - 1000], at % 100, at)
    expected = {
        (a, b): distance
        for a in range(2000)
        for b in (a - 1000, a + 1000)
        if 0 <= b < 2000 and (distance := distances(stored[a], stored[b])) <= RADIUS
    }
    pairs = HashTables(stored).near(np.arange(2000), stored, np.ones(2000, bool))
    found = {(int(a), int(b)): int(gap) for a, b, gap in pairs}
    assert len(found) == len(pairs)
    assert found.items() <= expected.items()
    missing = [gap for ends, gap in expected.items() if ends not in found]
    assert all(gap > CERTAIN for gap in missing)
    assert len(missing) < 0.01 * len(expected)


def test_only_allowed_rows_are_found() -> None:
    stored = np.repeat(codes(1), 10, axis=0)
    allowed = np.arange(10) < 4
    found = HashTables(stored).near(np.array([2, 7]), stored[[2, 7]], allowed)
    assert sorted((int(a), int(b)) for a, b, _ in found) == [
        *((2, at) for at in (0, 1, 3)),
        *((7, at) for at in range(4)),
    ]


def test_a_crowded_bucket_is_searched_near_the_code() -> None:
    stored = np.repeat(codes(1), 9000, axis=0)
    for at in range(1, 9000):
        stored[at, -2:] = at >> 8, at & 255
    tables = HashTables(stored)
    found = tables.near(np.array([5000]), stored[[5000]], np.ones(9000, bool))
    assert len(found) == 64
    assert found[:, 2].max() <= 3


def test_no_codes_are_no_pairs() -> None:
    tables = HashTables(codes(0))
    assert len(tables.near(np.zeros(0, np.int64), codes(0), np.zeros(0, bool))) == 0
    assert classes(codes(0)) == []


def test_equal_codes_are_one_class() -> None:
    stored = codes(6)
    stored[4], stored[5], stored[2] = stored[1], stored[1], stored[0]
    assert sorted(classes(stored)) == [[0, 2], [1, 4, 5], [3]]
