"""Training from stored features, and its use by a running retriever."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cluster.jobs import training
from cluster.jobs.training import Lists, train_whitening
from deployments.wire import SearchAnswer, SearchRequest
from indexes.base import Query
from indexes.inverted.trained import load as load_trained
from indexes.local.index import LocalIndex
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from indexes.vectors.whitening import load, unit
from models.errors import InvalidInput, RetrieverUnavailable, UnknownName
from models.registry import make_extractor
from tests.conftest import AMBIENCE, LIGHT_LOCAL, light_config
from tests.deployments import served
from tests.indexes.local.scenes import random_features

COUNT = 50


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AMBIENCE_DATA", str(tmp_path))
    with served.with_test_extractors():
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


def stored(tmp_path: Path, count: int) -> npt.NDArray[np.float32]:
    """Store features of images 0 to `count` - 1 and return them: (count, 4) float32."""
    served.write_matrix(tmp_path / "matrix.npy")
    fingerprint = make_extractor("shade", args(tmp_path)["options"]).fingerprint
    random = np.random.default_rng(0)
    drawn = random.normal(size=(count, 4)) * [5, 1, 1, 0.2] + [9, 0, 0, 0]
    rows = unit(drawn).astype(np.float32)
    space = Space("shade", fingerprint)
    store = LmdbStore(tmp_path / "store")
    for start in range(0, count, 500):
        store.put_many(
            [
                ImageWrite(at, f"{at:064}", 1, 1, frozenset({"shade"}), {space: rows[at].tobytes()})
                for at in range(start, min(start + 500, count))
            ]
        )
    store.close()
    return rows


@pytest.fixture
def vectors(tmp_path: Path) -> np.ndarray[Any, Any]:
    """The stored features of images 0 to 49."""
    return stored(tmp_path, COUNT)


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


# --- inverted lists -------------------------------------------------------------------------------


def steps_of(wanted: dict[str, Any]) -> Iterator[Any]:
    """Yield what the Ray task of a training yields."""
    parsed, space, path = training.training_target("trained", wanted, "shade")
    return training.training_steps(parsed, "shade", space, path)


def trained_here(wanted: dict[str, Any]) -> Lists:
    *_, last = steps_of(wanted)
    assert isinstance(last, Lists)
    return last


def test_lists_are_learnt_step_by_step_and_each_training_is_the_next_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "FEWEST", 300)
    stored(tmp_path, 3000)
    wanted = config(tmp_path, index={"trained": "auto"})
    *steps, done = steps_of(wanted)
    assert [what for what, *_ in steps if what == "lists"] == ["lists"] * 10
    assert {what for what, *_ in steps} == {"sample", "rotation", "lists", "codes"}
    assert (done.version, done.pictures) == (1, 3000)
    assert done.lists * 40 <= done.points <= 3000
    assert done.path.is_relative_to(tmp_path / "trained")
    assert list(done.path.parent.iterdir()) == [done.path]
    assert trained_here(wanted).version == 2


def test_a_training_that_was_interrupted_goes_on_from_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "FEWEST", 300)
    stored(tmp_path, 3000)
    wanted = config(tmp_path, index={"trained": "auto"})
    for step in steps_of(wanted):
        if step == ("lists", 4, 10):
            break
    steps = list(steps_of(wanted))
    assert steps[0] == ("lists", 4, 10)
    whole = load_trained(steps[-1].path)
    steps[-1].path.unlink()
    again = load_trained(trained_here(wanted).path)
    assert whole is not None
    assert again is not None
    assert (whole.learnt == again.learnt).all()


def test_what_an_interrupted_training_of_another_whitening_left_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "FEWEST", 300)
    stored(tmp_path, 3000)
    wanted = config(tmp_path, index={"trained": "auto", "whitening": "auto"})
    for step in steps_of(wanted):
        if step[0] == "lists":
            break
    train_whitening(wanted, "shade")
    assert next(steps_of(wanted))[0] == "sample"


@pytest.mark.usefixtures("vectors")
def test_too_few_features_are_refused_with_what_it_takes(tmp_path: Path) -> None:
    wanted = config(tmp_path, index={"trained": "auto"})
    with pytest.raises(InvalidInput, match=r"shade has 50 features .* training needs 10240"):
        trained_here(wanted)
    with pytest.raises(InvalidInput, match="trained: auto"):
        training.training_target("trained", config(tmp_path), "shade")
    with pytest.raises(InvalidInput, match="phash is not trained"):
        training.training_target("trained", wanted, "phash")


@pytest.mark.anyio
async def test_a_running_retriever_takes_trained_lists_up_and_follows_the_log_without_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "FEWEST", 300)
    rows = stored(tmp_path, 3000)
    wanted = config(tmp_path, index={"trained": "auto"})
    handle = served.serve_here("shade", wanted["applications"][0]["args"])
    assert (await served.until(handle, "ready")).index == "cosine-flat"
    work = asyncio.create_task(asyncio.to_thread(trained_here, wanted))
    store = LmdbStore(tmp_path / "store")
    space = Space("shade", make_extractor("shade", args(tmp_path)["options"]).fingerprint)
    added = 3000
    kind = "cosine-flat"
    for _ in range(3000):
        # Every answer must contain the image added just before it, whichever index answers.
        row = unit(np.random.default_rng(added).normal(size=(1, 4))).astype(np.float32)[0]
        store.put(
            ImageWrite(added, f"{added:064}", 1, 1, frozenset({"shade"}), {space: row.tobytes()})
        )
        for number, least in ((added, 1), (7, 20)):
            request = SearchRequest({"k": 20}, image_id=number)
            answer = await handle.search.remote(request)
            assert isinstance(answer, SearchAnswer)
            assert answer.hits[0].distance == 0
            assert number in [hit.image_id for hit in answer.hits]
            assert len(answer.hits) >= least
        added += 1
        kind = (await served.described(handle)).index
        if kind != "cosine-flat":
            break
        await asyncio.sleep(0.01)
    store.close()
    assert kind == "cosine-ivf, training 1"
    assert (await work).pictures >= 3000
    assert len(rows) == 3000


@pytest.mark.anyio
async def test_an_index_that_needs_compaction_is_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "FEWEST", 300)
    rows = stored(tmp_path, 3000)
    wanted = config(tmp_path, index={"trained": "auto"})
    trained_here(wanted)
    handle = served.serve_here("shade", wanted["applications"][0]["args"])
    before = await served.until(handle, "ready")
    assert (before.index, before.count) == ("cosine-ivf, training 1", len(rows))
    freed = 2000 * 8
    """Bytes of the dead rows' ids in the lists, beside their codes."""
    store = LmdbStore(tmp_path / "store")
    for at in range(2000):
        store.delete(at)
    store.close()
    for _ in range(600):
        request = SearchRequest({"k": 5}, image_id=2500)
        answer = await handle.search.remote(request)
        assert isinstance(answer, SearchAnswer)
        assert answer.hits[0].distance == 0
        now = await served.described(handle)
        if now.count == 1000 and now.bytes <= before.bytes - freed:
            break
        await asyncio.sleep(0.05)
    assert (now.count, now.index) == (1000, before.index)
    assert now.bytes <= before.bytes - freed


@pytest.mark.soak
def test_the_command_trains_local_in_a_ray_task(tmp_path: Path) -> None:
    extractor = make_extractor("local", LIGHT_LOCAL)
    pictures = {at: random_features(at, 200) for at in range(80)}
    store = LmdbStore(tmp_path / "store")
    space = Space("local", extractor.fingerprint)
    for at, row in pictures.items():
        features = {space: extractor.to_row(row)}
        store.put(ImageWrite(at, f"{at:064}", 1, 1, frozenset({"local"}), features))
    store.close()
    command = [str(AMBIENCE), "train", "local", "--config", str(light_config()), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stderr
    done = json.loads(ran.stdout)
    assert (done["version"], done["pictures"]) == (1, 80)
    assert 10_240 <= done["points"] <= 16_000
    index = LocalIndex(LocalIndex.Config(trained=done["path"]), lambda _: pictures)
    index.apply(dict(pictures))
    assert index.kind == "local-ivfpq, training 1"
    found = index.search(Query([pictures[7]]), index.Params.parse({"k": 3}))
    assert found[0].image_id == 7
    refused = subprocess.run(
        [*command[:2], "phash", *command[3:]], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "phash is not trained" in refused.stderr
