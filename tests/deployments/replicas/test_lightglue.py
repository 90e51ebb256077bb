"""A served `local` whose unsure candidates are matched by LightGlue."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from deployments.wire import SearchAnswer, SearchRequest
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.registry import make_extractor
from tests.conftest import LIGHT_LOCAL
from tests.deployments import served
from tests.indexes.local.scenes import random_features
from tests.indexes.local.test_lightglue import changed
from tests.models.descriptors.networks import lightglue_file


@pytest.mark.anyio
async def test_it_serves_while_lightglue_loads_and_finds_more_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.lightglue.RETRY_SECONDS", 0.05)
    extractor = make_extractor("local", LIGHT_LOCAL)
    space = Space("local", extractor.fingerprint)
    images = {at: random_features(at, 120) for at in range(5)}
    with closing(LmdbStore(tmp_path / "store")) as store:
        for at, features in images.items():
            row = {space: extractor.to_row(features)}
            store.put(ImageWrite(at, f"{at:064}", 1, 1, frozenset({"local"}), row))
    path = tmp_path / "sift_lightglue.pth"
    index = {"lightglue": {"weights": str(path)}}
    args = {"extractor": "local", "options": LIGHT_LOCAL, "index": index}
    handle = served.serve_here("local", args)

    async def found() -> list[int]:
        request = SearchRequest({"smnn_match_threshold": 0.6}, features=[changed(images[3])])
        answer = await handle.search.remote(request)
        assert isinstance(answer, SearchAnswer)
        return [hit.image_id for hit in answer.hits]

    known = await served.until(handle, "ready")
    missing = f"local-flat, without LightGlue: there is no file {path} of weights"
    assert known.index in ("local-flat, without LightGlue: loading", missing)
    assert await found() == []
    lightglue_file(tmp_path)
    for _ in range(3000):
        known = await served.described(handle)
        if known.index == "local-flat, LightGlue":
            break
        await asyncio.sleep(0.02)
    assert (known.index, await found()) == ("local-flat, LightGlue", [3])
