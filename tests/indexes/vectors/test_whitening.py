from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from indexes.base import Query
from indexes.vectors.index import VectorIndex
from indexes.vectors.whitening import Whitening, fit, load, save
from models.errors import InvalidInput, RetrieverUnavailable

Vectors = npt.NDArray[np.float32]
CLASSES, EACH, WIDTH, SHARED = 40, 10, 32, 4


def co_occurring(seed: int = 0) -> Vectors:
    """Return features of classes in 28 directions; 4 unrelated ones co-occur and dominate."""
    random = np.random.default_rng(seed)
    classes = np.repeat(random.normal(size=(CLASSES, WIDTH)), EACH, axis=0)
    features = classes + 0.5 * random.normal(size=classes.shape)
    features[:, :SHARED] = 12 * random.normal(size=(len(features), SHARED))
    turn, _ = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))
    return np.asarray(features @ turn + 3, np.float32)


def index_of(vectors: Vectors, path: Path | None = None) -> VectorIndex:
    options = VectorIndex.Config(whitening=None if path is None else str(path))
    index = VectorIndex(options, lambda _: {})
    index.apply(dict(enumerate(vectors)))
    return index


def mean_average_precision(index: VectorIndex, vectors: Vectors) -> float:
    params = index.Params.parse({"k": len(vectors)})
    precisions = []
    for number, vector in enumerate(vectors):
        hits = index.search(Query([vector]), params)
        found = [hit.image_id for hit in hits if hit.image_id != number]
        right = np.array([image_id // EACH == number // EACH for image_id in found])
        at = np.flatnonzero(right)
        precisions.append(float(np.mean(np.arange(1, len(at) + 1) / (at + 1))))
    return float(np.mean(precisions))


def test_whitening_finds_more_where_directions_co_occur(tmp_path: Path) -> None:
    vectors = co_occurring()
    save(tmp_path / "w.npz", fit([vectors[:150], vectors[150:]]))
    before = mean_average_precision(index_of(vectors), vectors)
    after = mean_average_precision(index_of(vectors, tmp_path / "w.npz"), vectors)
    assert before < 0.2
    assert after > 0.8


def test_whitened_vectors_have_no_mean_and_unit_covariance() -> None:
    vectors = co_occurring()
    whitening = fit([vectors])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    seen = (vectors / lengths - whitening.mean) @ whitening.projection
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(seen.T @ seen / len(seen), np.eye(WIDTH), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(whitening.apply(vectors), axis=1), 1)


def test_one_pass_in_batches_is_as_good_as_one_over_all() -> None:
    vectors = co_occurring()
    whole = fit([vectors]).apply(vectors)
    parts = fit(np.array_split(vectors, 7)).apply(vectors)
    np.testing.assert_allclose(whole @ whole.T, parts @ parts.T, atol=1e-5)


def test_directions_can_be_cut(tmp_path: Path) -> None:
    vectors = co_occurring()
    save(tmp_path / "w.npz", fit([vectors], dimensions=20))
    index = index_of(vectors, tmp_path / "w.npz")
    assert index.kind == "cosine-flat, whitening 1"
    assert index.search(Query([vectors[7]]), index.Params.parse({"k": 1}))[0].image_id == 7
    assert fit([vectors], dimensions=20).projection.shape == (WIDTH, 20)


def test_directions_without_variance_are_cut() -> None:
    vectors = co_occurring()
    flat = np.concatenate([vectors, np.zeros_like(vectors)], axis=1)
    assert fit([flat]).projection.shape == (2 * WIDTH, WIDTH)
    assert fit([vectors[:9]]).projection.shape == (WIDTH, 8)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pictures_are_refused(count: int) -> None:
    with pytest.raises(InvalidInput, match=f"not of {count}"):
        fit([co_occurring()[:count]] if count else [])


def test_pictures_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(InvalidInput, match="differ"):
        fit([np.ones((50, 4), np.float32)])


def test_vectors_of_another_length_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "w.npz", fit([co_occurring()]))
    with pytest.raises(InvalidInput, match="32 values, not 16"):
        index_of(co_occurring()[:, :16], tmp_path / "w.npz")


def test_what_was_saved_is_read_and_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "w.npz"
    assert load(path) is None
    made = fit([co_occurring()], version=3)
    save(path, made)
    read = load(path)
    assert read is not None
    assert (read.version, read.pictures) == (3, CLASSES * EACH)
    assert read.projection.tobytes() == made.projection.tobytes()
    assert [one.name for one in path.parent.iterdir()] == ["w.npz"]
    other = Whitening(4, read.pictures, read.mean + 1, read.projection)
    np.savez(
        path,
        version=4,
        pictures=other.pictures,
        mean=other.mean,
        projection=other.projection,
        checksum="0" * 64,
    )
    with pytest.raises(RetrieverUnavailable, match="damaged"):
        load(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RetrieverUnavailable, match="train it again"):
        load(path)


def test_a_whitening_that_is_not_there_yet_is_none(tmp_path: Path) -> None:
    assert index_of(co_occurring(), tmp_path / "none.npz").kind == "cosine-flat"
