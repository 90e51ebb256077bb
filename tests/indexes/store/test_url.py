"""Stores opened by URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexes.store.lmdb.store import LmdbStore
from indexes.store.memory.store import MemoryStore
from indexes.store.url import open_store
from models.errors import InvalidInput
from tests.indexes.pictures import picture


def test_a_folder_is_opened_as_lmdb(tmp_path: Path) -> None:
    store = open_store(f"lmdb:{tmp_path / 'a' / 'b'}")
    assert isinstance(store, LmdbStore)
    store.put(picture(1))
    assert (tmp_path / "a" / "b" / "data.mdb").exists()
    store.close()


def test_each_memory_store_is_its_own() -> None:
    one, two = open_store("memory:"), open_store("memory:")
    assert isinstance(one, MemoryStore)
    one.put(picture(1))
    assert two.count() == 0


@pytest.mark.parametrize(
    "url", ["postgresql:secret", "mysql://u:secret@h/db", "lmdb:", "memory:x", "", "/data"]
)
def test_any_other_url_is_refused_naming_the_known_ones(url: str) -> None:
    with pytest.raises(InvalidInput, match="lmdb:FOLDER") as caught:
        open_store(url)
    assert "secret" not in caught.value.detail
