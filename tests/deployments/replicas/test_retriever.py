"""The Retriever deployment, served in this process."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.wire import CompositeQuery, ExtractAnswer, SearchAnswer, SearchRequest
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.base import Extractor
from models.errors import ImageNotFound, InvalidInput, RetrieverUnavailable
from models.pictures.decoding import decode
from models.registry import make_extractor
from models.types import Features, Pixels
from tests.deployments import served
from tests.drawing import jpeg

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _extractors() -> Iterator[None]:
    with served.with_test_extractors():
        yield


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    store = LmdbStore(tmp_path / "store")
    yield store
    store.close()


def args(tmp_path: Path) -> dict[str, Any]:
    return {
        "extractor": "tint",
        "options": {"path": str(tmp_path / "matrix.npy")},
        "store": f"lmdb:{tmp_path / 'store'}",
        "completion_interval": 0.05,
    }


def loaded(tmp_path: Path) -> Extractor:
    served.write_matrix(tmp_path / "matrix.npy")
    extractor = make_extractor("tint", args(tmp_path)["options"])
    extractor.load()
    return extractor


def add_pending(store: LmdbStore, image_id: int, preview_only: bool) -> None:
    data = jpeg(image_id)
    picture = decode(data)
    original = None if preview_only else data
    store.put(
        ImageWrite(
            image_id,
            f"{image_id:064}",
            640,
            480,
            frozenset({"tint"}),
            {},
            preview=picture.preview_jpeg(),
            original=original,
        )
    )


def solid(*colour: int) -> Pixels:
    return np.full((40, 50, 3), colour, np.uint8)


def cosine(one: Features, other: Features) -> float:
    return float(one.astype(np.float64) @ other.astype(np.float64))


async def test_without_weights_it_says_so_and_with_them_it_catches_up(
    tmp_path: Path, store: LmdbStore
) -> None:
    began, modules = time.monotonic(), set(sys.modules)
    handle = served.serve_here("tint", args(tmp_path))
    says = await served.until(handle, "unavailable", 10)
    assert time.monotonic() - began < 10
    assert "torch" not in set(sys.modules) - modules
    assert says.reason == f"there is no file {tmp_path / 'matrix.npy'} of weights"
    assert (says.fingerprint, says.count, says.additive, says.reads_text) == ("", 0, True, True)
    refused = await handle.extract.remote(solid(1, 2, 3))
    assert isinstance(refused, RetrieverUnavailable)
    add_pending(store, 1, preview_only=True)
    add_pending(store, 2, preview_only=False)
    extractor = loaded(tmp_path)
    says = await served.until(handle, "ready")
    assert says.fingerprint == extractor.fingerprint
    ends = time.monotonic() + 20
    while (await served.described(handle)).count < 2:
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)
    assert store.pending("tint") == []
    answer = await handle.search.remote(SearchRequest({"k": 5}, image_id=2))
    assert [hit.image_id for hit in answer.hits] == [2, 1]


async def test_pictures_in_flight_share_a_pass(tmp_path: Path, store: LmdbStore) -> None:
    extractor = loaded(tmp_path)
    handle = served.serve_here("tint", args(tmp_path))
    await served.until(handle, "ready")
    passes: list[int] = type(extractor).passes  # type: ignore[attr-defined]
    passes.clear()
    pictures = [solid(20 * number, 90, 160) for number in range(8)]
    answers = await asyncio.gather(*(_extracted(handle, one) for one in pictures))
    assert sum(passes) == 8
    assert max(passes) == 4
    for picture, answer in zip(pictures, answers, strict=True):
        assert answer.row == extractor.to_row(extractor.extract(picture))
        assert answer.fingerprint == extractor.fingerprint
    assert store.count() == 0


async def _extracted(handle: Any, pixels: Pixels) -> ExtractAnswer:
    answer: ExtractAnswer = await handle.extract.remote(pixels)
    return answer


async def test_a_mixed_query_is_the_sum_of_unit_vectors(tmp_path: Path, store: LmdbStore) -> None:
    extractor = loaded(tmp_path)
    space = Space("tint", extractor.fingerprint)
    features = {number: extractor.extract(solid(*rgb)) for number, rgb in enumerate(_COLOURS)}
    for number, row in features.items():
        write = ImageWrite(number, f"{number:064}", 50, 40, frozenset({"tint"}), {})
        store.put(write)
        image = store.image(number)
        assert image is not None
        store.complete(number, image.generation, {space: extractor.to_row(row)})
    handle = served.serve_here("tint", args(tmp_path))
    await served.until(handle, "ready")
    composite = CompositeQuery(
        pixels=[solid(200, 30, 30), solid(90, 90, 10)],
        image_ids=[1, 2],
        text="blue",
        negative_text="grey",
        negative_ids=[0, 99],
        negative_weight=0.5,
    )
    expected = sum(
        (
            extractor.extract(solid(200, 30, 30)).astype(np.float64),
            extractor.extract(solid(90, 90, 10)),
            features[1],
            features[2],
            extractor.extract_text("blue"),
            -0.5 * extractor.extract_text("grey"),
            -0.5 * features[0],
        )
    )
    expected = np.asarray(expected / np.linalg.norm(expected))
    answer = await handle.search.remote(SearchRequest({"k": 10}, composite=composite))
    assert isinstance(answer, SearchAnswer)
    gaps = {hit.image_id: hit.distance for hit in answer.hits}
    assert gaps == {
        number: pytest.approx(1 - cosine(expected, row), abs=1e-6)
        for number, row in features.items()
    }


_COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (200, 200, 20)]


@pytest.mark.parametrize(
    ("composite", "kind", "field"),
    [
        (CompositeQuery(text="blue", negative_text="blue"), InvalidInput, "negative"),
        (CompositeQuery(negative_text="blue"), InvalidInput, "image"),
        (CompositeQuery(text="loud"), InvalidInput, "text"),
        (CompositeQuery(text="blue", image_ids=[7]), ImageNotFound, "image_id"),
    ],
)
async def test_a_mixture_without_a_direction_is_refused(
    tmp_path: Path, store: LmdbStore, composite: CompositeQuery, kind: type[Exception], field: str
) -> None:
    loaded(tmp_path)
    assert store.count() == 0
    handle = served.serve_here("tint", args(tmp_path))
    await served.until(handle, "ready")
    answer = await handle.search.remote(SearchRequest({"k": 10}, composite=composite))
    assert isinstance(answer, kind)
    assert getattr(answer, "field", None) == field
