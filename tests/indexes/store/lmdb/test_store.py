"""The embedded store fulfils the contract and handles the pitfalls of LMDB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import lmdb
import orjson
import pytest

from indexes.store.base import Store
from indexes.store.lmdb.backup import back_up, restore
from indexes.store.lmdb.environment import LmdbOptions, acquire, release
from indexes.store.lmdb.rows import entry, entry_image_id, entry_names_space, number
from indexes.store.lmdb.store import LmdbStore
from indexes.store.lmdb.writes import Writer
from indexes.store.records import RecordKey
from models.errors import StoreUnavailable
from tests.indexes.pictures import (
    COLOR,
    PHASH,
    picture,
    tail,
    upload,
)
from tests.indexes.store.contract import StoreContract
from tests.indexes.store.forks import Forks

TINY = 1 << 18
SMALL = LmdbOptions(map_size=TINY)


class TestLmdbStore(StoreContract):
    def open(self, folder: Path, cap: int = 1 << 20) -> Store:
        return LmdbStore(folder, LmdbOptions(originals_bytes=cap))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("tests.indexes.store.lmdb.processes") as forks:
        yield forks


# --- persistence ----------------------------------------------------------------------------------


def test_a_reopened_store_has_everything(folder: Path) -> None:
    store = LmdbStore(folder)
    store.put(upload(7, metadata={"a": 1}, source="/photos/a.jpg"))
    store.put(picture(90, "gone"))
    store.delete(90)
    uuid, image = store.uuid, store.image(7)
    store.close()
    again = LmdbStore(folder)
    assert (again.uuid, again.image(7), again.head()) == (uuid, image, 3)
    assert again.original(7, 1) == b"original of a"
    assert again.put(picture(None, "next")).image_id == 91
    again.close()


def test_a_lease_outlives_its_process(folder: Path) -> None:
    store = LmdbStore(folder)
    store.lease("completer", "one", 60)
    store.close()
    again = LmdbStore(folder)
    assert not again.lease("completer", "two", 60)
    again.close()


def test_the_map_is_huge_and_the_file_is_not(folder: Path) -> None:
    store = LmdbStore(folder)
    store.put(picture(1))
    assert LmdbOptions().map_size >= 64 << 30
    assert LmdbOptions().max_readers == 1024
    assert os.stat(folder / "data.mdb").st_blocks * 512 < 1 << 20
    store.close()


def test_a_group_is_one_commit(folder: Path) -> None:
    store = LmdbStore(folder)
    environment = acquire(folder, SMALL)
    before = environment.read(lambda txn: txn.id())
    store.put_many([picture(n, str(n)) for n in range(64)])
    assert environment.read(lambda txn: txn.id()) == before + 1
    release(environment)
    store.close()


def test_a_change_elsewhere_does_not_touch_a_space(folder: Path) -> None:
    """Otherwise each retriever's completion would remove and add the image in every other index."""
    store = LmdbStore(folder)
    generation = store.put(picture(1, wanted=frozenset({"phash", "color"}))).generation
    store.complete(1, generation, {COLOR: b"c"})
    store.put(picture(1, metadata={"a": 1}))
    assert tail(store, PHASH, 1).rows == {}
    assert tail(store, PHASH, 1).head == 3
    assert tail(store, COLOR, 1).rows == {1: b"c"}
    store.close()


def test_a_long_log_is_compacted_in_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.store.lmdb.store.COMPACT_STEP", 7)
    store = LmdbStore(folder)
    store.put_many([picture(n, str(n)) for n in range(30)])
    store.compact(25)
    assert store.changes(PHASH, 24) is None
    assert set(tail(store, PHASH, 25).rows) == {25, 26, 27, 28, 29}
    store.close()


def test_another_layout_is_refused_by_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LmdbStore(folder).close()
    monkeypatch.setattr("indexes.store.lmdb.store.SCHEMA", 9)
    with pytest.raises(StoreUnavailable, match="layout 1, this version reads 9"):
        LmdbStore(folder)
    monkeypatch.undo()
    LmdbStore(folder).close()


def test_a_log_entry_touches_the_spaces_that_it_names_and_no_other() -> None:
    data = entry(b"p", 7, {1, 256, 70_000})
    some = (0, 1, 2, 256, 65_536, 70_000)
    assert [one for one in some if entry_names_space(data, one.to_bytes(4, "big"))] == [
        1,
        256,
        70_000,
    ]
    assert not entry_names_space(data, b"")
    assert entry_image_id(data) == 7


def test_what_an_older_version_stored_is_found_by_its_content(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "store")
    store.put_many([picture(3), picture(5)])

    def forget(writer: Writer) -> None:
        for key in list(writer.from_key("contents", b"")):
            writer.drop("contents", key)
        writer.drop("meta", b"contents")
        for image_id, row in list(writer.image_rows()):
            fields = orjson.loads(row.encode())[:-3]
            writer.keep("images", number(image_id), orjson.dumps(fields))

    store._write(forget)
    store.close()
    again = LmdbStore(tmp_path / "store")
    assert again.ids_by_sha256(picture(3).sha256) == [3, 5]
    image = again.image(5)
    assert image is not None
    assert (image.version, image.upload_name, image.facts) == (image.generation, None, None)
    again.close()


def test_a_store_that_an_older_version_wrote_takes_records(folder: Path) -> None:
    LmdbStore(folder).close()
    with lmdb.open(str(folder), max_dbs=32) as env, env.begin(write=True) as txn:
        txn.drop(env.open_db(b"records", txn=txn, create=False))
    store = LmdbStore(folder)
    store.write_records({RecordKey("rule", "bytes"): b"manual"})
    store.close()
    back_up(folder, folder.parent / "backup")
    restore(folder.parent / "backup", folder.parent / "other")
    again = LmdbStore(folder.parent / "other")
    assert again.record("rule", "bytes") == b"manual"
    again.close()


def test_a_counter_that_an_older_version_pushed_to_its_end_goes_on(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "store")
    store.put_many([picture(3), picture(2**46), picture(2**47 - 1)])
    store._write(lambda writer: writer.put_meta(b"next", 2**47))
    assert store.put(picture(None, "b")).image_id == 2**46 + 1
    store.close()
