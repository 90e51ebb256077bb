"""A collection changes from descriptors of 128 values to others of 64: backfill, comparison,
training, switch and snapshots."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.jobs import training
from cluster.jobs.backfill import plan, retriever_specs, spaces_of, stages_of
from cluster.jobs.model_change import compare, switch
from cluster.jobs.settings import JobSettings
from cluster.jobs.training import Lists, training_steps, training_target
from deployments.wire import Description, SearchAnswer, SearchRequest
from indexes.store.base import Space
from indexes.store.lmdb.store import LmdbStore
from models.pictures.decoding import decode
from models.registry import make_extractor
from tests.cluster.jobs.stages import ONE_CORE, through
from tests.conftest import LIGHT_LOCAL
from tests.deployments import served
from tests.indexes.local.scenes import scene
from tests.models.descriptors.networks import xfeat_file

COUNT = 12


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AMBIENCE_DATA", str(tmp_path))
    with served.ended():
        yield


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(scene(number, 180, 240)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def wide() -> dict[str, Any]:
    return {"extractor": "local", "options": LIGHT_LOCAL}


@pytest.fixture
def narrow(tmp_path: Path) -> dict[str, Any]:
    weights = str(xfeat_file(tmp_path))
    options = {**LIGHT_LOCAL, "descriptor": "xfeat", "weights": weights}
    return {"extractor": "local", "options": options, "index": {"trained": "auto"}}


def config(args: dict[str, Any]) -> dict[str, Any]:
    builder = "deployments.app:build_retriever"
    return {"applications": [{"name": "local", "import_path": builder, "args": args}]}


def backfill(tmp_path: Path, applications: dict[str, Any]) -> int:
    kinds = retriever_specs(applications)
    with closing(LmdbStore(tmp_path / "store")) as store:
        made = plan(str(tmp_path / "pictures"), "filename", store, spaces_of(kinds))
        where = f"lmdb:{tmp_path / 'store'}"
        works = through(stages_of(kinds, JobSettings(where, ONE_CORE)), made.todo)
    assert not any(work.reason for work in works)
    return len(made.todo)


@pytest.mark.anyio
async def test_a_collection_changes_to_descriptors_of_another_width(
    tmp_path: Path, wide: dict[str, Any], narrow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(COUNT):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(png(number))
    both = wide | {"next": narrow}
    assert backfill(tmp_path, config(wide)) == COUNT
    assert backfill(tmp_path, config(both)) == COUNT
    extractor = make_extractor("local", narrow["options"])
    space = Space("local", extractor.fingerprint)
    with closing(LmdbStore(tmp_path / "store")) as store:
        rows = store.rows(space, range(COUNT))
    assert rows.keys() == {*range(COUNT)}
    assert all(len(row) % (16 + 64) == 0 for row in rows.values())

    assert compare(config(both), "local", sample=5).pictures == COUNT
    assert switch(config(both), "local", False, False, None).fingerprint == space.fingerprint

    monkeypatch.setattr(training, "FEWEST", 300)
    arguments, _, path = training_target("trained", config(narrow), "local")
    *_, done = training_steps(arguments, "local", space, path)
    assert isinstance(done, Lists)

    for _ in range(2):  # The second replica begins with the snapshot of the first.
        handle = served.serve_here("local", narrow)
        known: Description = await served.until(handle, "ready")
        assert (known.count, known.index) == (COUNT, "local-ivfpq, training 1")
        pixels = decode(png(7)).gray
        mirror = np.ascontiguousarray(pixels[:, ::-1])
        for asked, mirrored in ((pixels, False), (mirror, True)):
            request = SearchRequest({"k": 3}, "mirror", pixels=asked)
            answer = await handle.search.remote(request)
            assert isinstance(answer, SearchAnswer)
            assert (answer.hits[0].image_id, answer.hits[0].mirrored) == (7, mirrored)
        answer = await handle.search.remote(SearchRequest({"k": 3}, image_id=9))
        assert answer.hits[0].image_id == 9
        assert answer.hits[0].inliers > 20
