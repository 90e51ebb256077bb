"""ALIKED with random weights in the published format, loaded as the service does."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes.local.index import LocalIndex
from models.descriptors.aliked import CONSTANTS
from models.descriptors.selection import Selection
from models.errors import RetrieverUnavailable
from models.extractors.local import Local
from models.registry import make_extractor
from tests.indexes.local.scenes import scene
from tests.models.descriptors.contract import DetectingDescriptorContract, first_hit, flipped

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


class TestAliked(DetectingDescriptorContract):
    @pytest.fixture
    def local(self, aliked: Local) -> Local:
        return aliked


def test_the_network_is_the_published_one() -> None:
    lines = sorted(f"{name} {tuple(one.shape)}" for name, one in published_state().items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == TENSORS


def test_the_network_gives_unit_descriptors_of_the_strongest_places(aliked: Local) -> None:
    pixels = scene(1, 120, 160)
    points, score, descriptors = aliked._descriptor.run(pixels)  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)
    every = Selection(1600, 1600)
    keypoints = aliked._descriptor.describe(pixels, (96, 160), every).keypoints
    strongest_first = points[np.argsort(-score, kind="stable")][: (score > 0.05).sum()]
    expected = strongest_first[every.rows(strongest_first, pixels.shape)]
    assert len(expected) > 100
    np.testing.assert_allclose(keypoints.points, expected, atol=1e-4)


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
