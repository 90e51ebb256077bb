"""Stored features in the old services' format."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from cluster.jobs.transfer.environments import write
from cluster.jobs.transfer.exporting import Outcome, export, old_from
from indexes.store.base import ImageWrite, Space, Store
from indexes.store.memory.store import MemoryStore
from models.errors import InvalidInput
from models.registry import make_extractor
from tests.cluster.jobs.transfer.old_folder import contents, old_folder
from tests.cluster.jobs.transfer.test_importing import bring_in, histogram_of, phash_of

FILES = ("id_to_filename.lmdb", "filename_to_id.lmdb")


def send_out(store: Store, folder: Path, name: str = "phash") -> Outcome:
    extractor = make_extractor(name)
    space = Space(name, extractor.fingerprint)
    into = partial(write, folder, name)
    return export(store, space, old_from(extractor), into, lambda _: None)


@pytest.mark.parametrize("name", ["phash", "color"])
def test_what_was_imported_comes_out_byte_for_byte(tmp_path: Path, name: str) -> None:
    make, environment = {
        "phash": (phash_of, "phashes.lmdb"),
        "color": (histogram_of, "rgb_histograms.lmdb"),
    }[name]
    names = {at: f"{at}.online" if at % 2 else f"Bär {at}.jpg" for at in (1, 2, 3, 70_000)}
    images = {at: (file_name, make(at)) for at, file_name in names.items()}
    old = old_folder(tmp_path / "old", environment, images)
    store = MemoryStore()
    bring_in(store, old, name)
    done = send_out(store, tmp_path / "new", name)
    assert (done.written, done.bad) == (4, [])
    for path in (environment, *FILES):
        assert contents(tmp_path / "new" / path) == contents(old / path)


def test_what_the_format_can_not_hold_is_listed(tmp_path: Path) -> None:
    store = MemoryStore()
    space = Space("phash", make_extractor("phash").fingerprint)

    def put(image_id: int, source: str) -> None:
        wanted, rows = frozenset({"phash"}), {space: phash_of(image_id % 100)}
        store.put(ImageWrite(image_id, f"{image_id:064}", 4, 3, wanted, rows, source=source))

    put(1, "/a/sea.jpg")
    put(2, "/b/sea.jpg")
    put(3, f"/a/{'x' * 600}.jpg")
    put(2**32, "/a/far.jpg")
    done = send_out(store, tmp_path / "new")
    assert done.written == 1
    assert {one.path: one.reason for one in done.bad} == {
        "2": "another image has the same file name, sea.jpg",
        "3": "its file name has more than 511 bytes",
        str(2**32): f"its id is above {2**32 - 1}",
    }
    assert contents(tmp_path / "new" / "filename_to_id.lmdb") == {b"sea.jpg": b"\0\0\0\1"}


def test_data_that_is_there_is_not_touched(tmp_path: Path) -> None:
    old = old_folder(tmp_path, "phashes.lmdb", {1: ("1.jpg", phash_of(1))})
    before = contents(old / "phashes.lmdb")
    with pytest.raises(InvalidInput, match="is there already: name another folder"):
        send_out(MemoryStore(), old)
    assert contents(old / "phashes.lmdb") == before
