"""A snapshot file is read completely and correctly, or not at all."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from indexes.arrays.frozen import Frozen, FrozenArray
from indexes.base import DistanceParams, Hit, Query
from indexes.replica.snapshot_file import CHECKSUM, START, header_of, opened, write
from models.errors import SnapshotRejected
from tests.indexes.replica.index_with_rows import IndexWithRows, pool
from tests.indexes.replica.snapshot_processes import COUNT, STATES
from tests.indexes.store.forks import Forks, lines, wait_for

KILLS = 25


def take(pieces: Iterator[npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    return next(pieces, None)


def small(path: Path) -> Path:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    arrays = {
        "rows": FrozenArray(rows.dtype, rows.shape, iter([rows[:3], rows[3:]])),
        "none": FrozenArray.of(np.empty((0, 2), np.int64)),
        "flags": FrozenArray.of(np.array([True, False])),
    }
    write(path, {"seq": 7}, Frozen({"width": 3}, arrays), take)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with opened(small(tmp_path / "folder" / "file")) as saved:
        assert (saved.header["seq"], saved.scalars) == (7, {"width": 3})
        np.testing.assert_array_equal(saved.array("rows"), np.arange(12).reshape(4, 3))
        assert saved.array("rows").dtype == np.float32
        assert saved.array("rows").flags.writeable
        assert saved.shape("none") == saved.array("none").shape == (0, 2)
        assert saved.array("flags").tolist() == [True, False]
        parts = [np.empty((1, 3), np.float32), np.empty((3, 3), np.float32)]
        saved.fill("rows", parts)
        np.testing.assert_array_equal(np.concatenate(parts), saved.array("rows"))
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]


def test_every_byte_that_is_flipped_is_noticed(tmp_path: Path) -> None:
    path = small(tmp_path / "file")
    good = path.read_bytes()
    for place in range(len(good)):
        for bit in (0, 7):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            path.write_bytes(bad)
            with pytest.raises(SnapshotRejected, match="checksum"), opened(path):
                pass
            header_of(path)


def test_a_file_cut_off_or_added_to_anywhere_is_noticed(tmp_path: Path) -> None:
    path = small(tmp_path / "file")
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(SnapshotRejected), opened(path):
            pass
        header_of(path)
    for added in (b"\0", good[-CHECKSUM:], good):
        path.write_bytes(good + added)
        with pytest.raises(SnapshotRejected, match="checksum"), opened(path):
            pass


def test_a_header_is_read_only_where_there_is_one(tmp_path: Path) -> None:
    path = small(tmp_path / "file")
    good = path.read_bytes()
    header = header_of(path)
    assert header is not None
    assert header["seq"] == 7
    assert header_of(tmp_path / "none") is None
    for other in (b"", b"x" * 100, good[:START], good[: START + 5], good[:16] + b"\xff" * 40):
        path.write_bytes(other)
        assert header_of(path) is None


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = small(tmp_path / "file")
    good = path.read_bytes()

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write(path, {}, Frozen({}, {"a": FrozenArray.of(np.arange(3))}), full)
    assert path.read_bytes() == good
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    left = tmp_path / "file.123.partial"
    left.write_bytes(b"half")
    small(tmp_path / "file")
    assert not left.exists()


def nearest(kept: IndexWithRows) -> list[Hit]:
    """Return the nearest hit of each feature of the pool."""
    params = DistanceParams(k=1)
    return [hit for code in pool("binary") for hit in kept.index.search(Query([code]), params)]


def test_a_writer_that_is_killed_leaves_the_old_state_or_the_new_one_whole(
    tmp_path: Path,
) -> None:
    path, report = tmp_path / "state", tmp_path / "report"
    expected = {COUNT + which: nearest(one) for which, one in enumerate(STATES)}
    assert expected[COUNT] != expected[COUNT + 1]
    dice = random.Random(3)
    partials = 0
    with Forks("tests.indexes.replica.snapshot_processes") as forks:
        for _ in range(KILLS):
            before = len(lines(report))
            pid = forks.start("write_in_turn", str(path), str(report))
            wait_for(lambda before=before: len(lines(report)) > before, 60)  # type: ignore[misc]
            time.sleep(dice.uniform(0, 0.02))
            forks.kill(pid)
            partials += any(tmp_path.glob("*.partial"))
            restored = IndexWithRows("binary").load(path, {})
            assert nearest(restored) == expected[len(restored.index)]
    assert partials > 0, "no writer was killed while it wrote"
