"""Tombstones in the store: kept, forgotten, and followed by any number of replicas."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments.tombstones import lists, pdq, records
from deployments.tombstones.records import RememberedPicture, Tombstone
from indexes.store.base import Space, Store
from indexes.store.memory.store import MemoryStore
from indexes.store.url import open_store
from models.errors import InvalidInput, UnknownName

PICTURE = RememberedPicture(b"jpeg", {Space("phash", "f1"): bytes(range(72))})


@pytest.fixture(params=["lmdb", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each kind that outlives its process."""
    if request.param == "lmdb":
        url = f"lmdb:{tmp_path / 'store'}"
    else:
        make: Callable[[], str] = request.getfixturevalue("new_database")
        url = make()
    opened = open_store(url)
    yield opened
    opened.close()


def tombstone(name: str, note: str = "") -> Tombstone:
    return Tombstone(name, 1.5, note, 7, "a.jpg", "ab" * 32, 640, 480)


def test_what_is_remembered_is_read_back(store: Store) -> None:
    records.remember(store, {tombstone("a", "why"): PICTURE, tombstone("b"): None})
    assert records.listed(store) == [tombstone("a", "why"), tombstone("b")]
    assert records.listed(store, after="a") == [tombstone("b")]
    assert records.pictures(store, ["a", "b", "c"]) == {"a": PICTURE}
    records.forget(store, "a")
    assert records.listed(store) == [tombstone("b")]
    assert records.pictures(store, ["a"]) == {}
    with pytest.raises(UnknownName):
        records.forget(store, "a")


def test_a_replica_reads_only_what_has_changed(store: Store) -> None:
    assert records.changes(store, 0) == (0, ())
    records.remember(store, {tombstone("a"): None, tombstone("b"): None})
    seq, ids = records.changes(store, 0)
    assert (seq, ids) == (2, None)
    records.forget(store, "a")
    records.remember(store, {tombstone("c"): None})
    assert records.changes(store, seq) == (4, ("a", "c"))
    assert records.changes(store, 4) == (4, ())
    assert records.changes(store, 9).ids is None  # The store was restored from a backup.
    records.remember(store, {tombstone(f"{at:03}"): None for at in range(records.KEPT_CHANGES)})
    assert records.changes(store, 3).ids is None
    found = records.changes(store, 4).ids
    assert found is not None
    assert len(found) == records.KEPT_CHANGES


def test_replicas_that_remember_at_once_lose_none(store: Store) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda at: records.remember(store, {tombstone(at): None}), "abcdefgh"))
    assert [one.tombstone_id for one in records.listed(store)] == list("abcdefgh")
    assert records.changes(store, 0).seq == 8
    found = records.changes(store, 1).ids
    assert found is not None
    assert len(found) == 7


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path / 'store'}"
    program = f"""
import os, signal
from deployments.tombstones import records
from deployments.tombstones.records import Tombstone
from indexes.store.url import open_store
store = open_store({url!r})
records.remember(store, {{Tombstone("a", 1.0, "note"): None}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    store = open_store(url)
    assert [one.note for one in records.listed(store)] == ["note"]
    assert records.changes(store, 0).seq == 1
    store.close()


def test_json_lines_are_read_back_exactly() -> None:
    store, other = MemoryStore(), MemoryStore()
    records.remember(store, {tombstone("a", "“why”"): PICTURE, tombstone("b"): None})
    written = list(lists.json_lines(store))
    assert lists.bring_in(other, lists.read_json(written)) == 2
    assert list(lists.json_lines(other)) == written


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{",
        '{"created": 1}',
        '{"tombstone_id": "", "created": 1}',
        '{"tombstone_id": "a", "created": 1, "pdq": "zz"}',
        '{"tombstone_id": "a", "created": 1, "picture": {"preview": 7, "features": {}}}',
    ],
)
def test_a_line_that_is_no_tombstone_is_named(line: str) -> None:
    good = '{"tombstone_id": "a", "created": 1}'
    with pytest.raises(InvalidInput, match="line 2"):
        list(lists.read_json([good, line]))


def test_lists_of_pdq_hashes_are_read_in_their_usual_forms() -> None:
    one, other, poor = ("ab" * 32, "cd" * 32, "ef" * 32)
    lines = ["hash,quality,file\n", f"{one}\n", "\n", f"{other.upper()},99,a, b.jpg\n", f"{poor},3"]
    found = [entry for entry, _ in lists.read_pdq(lines)]
    assert [(entry.pdq, entry.note) for entry in found] == [(one, ""), (other, "a, b.jpg")]
    assert found[0].tombstone_id == pdq.PREFIX + one
    with pytest.raises(InvalidInput, match="line 1"):
        list(lists.read_pdq(["abc,100"]))
    with pytest.raises(InvalidInput, match="line 2"):
        list(lists.read_pdq([one, f"{one},good"]))
