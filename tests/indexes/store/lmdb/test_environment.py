"""Pitfalls of LMDB: the map, its readers, forks and errors."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from indexes.store.lmdb.environment import LmdbOptions, acquire, release
from indexes.store.lmdb.store import LmdbStore
from models.errors import StoreUnavailable
from tests.indexes.pictures import (
    PHASH,
    known,
    picture,
    row_of,
    scanned,
    tail,
)
from tests.indexes.store.forks import Forks, lines, wait_for

TINY = 1 << 18
SMALL = LmdbOptions(map_size=TINY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("tests.indexes.store.lmdb.processes") as forks:
        yield forks


# --- one environment per process ------------------------------------------------------------------


def test_stores_of_one_folder_share_an_environment(folder: Path, tmp_path: Path) -> None:
    one = LmdbStore(folder)
    (tmp_path / "link").symlink_to(folder)
    two = LmdbStore(tmp_path / "link")
    one.put(picture(1))
    assert two.count() == 1
    one.close()
    assert two.put(picture(2, "b")).seq == 2
    two.close()
    three = LmdbStore(folder)
    assert three.count() == 2
    three.close()


def test_a_forked_child_is_refused_and_harms_nothing(folder: Path) -> None:
    store = LmdbStore(folder)
    store.put(picture(1))
    environment = acquire(folder, SMALL)
    with store.scan(PHASH) as scan:
        pid = os.fork()
        if pid == 0:
            refused = 0
            for use in (store.head, lambda: LmdbStore(folder)):
                try:
                    use()
                except StoreUnavailable as exc:
                    refused += "fork" in exc.detail
            store.close()
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
        assert str(os.getpid()) in environment._env.readers()
        store.put(picture(1, "b"))
        assert list(scan.batches) == [[(1, row_of("a"))]]
    release(environment)
    store.close()


# --- growing the map ------------------------------------------------------------------------------


def test_a_full_map_grows_while_threads_read_and_write(folder: Path) -> None:
    store = LmdbStore(folder, SMALL)
    errors: list[BaseException] = []
    ended = threading.Event()

    def guarded(work: Any, *args: int) -> None:
        try:
            work(*args)
        except BaseException as exc:
            errors.append(exc)
            raise

    def write(first: int) -> None:
        for n in range(first, first + 25):
            store.put(picture(n, str(n), preview=bytes(20_000)))

    def read() -> None:
        while not ended.is_set():
            rows = tail(store, PHASH, 0).rows
            assert all(row == row_of(str(at)) for at, row in rows.items())
            _, found = scanned(store, PHASH, batch=8)
            assert all(row == row_of(str(at)) for at, row in found.items())
            ended.wait(0.005)  # The map can grow only while no scan is open.

    writers = [threading.Thread(target=guarded, args=(write, first)) for first in (0, 100, 200)]
    readers = [threading.Thread(target=guarded, args=(read,)) for _ in range(2)]
    for thread in writers + readers:
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    for thread in readers:
        thread.join()
    assert errors == []
    assert store.count() == 75
    assert os.stat(folder / "data.mdb").st_size > 4 * TINY
    store.close()


def test_processes_grow_the_map_under_each_other(folder: Path, forks: Forks) -> None:
    """Each starts with the tiny map, so each meets a full map as well as one that another grew."""
    store = LmdbStore(folder, SMALL)
    out = [str(folder / name) for name in ("one", "two", "reads")]
    add = [
        forks.start("add", str(folder), out[n], first, 40, TINY, 20_000)
        for n, first in ((0, 1000), (1, 2000))
    ]
    reader = forks.start("read", str(folder), out[2], TINY, 2.0)
    for n in range(40):
        store.put(picture(n, str(n), preview=bytes(20_000)))
        assert store.rows(PHASH, [n]) == {n: row_of(str(n))}
    for pid in (*add, reader):
        forks.join(pid)
    expected = {n for first in (0, 1000, 2000) for n in range(first, first + 40)}
    assert set(scanned(store, PHASH)[1]) == expected
    assert store.head() == 120
    reads = lines(Path(out[2]))
    assert len(reads) == 1
    assert int(reads[0].removeprefix("looks ")) > 3
    store.close()


def test_a_map_grown_by_another_process_is_adopted_by_readers(folder: Path, forks: Forks) -> None:
    store = LmdbStore(folder, SMALL)
    out = folder / "out"
    forks.join(forks.start("add", str(folder), str(out), 0, 40, TINY, 50_000))
    assert len(lines(out)) == 40
    assert store.count() == 40
    assert store.preview(39) == bytes(50_000)
    store.close()


def test_a_growing_map_waits_for_an_open_scan(folder: Path) -> None:
    store = LmdbStore(folder, SMALL)
    store.put_many([picture(n, str(n)) for n in range(100)])
    big = [picture(1000 + n, str(n), preview=bytes(20_000)) for n in range(40)]
    with store.scan(PHASH, batch=10) as scan:
        first = next(scan.batches)
        writer = threading.Thread(target=store.put_many, args=(big,))
        writer.start()
        time.sleep(0.1)
        # The thread with the open scan may go on reading while a change of the map is waiting.
        assert store.rows(PHASH, [5]) == {5: row_of("5")}
        assert writer.is_alive()
        rows = first + [pair for batch in scan.batches for pair in batch]
    writer.join(10)
    assert rows == [(n, row_of(str(n))) for n in range(100)]
    assert store.count() == 140
    store.close()


def test_a_scan_that_is_never_closed_fails_the_write_and_not_the_process(folder: Path) -> None:
    store = LmdbStore(folder, LmdbOptions(map_size=TINY, patience=0.1))
    store.put(picture(1))
    big = [picture(1000 + n, str(n), preview=bytes(20_000)) for n in range(40)]
    with store.scan(PHASH) as scan:
        with pytest.raises(StoreUnavailable, match="scan was open"):
            store.put_many(big)
        assert list(scan.batches) == [[(1, row_of("a"))]]
        assert store.count() == 1
    assert len(store.put_many(big)) == 40
    store.close()


# --- readers --------------------------------------------------------------------------------------


def test_the_slot_of_a_killed_reader_is_freed(folder: Path, forks: Forks) -> None:
    store = LmdbStore(folder)
    environment = acquire(folder, SMALL)
    store.put(picture(1))
    pid = forks.start("hold", str(folder), str(folder / "out"))
    wait_for(lambda: lines(folder / "out") == ["scan at 1"])
    assert str(pid) in environment._env.readers()
    assert environment.free_dead_readers() == 0
    forks.kill(pid)
    assert environment.free_dead_readers() == 1
    assert str(pid) not in environment._env.readers()
    release(environment)
    store.close()


def test_writes_look_for_killed_readers_now_and_then(
    folder: Path, forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.store.lmdb.environment.READER_CHECK_SECONDS", 0.0)
    store = LmdbStore(folder)
    environment = acquire(folder, SMALL)
    pid = forks.start("hold", str(folder), str(folder / "out"))
    wait_for(lambda: len(lines(folder / "out")) == 1)
    forks.kill(pid)
    store.put(picture(1))
    assert str(pid) not in environment._env.readers()
    release(environment)
    store.close()


def test_reads_go_on_when_killed_readers_hold_all_slots(folder: Path, forks: Forks) -> None:
    store = LmdbStore(folder, LmdbOptions(max_readers=2))
    pids = [forks.start("hold", str(folder), str(folder / f"out{n}")) for n in range(2)]
    wait_for(lambda: all(len(lines(folder / f"out{n}")) == 1 for n in range(2)))
    with pytest.raises(StoreUnavailable, match="raise max_readers"):
        store.head()
    for pid in pids:
        forks.kill(pid)
    assert store.head() == 0
    store.close()


def test_two_processes_see_each_others_writes(folder: Path, forks: Forks) -> None:
    store = LmdbStore(folder)
    store.put(picture(500, "mine"))
    out = folder / "out"
    pid = forks.start("add", str(folder), str(out), 0, 20, 1 << 30, 100)
    seen = 0
    while seen < 20:
        acknowledged = [int(line) for line in lines(out)]
        assert set(store.images_by_id(acknowledged)) == set(acknowledged)
        seen = len(acknowledged)
    forks.join(pid)
    assert store.put(picture(None, "next")).image_id == 501
    store.close()


# --- errors ---------------------------------------------------------------------------------------


def test_a_store_with_no_room_left_says_so_and_still_reads(folder: Path) -> None:
    store = LmdbStore(folder, LmdbOptions(map_size=TINY, max_map_size=TINY))
    store.put(picture(1))
    with pytest.raises(StoreUnavailable, match="raise max_map_size"):
        store.put_many([picture(n, str(n), preview=bytes(20_000)) for n in range(100, 140)])
    assert (store.count(), store.head()) == (1, 1)
    assert store.put(picture(2, "b")).seq == 2
    store.close()


def test_a_full_disk_refuses_the_write_and_takes_the_next(folder: Path, forks: Forks) -> None:
    store = LmdbStore(folder)
    store.put(picture(1))
    out = folder / "out"
    forks.join(forks.start("write_without_room", str(folder), str(out)))
    refused, *rest = lines(out)
    assert refused.startswith(f"refused: the store {folder}")
    assert "is the disk full? nothing was written" in refused
    assert rest == ["count 1", "count 2"]
    assert set(scanned(store, PHASH)[1]) == {1, 200}
    store.close()


def test_a_store_whose_folder_is_gone_acknowledges_no_write(folder: Path) -> None:
    store = LmdbStore(folder)
    store.put(picture(1))
    shutil.rmtree(folder)
    with pytest.raises(StoreUnavailable, match="was removed or replaced while it was open"):
        store.put(picture(2, "b"))
    store.close()
    LmdbStore(folder).close()


def test_a_folder_without_permission_is_refused_with_what_to_do(
    tmp_path: Path, folder: Path, forks: Forks
) -> None:
    LmdbStore(folder).close()
    for parent in (tmp_path, *tmp_path.parents):
        if parent.name.startswith(("pytest-", "popen-")) or parent == tmp_path:
            parent.chmod(0o755)
    (folder / "data.mdb").chmod(0o444)
    (folder / "lock.mdb").chmod(0o444)
    folder.chmod(0o555)
    out = tmp_path / "out"
    out.touch()
    out.chmod(0o666)
    forks.join(forks.start("open_as_nobody", str(folder), str(out)))
    folder.chmod(0o755)
    assert len(lines(out)) == 1
    assert lines(out)[0].startswith("refused: ")
    assert "check the folder's owner" in lines(out)[0]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreUnavailable, match=r"can't be read or written.*File exists"):
        LmdbStore(tmp_path / "file")
    with pytest.raises(StoreUnavailable):
        LmdbStore(tmp_path / "file" / "below")


def test_a_damaged_file_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"these are not the pages you are looking for" * 1000)
    with pytest.raises(StoreUnavailable, match="restore a backup") as caught:
        LmdbStore(folder)
    assert isinstance(caught.value.__cause__, lmdb.Error)


def test_a_scan_read_after_its_end_says_so(folder: Path) -> None:
    store = LmdbStore(folder)
    store.put_many([picture(n, str(n)) for n in range(9)])
    scan = store.scan(PHASH, batch=2)
    next(scan.batches)
    scan.close()
    scan.close()
    with pytest.raises(StoreUnavailable):
        next(scan.batches)
    store.close()


class _Panicking:
    """An environment whose root page could not be written: it refuses all until it is reopened."""

    def __init__(self, real: lmdb.Environment) -> None:
        self.real = real

    def begin(self, **_: object) -> None:
        raise lmdb.PanicError("begin")

    def close(self) -> None:
        self.real.close()


def test_an_environment_in_panic_is_reopened(folder: Path) -> None:
    store = LmdbStore(folder)
    store.put(picture(1))
    environment = acquire(folder, SMALL)
    environment._env = _Panicking(environment._env)  # type: ignore[assignment]
    assert store.put(picture(2, "b")).seq == 2
    assert store.count() == 2
    assert known(store, 1).sha256 == picture(1).sha256
    release(environment)
    store.close()
