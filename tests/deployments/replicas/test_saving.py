"""A retriever that is served again restores its snapshot and applies later changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.replicas import saving
from deployments.settings import snapshots_folder
from deployments.wire import SearchRequest
from indexes.replica.snapshot_file import header_of
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.errors import StoreUnavailable
from models.registry import make_extractor
from tests.deployments import served

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    store = LmdbStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(saving, "RETRY_SECONDS", 0.05)


def add(store: LmdbStore, first: int, count: int) -> None:
    extractor = make_extractor("phash", {})
    codes = np.random.default_rng(first).integers(0, 256, (count, 72), np.uint8)
    for image_id, code in enumerate(codes, first):
        features = {Space("phash", extractor.fingerprint): extractor.to_row(code)}
        store.put(ImageWrite(image_id, f"{image_id:064}", 4, 4, frozenset({"phash"}), features))


def args(tmp_path: Path) -> dict[str, Any]:
    return {"extractor": "phash", "store": f"lmdb:{tmp_path / 'store'}"}


async def snapshot(seq: int) -> Path:
    """Wait for the snapshot at this seq and return its file."""
    ends = time.monotonic() + 60
    while True:
        for path in snapshots_folder().glob("phash@*.snapshot"):
            header = header_of(path)
            if header is not None and header["seq"] == seq:
                return path
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)


async def test_a_retriever_served_again_begins_from_its_snapshot(
    tmp_path: Path, store: LmdbStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    add(store, 0, 20)
    await served.until(served.serve_here("phash", args(tmp_path)), "ready")
    await snapshot(20)
    add(store, 20, 3)
    store.delete(4)
    caplog.clear()
    again = served.serve_here("phash", args(tmp_path))
    says = await served.until(again, "ready")
    assert (says.count, says.applied_seq) == (22, 24)
    assert "phash begins from its snapshot, at seq 20" in caplog.text
    answer = await again.search.remote(SearchRequest({"k": 1}, image_id=21))
    assert [(hit.image_id, hit.distance) for hit in answer.hits] == [(21, 0)]


async def test_each_shard_begins_from_a_snapshot_of_its_own(
    tmp_path: Path, store: LmdbStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    add(store, 0, 20)
    for handle in served.shards_here("phash", args(tmp_path) | {"shards": 3}):
        await served.until(handle, "ready")
    ends = time.monotonic() + 60
    while len([*snapshots_folder().glob("phash@*.snapshot")]) < 3:
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)
    caplog.clear()
    again = served.shards_here("phash", args(tmp_path) | {"shards": 3})
    assert [(await served.until(one, "ready")).count for one in again] == [7, 7, 6]
    assert caplog.text.count("phash begins from its snapshot, at seq 20") == 3


async def test_where_no_snapshot_can_be_written_searches_go_on(
    tmp_path: Path, store: LmdbStore, caplog: pytest.LogCaptureFixture
) -> None:
    add(store, 0, 3)
    snapshots_folder().write_text("no folder")
    handle = served.serve_here("phash", args(tmp_path))
    await served.until(handle, "ready")
    ends = time.monotonic() + 60
    while caplog.text.count("no snapshot of phash was written") < 2:
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)
    answer = await handle.search.remote(SearchRequest({"k": 1}, image_id=2))
    assert not isinstance(answer, StoreUnavailable)
    assert answer.hits[0].image_id == 2
    snapshots_folder().unlink()
    await snapshot(3)
