"""A slot is assigned once and never names another image."""

from __future__ import annotations

import numpy as np

from indexes.local.slots import SlotTable, quantise_geometry
from tests.indexes.local.scenes import random_features


def test_an_id_that_comes_back_gets_a_slot_of_its_own() -> None:
    table = SlotTable()
    first = table.add(7, random_features(1, 5))
    assert table.drop(7)
    assert not table.drop(7)
    second = table.add(7, random_features(2, 6))
    assert second != first
    assert table.of([7, 8]).tolist() == [second]
    assert table.image_ids.tolist() == [-1, 7]
    assert (len(table), table.dead, table.live_keypoints) == (1, 1, 6)


def test_compacting_keeps_the_geometry_of_live_slots() -> None:
    table = SlotTable()
    rows = {key: random_features(key, key) for key in range(3000)[::50]}
    for key, features in rows.items():
        table.add(key, features)
    for key in list(rows)[::2]:
        table.drop(key)
        del rows[key]
    old = table.of(list(rows))
    renumbered = table.compact()
    assert renumbered[old].tolist() == list(range(len(rows)))
    assert (renumbered < 0).sum() == len(renumbered) - len(rows)
    for key, features in rows.items():
        slot = int(table.of([key])[0])
        kept = table.geometry[table.starts[slot] : table.starts[slot + 1]]
        np.testing.assert_array_equal(kept, quantise_geometry(features))
    assert table.add(9999, random_features(1, 3)) == len(rows)


def test_geometry_is_in_sixteenths_of_an_octave_and_256ths_of_a_turn() -> None:
    features = random_features(1, 4)
    features["scale"] = [0.0625, 1, 2, 1024]
    features["angle"] = [0, 90, 359.9, 180]
    expected = [[0, 0], [64, 64], [80, 0], [224, 128]]
    assert quantise_geometry(features).tolist() == expected
