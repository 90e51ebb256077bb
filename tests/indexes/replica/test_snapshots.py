"""A follower starts from its snapshot if that is valid, and from all rows otherwise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from indexes.arrays.frozen import Frozen, FrozenArray
from indexes.hamming.index import BinaryIndex
from indexes.replica.follower import Follower
from indexes.replica.saving import save_if_due
from indexes.replica.snapshots import Snapshots
from indexes.store.base import Space, Store
from indexes.store.lmdb.store import LmdbStore
from indexes.store.memory.store import MemoryStore
from models.errors import RetrieverUnavailable, StoreUnavailable
from tests.indexes.pictures import COLOR, PHASH, PHASH_NEW, picture, row_of, scanned
from tests.indexes.store.faults import FullStore, WrappedStore
from tests.indexes.store.forks import wait_for
from tests.indexes.tiny_index import TinyIndex, decode, nearest, tiny

COUNT = 30


@pytest.fixture(params=["lmdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = LmdbStore(tmp_path / "store") if request.param == "lmdb" else MemoryStore()
    store.put_many([picture(n, str(n)) for n in range(COUNT)])
    yield store
    store.close()


class Counting(WrappedStore):
    """A store that counts the scans of all rows."""

    scans = 0

    def before(self, name: str) -> None:
        self.scans += name == "scan"


def follow(store: Store, folder: Path, space: Space = PHASH, layout: str = "") -> Follower:
    return Follower(store, space, tiny(), decode, snapshots=Snapshots(folder, store, space, layout))


def kept(store: Store, folder: Path) -> Path:
    """Write a snapshot of everything in the store and return its path."""
    follower = follow(store, folder)
    follower.rebuild()
    assert save_if_due(follower)
    follower.close()
    (path,) = folder.iterdir()
    return path


def restarted(store: Store, folder: Path, space: Space = PHASH, layout: str = "") -> int:
    """Start a follower, check that it holds what the store does, and return its number of scans."""
    counting = Counting(store)
    follower = follow(counting, folder, space, layout)
    follower.rebuild()
    index = follower.submit(lambda index: index).result()
    assert isinstance(index, TinyIndex)
    assert index.rows_held() == scanned(store, space)[1]
    assert (follower.state, follower.applied) == ("ready", store.head())
    follower.close()
    return counting.scans


def test_a_restarted_follower_reads_only_what_has_changed_since(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert restarted(store, tmp_path / "kept") == 1
    assert "phash has no snapshot yet" in caplog.text
    kept(store, tmp_path / "kept")
    store.delete(3)
    store.put(picture(4, "another"))
    store.put(picture(99, "new"))
    assert restarted(store, tmp_path / "kept") == 0
    assert f"phash begins from its snapshot, at seq {COUNT}" in caplog.text


def test_a_started_follower_refuses_until_it_has_caught_up_and_then_answers(
    store: Store, tmp_path: Path
) -> None:
    kept(store, tmp_path / "kept")
    store.put(picture(99, "new"))
    follower = follow(store, tmp_path / "kept")
    with pytest.raises(RetrieverUnavailable, match="loading"):
        follower.search(*nearest(row_of("new")))
    follower.start(poll=0.01)
    wait_for(lambda: follower.state == "ready")
    assert follower.search(*nearest(row_of("new"))).hits[0].image_id == 99
    follower.close()


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage, "checksum is wrong"),
        (cut, "checksum is wrong"),
        (lambda path: path.write_bytes(b""), "too short"),
    ],
)
def test_a_damaged_snapshot_is_removed_and_all_rows_are_read(
    store: Store,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    reason: str,
) -> None:
    path = kept(store, tmp_path / "kept")
    spoil(path)
    assert restarted(store, tmp_path / "kept") == 1
    assert reason in caplog.text
    assert not path.exists()
    kept(store, tmp_path / "kept")
    assert restarted(store, tmp_path / "kept") == 0


def test_a_snapshot_older_than_the_log_is_of_no_use(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept(store, tmp_path / "kept")
    store.put(picture(99, "new"))
    store.delete(2)
    store.compact(COUNT + 1)
    assert restarted(store, tmp_path / "kept") == 1
    assert "the log no longer reaches back to it" in caplog.text


def test_a_snapshot_at_the_end_of_a_compacted_log_holds(store: Store, tmp_path: Path) -> None:
    kept(store, tmp_path / "kept")
    store.delete(2)
    store.compact(COUNT)
    assert restarted(store, tmp_path / "kept") == 0


def test_a_snapshot_of_another_store_is_refused_and_removed(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = MemoryStore()
    other.put_many([picture(n, f"other {n}") for n in range(COUNT)])
    path = kept(other, tmp_path / "kept")
    assert restarted(store, tmp_path / "kept") == 1
    assert "it belongs to another store" in caplog.text
    assert not path.exists()


def test_a_snapshot_newer_than_a_restored_store_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LmdbStore(tmp_path / "store")
    store.put_many([picture(n, str(n)) for n in range(5)])
    store.close()
    backup = (tmp_path / "store" / "data.mdb").read_bytes()
    store = LmdbStore(tmp_path / "store")
    store.put(picture(1, "later"))
    path = kept(store, tmp_path / "kept")
    store.close()
    (tmp_path / "store" / "data.mdb").write_bytes(backup)
    store = LmdbStore(tmp_path / "store")
    assert restarted(store, tmp_path / "kept") == 1
    assert "it is newer than the store" in caplog.text
    assert not path.exists(), "it would hold again once the store had as many changes"
    store.close()


@pytest.mark.parametrize(
    ("space", "layout", "reason"),
    [
        (PHASH_NEW, "", "fingerprint"),
        (COLOR, "", "kind"),
        (PHASH, "1 of 3", "layout"),
    ],
)
def test_a_snapshot_of_something_else_is_not_taken(
    store: Store,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    space: Space,
    layout: str,
    reason: str,
) -> None:
    """It is taken neither under its own name nor under the name of the requested snapshot."""
    path = kept(store, tmp_path / "kept")
    assert restarted(store, tmp_path / "kept", space, layout) == 1
    assert path.exists()
    asked = Snapshots(tmp_path / "kept", store, space, layout).path(tiny())
    path.rename(asked)
    assert restarted(store, tmp_path / "kept", space, layout) == 1
    assert f"it belongs to another {reason}" in caplog.text
    assert not asked.exists()


def test_other_options_and_another_version_have_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = Snapshots(tmp_path, MemoryStore(), PHASH)
    indexes = [BinaryIndex(BinaryIndex.Config(bits=bits), lambda _: {}) for bits in (576, 64)]
    paths = {snapshots.path(index) for index in indexes}
    monkeypatch.setattr(BinaryIndex, "state_version", BinaryIndex.state_version + 1)
    paths.add(snapshots.path(indexes[0]))
    assert len(paths) == 3
    assert all(path.name.startswith("phash@") for path in paths)


def test_any_name_of_a_retriever_makes_a_file_name(store: Store, tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, store, Space("../[a]/é*", "f"))
    assert snapshots.path(tiny()).parent == tmp_path
    assert not set("/[]*") & set(snapshots.path(tiny()).name)


def test_a_snapshot_that_can_not_be_read_stays(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = kept(store, tmp_path / "kept")
    path.unlink()
    path.mkdir()
    assert restarted(store, tmp_path / "kept") == 1
    assert "phash can't read its snapshot" in caplog.text
    assert path.exists()


def test_a_snapshot_with_other_arrays_is_of_no_use(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {"codes": FrozenArray.of(np.arange(3))}
    monkeypatch.setattr(TinyIndex, "freeze", lambda _: Frozen({}, arrays))
    path = kept(store, tmp_path / "kept")
    assert restarted(store, tmp_path / "kept") == 1
    assert "KeyError('ids')" in caplog.text
    assert not path.exists()


def test_a_log_that_is_compacted_while_the_snapshot_is_read_costs_a_rebuild(
    store: Store, tmp_path: Path
) -> None:
    class Compacting(Counting):
        reads = 0

        def before(self, name: str) -> None:
            super().before(name)
            self.reads += name == "changes"
            if name == "changes" and self.reads == 2:
                self.inner.compact(self.inner.head())

    kept(store, tmp_path / "kept")
    store.put(picture(99, "new"))
    compacting = Compacting(store)
    follower = follow(compacting, tmp_path / "kept")
    follower.rebuild()
    assert compacting.scans == 1
    assert follower.count == COUNT + 1
    follower.close()


def test_a_store_without_room_for_a_mark_is_no_reason_not_to_start(
    store: Store, tmp_path: Path
) -> None:
    kept(store, tmp_path / "kept")
    assert restarted(FullStore(store), tmp_path / "kept") == 0


def test_an_unreadable_store_is_asked_again(store: Store, tmp_path: Path) -> None:
    class Failing(WrappedStore):
        def before(self, name: str) -> None:
            if name == "changes":
                raise StoreUnavailable("the disk is gone")

    path = kept(store, tmp_path / "kept")
    follower = follow(Failing(store), tmp_path / "kept")
    with pytest.raises(StoreUnavailable):
        follower.rebuild()
    assert path.exists()
    follower.close()


def test_the_log_is_asked_for_from_the_snapshot_on_or_from_the_start(
    store: Store, tmp_path: Path
) -> None:
    restarted(store, tmp_path / "kept")
    assert list(store.marks().values()) == [COUNT]
    kept(store, tmp_path / "kept")
    store.put(picture(99, "new"))
    restarted(store, tmp_path / "kept")
    assert list(store.marks().values()) == [COUNT]
