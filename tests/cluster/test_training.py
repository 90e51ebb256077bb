"""Training whitening from stored features, and what a running retriever makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.training import train_whitening
from deployments.wire import SearchAnswer, SearchRequest
from indexes.lmdb_store import LmdbStore
from indexes.store import ImageWrite, Space
from indexes.whitening import load, unit
from models.base import make_extractor
from models.errors import InvalidInput, RetrieverUnavailable, UnknownName
from tests.deployments import served

COUNT = 50


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AMBIENCE_DATA", str(tmp_path))
    with served.of_the_tests():
        yield


def args(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"extractor": "shade", "options": {"path": str(tmp_path / "matrix.npy")}} | more


def config(tmp_path: Path, **more: Any) -> dict[str, Any]:
    path = "deployments.app:build_retriever"
    one = {"name": "shade", "import_path": path, "args": args(tmp_path, **more)}
    other = {"name": "phash", "import_path": path, "args": {"extractor": "phash"}}
    words = args(tmp_path, index={"whitening": "auto"}) | {"extractor": "tint"}
    return {"applications": [one, other, {"name": "tint", "import_path": path, "args": words}]}


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    with served.ended():
        yield


@pytest.fixture
def vectors(tmp_path: Path) -> np.ndarray[Any, Any]:
    """The stored features of pictures 0 to 49."""
    served.write_matrix(tmp_path / "matrix.npy")
    fingerprint = make_extractor("shade", args(tmp_path)["options"]).fingerprint
    random = np.random.default_rng(0)
    drawn = random.normal(size=(COUNT, 4)) * [5, 1, 1, 0.2] + [9, 0, 0, 0]
    rows = unit(drawn).astype(np.float32)
    store = LmdbStore(tmp_path / "store")
    for number, row in enumerate(rows):
        features = {Space("shade", fingerprint): row.tobytes()}
        store.put(ImageWrite(number, f"{number:064}", 1, 1, frozenset({"shade"}), features))
    store.close()
    return rows


def test_each_training_writes_the_next_version(
    tmp_path: Path, vectors: np.ndarray[Any, Any]
) -> None:
    wanted = config(tmp_path, index={"whitening": "auto"})
    first = train_whitening(wanted, "shade")
    assert (first.version, first.pictures, first.dimensions) == (1, len(vectors), 4)
    assert first.path.is_relative_to(tmp_path / "whitening")
    assert train_whitening(wanted, "shade", dimensions=3).version == 2
    read = load(first.path)
    assert read is not None
    assert (read.version, read.projection.shape) == (2, (4, 3))
    own = tmp_path / "own.npz"
    named = config(tmp_path, index={"whitening": str(own)})
    assert train_whitening(named, "shade").path == own


@pytest.mark.usefixtures("vectors")
def test_what_is_not_whitened_is_refused_with_the_reason(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    with pytest.raises(InvalidInput, match="whitening: auto"):
        train_whitening(wanted, "shade")
    for name in ("phash", "tint"):
        with pytest.raises(InvalidInput, match=f"{name} is not whitened"):
            train_whitening(wanted, name)
    with pytest.raises(UnknownName, match=r"no retriever 'global'; there are phash, shade"):
        train_whitening(wanted, "global")
    with pytest.raises(InvalidInput, match="never whitened"):
        served.serve_here("tint", wanted["applications"][2]["args"])


def test_without_the_weights_the_feature_space_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(RetrieverUnavailable, match=r"matrix\.npy"):
        train_whitening(config(tmp_path, index={"whitening": "auto"}), "shade")


@pytest.mark.anyio
async def test_a_running_retriever_swaps_its_index_without_a_gap(
    tmp_path: Path, vectors: np.ndarray[Any, Any]
) -> None:
    wanted = config(tmp_path, index={"whitening": "auto"})
    handle = served.serve_here("shade", wanted["applications"][0]["args"])
    assert (await served.until(handle, "ready")).index == "cosine-flat"
    trained = asyncio.create_task(asyncio.to_thread(train_whitening, wanted, "shade"))
    query = SearchRequest({"k": COUNT}, image_id=7)
    kinds = ["cosine-flat"]
    for _ in range(2000):
        answer = await handle.search.remote(query)
        assert isinstance(answer, SearchAnswer)
        assert answer.hits[0].image_id == 7
        assert len(answer.hits) == COUNT
        kinds.append((await served.described(handle)).index)
        if kinds[-1] != "cosine-flat":
            break
        await asyncio.sleep(0.01)
    assert kinds[-1] == "cosine-flat, whitening 1"
    read = load((await trained).path)
    assert read is not None
    white = read.apply(vectors)
    answer = await handle.search.remote(query)
    gaps = {hit.image_id: hit.distance for hit in answer.hits}
    assert [gaps[number] for number in range(COUNT)] == pytest.approx(
        (1 - white @ white[7]).tolist(), abs=1e-5
    )


@pytest.mark.anyio
async def test_a_damaged_whitening_makes_it_unavailable_until_it_is_mended(
    tmp_path: Path, vectors: np.ndarray[Any, Any]
) -> None:
    assert len(vectors) == COUNT
    wanted = config(tmp_path, index={"whitening": "auto"})
    path = train_whitening(wanted, "shade").path
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    handle = served.serve_here("shade", wanted["applications"][0]["args"])
    says = await served.until(handle, "unavailable")
    assert "train it again" in str(says.reason)
    path.write_bytes(whole)
    assert (await served.until(handle, "ready")).index == "cosine-flat, whitening 1"
