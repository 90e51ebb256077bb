"""ALIKED with random weights in the published format, loaded as the service does."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes.base import Hit, Query
from indexes.local.index import LocalIndex
from models.descriptors.aliked import CONSTANTS
from models.descriptors.selection import Selection
from models.errors import RetrieverUnavailable
from models.extractors.local import Local
from models.registry import make_extractor
from models.types import Features, Pixels
from tests.indexes.local.scenes import scene

TENSORS = "8abd41e1ad4558d6f6074a339b57c18893def3e5dca71758d988a67cb449714f"
"""SHA-256 of the sorted lines "name shape" of all tensors in the published aliked-n16.pth."""
SMALL = {"descriptor": "aliked", "min_side": 96, "max_side": 160}


def published_state() -> Any:
    """Return the state dict of a random network whose scores spread over most of (0, 1)."""
    import torch
    from kornia.feature import ALIKED

    torch.manual_seed(0)
    state = ALIKED("aliked-n16").state_dict()
    state["score_head.6.weight"] *= 20
    return {name: tensor for name, tensor in state.items() if name not in CONSTANTS}


def loaded(folder: Path, **options: Any) -> Local:
    import torch

    path = folder / "aliked.pth"
    torch.save(options.pop("state", None) or published_state(), path)
    extractor = make_extractor("local", {**SMALL, "weights": str(path), **options})
    assert isinstance(extractor, Local)
    extractor.load()
    return extractor


@pytest.fixture(scope="module")
def aliked(tmp_path_factory: pytest.TempPathFactory) -> Local:
    return loaded(tmp_path_factory.mktemp("weights"))


def flipped(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[:, ::-1])


def test_the_network_is_the_published_one() -> None:
    lines = sorted(f"{name} {tuple(one.shape)}" for name, one in published_state().items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == TENSORS


def test_features_are_within_their_limits(aliked: Local) -> None:
    features = aliked.extract(scene(1))
    assert features.dtype == aliked.dtype
    assert features["descriptor"].dtype == np.int8
    assert 20 <= len(features) <= 256
    assert ((features["x"] > -1) & (features["x"] < 400)).all()
    assert ((features["y"] > -1) & (features["y"] < 300)).all()
    assert not features["scale"].any()
    assert not features["angle"].any()
    assert (np.abs(features["descriptor"].astype(int)).max(axis=1) == 127).all()
    left, top = features["x"] < 200, features["y"] < 150
    for quadrant in (left & top, left & ~top, ~left & top, ~left & ~top):
        assert quadrant.sum() <= 64


def test_the_network_gives_unit_descriptors_strongest_first(aliked: Local) -> None:
    pixels = scene(1, 120, 160)
    points, score, descriptors = aliked._descriptor.run(pixels)  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)
    every = Selection(1600, 1600, 1600)
    keypoints = aliked._descriptor.describe(pixels, (96, 160), every).keypoints
    assert len(keypoints.points) == (score > 0.05).sum()
    strongest_first = points[np.argsort(-score, kind="stable")][: len(keypoints.points)]
    np.testing.assert_allclose(keypoints.points, strongest_first, atol=1e-4)


def test_a_row_brings_the_features_back(aliked: Local) -> None:
    features = aliked.extract(scene(2))
    assert (features["descriptor"] < 0).any()
    np.testing.assert_array_equal(aliked.from_row(aliked.to_row(features)), features)


def test_extraction_is_repeatable(aliked: Local) -> None:
    np.testing.assert_array_equal(aliked.extract(scene(3)), aliked.extract(scene(3)))


def test_pixels_may_be_read_only(aliked: Local) -> None:
    pixels = scene(3, 120, 160)
    pixels.setflags(write=False)
    assert len(aliked.extract(pixels))


def test_the_mirror_image_is_extracted_from_the_flipped_picture(aliked: Local) -> None:
    pixels = scene(4)
    query = aliked.extract_variants(pixels, "mirror")
    assert aliked.mirrored(query[0]) is None
    assert len(query) == 2
    (of_flipped,) = aliked.extract_variants(flipped(pixels), "identity")
    of_flipped["x"] -= 399
    np.testing.assert_array_equal(query[1], of_flipped)


def first_hit(index: LocalIndex, variants: list[Features]) -> Hit:
    hits = index.search(Query(variants), index.Params.parse({"explain": True}))
    assert hits, "nothing found"
    return hits[0]


def test_an_index_finds_copies_of_other_size_and_mirrored_ones(aliked: Local) -> None:
    from PIL import Image

    rows = {number: aliked.extract(scene(number, 180, 240)) for number in range(4)}
    index = LocalIndex(LocalIndex.Config(), lambda ids: {one: rows[one] for one in ids})
    index.apply(rows)
    picture = Image.fromarray(scene(3, 180, 240))
    larger = np.asarray(picture.resize((600, 450), Image.Resampling.BICUBIC))
    hit = first_hit(index, aliked.extract_variants(larger, "mirror"))
    assert (hit.image_id, hit.mirrored) == (3, False)
    assert hit.homography is not None
    np.testing.assert_allclose(np.diag(hit.homography)[:2], 0.4, rtol=0.02)
    hit = first_hit(index, aliked.extract_variants(flipped(scene(2, 180, 240)), "mirror"))
    assert (hit.image_id, hit.mirrored) == (2, True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1024), (1024, 1), (3, 2), (16, 16)])
def test_tiny_pictures_have_features_if_any_of_the_right_kind(
    aliked: Local, shape: tuple[int, int]
) -> None:
    features = aliked.extract(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    assert features.dtype == aliked.dtype
    assert np.isfinite(features["x"]).all()
    assert len(aliked.extract_variants(np.zeros(shape, np.uint8), "mirror")) == 2


def test_a_picture_in_which_the_network_finds_nothing_has_no_features(tmp_path: Path) -> None:
    state = published_state()
    state["score_head.6.weight"] *= 0
    blind = loaded(tmp_path, state=state)
    assert blind.extract(scene(1, 120, 160)).shape == (0,)
    variants = blind.extract_variants(scene(1, 120, 160), "mirror")
    assert [len(variant) for variant in variants] == [0, 0]
    assert variants[1].dtype == blind.dtype


def test_the_fingerprint_tells_weights_apart_but_not_where_they_lie(tmp_path: Path) -> None:
    import torch

    prints = []
    for name in ("one", "same", "other"):
        (tmp_path / name).mkdir()
        state = published_state()
        if name == "other":
            state["conv1.weight"] += 1
        path = tmp_path / name / "aliked.pth"
        torch.save(state, path)
        prints.append(make_extractor("local", {**SMALL, "weights": str(path)}).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_weights_that_are_nowhere_leave_it_unavailable_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(RetrieverUnavailable, match=r"aliked-n16\.pth is not on this machine"):
        make_extractor("local", {"descriptor": "aliked"}).fingerprint  # noqa: B018


def test_a_file_in_the_cache_that_is_not_the_published_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "aliked-n16.pth").write_bytes(b"something else")
    with pytest.raises(RetrieverUnavailable, match="not the published file"):
        make_extractor("local", {"descriptor": "aliked"}).load()
