"""LightGlue with weights in the published layout, some of which match by descriptors alone."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import models.lightglue
from models.descriptors.xfeat import XFeat
from models.errors import RetrieverUnavailable
from models.extractors.local import LOCAL_DTYPE, local_dtype
from models.lightglue import LightGlue, LightGlueOptions, network_input, shared
from tests.indexes.local.scenes import EXTRACTOR, asked, random_features, scene, stored
from tests.models.descriptors.networks import lightglue_file


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lightglue_file(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def matcher(path: Path) -> LightGlue:
    made = LightGlue(LightGlueOptions(weights=str(path)))
    made.load()
    return made


def test_keypoints_of_one_picture_match_themselves(matcher: LightGlue) -> None:
    query, image = asked(scene(1), mirror=False)[0], stored(scene(1))
    pairs = matcher.match(query, image)
    assert len(pairs) > 100
    np.testing.assert_allclose(query["x"][pairs[:, 0]], image["x"][pairs[:, 1]], atol=0.01)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)


def test_a_mirrored_query_whose_x_axis_points_left_matches_too(matcher: LightGlue) -> None:
    mirror = EXTRACTOR.mirrored(stored(scene(2)[:, ::-1].copy()))
    assert mirror is not None
    assert (mirror["x"] < 0).any()
    assert len(matcher.match(mirror, stored(scene(2)))) > 60


def test_few_keypoints_and_keypoints_at_one_place_are_no_errors(matcher: LightGlue) -> None:
    some = random_features(1, 20)
    assert matcher.match(some[:3], some).shape == (0, 2)
    assert matcher.match(some, some[:0]).shape == (0, 2)
    some["x"] = some["y"] = 7
    assert len(matcher.match(some, random_features(2, 20))) <= 20


def test_scales_and_angles_are_what_kornia_gives_the_network() -> None:
    """Of frames of 6 sigma, as the published weights were trained with."""
    import torch
    from kornia.feature import laf_from_center_scale_ori
    from kornia.feature.integrated import _lightglue_keypoint_scale_ori

    features = stored(scene(3))
    features["angle"][:3] = 0, 180, 359
    lafs = laf_from_center_scale_ori(
        torch.from_numpy(np.column_stack([features["x"], features["y"]]))[None],
        torch.from_numpy(3 * features["scale"])[None, :, None, None],
        torch.from_numpy(-features["angle"])[None, :, None],
    )
    scales, angles = _lightglue_keypoint_scale_ori(lafs, "sift")
    given = network_input(features)
    np.testing.assert_allclose(given["scales"], scales[0].numpy(), rtol=1e-5)
    turn = given["oris"] - angles[0].numpy()
    np.testing.assert_allclose(np.cos(turn), 1, atol=1e-5)
    assert ((given["oris"] > -np.pi) & (given["oris"] <= np.float32(np.pi))).all()


def test_descriptors_are_unit_vectors_and_places_lie_within_their_size() -> None:
    given = network_input(stored(scene(4)))
    np.testing.assert_allclose(np.linalg.norm(given["descriptors"], axis=1), 1, atol=1e-5)
    assert (given["keypoints"] >= 0).all()
    assert (given["keypoints"] <= given["image_size"]).all()


def test_it_loads_in_the_background_once_the_weights_are_there(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.lightglue, "RETRY_SECONDS", 0.05)
    mine = tmp_path / "mine.pth"
    matcher = LightGlue(LightGlueOptions(weights=str(mine)))
    assert matcher.reason == "loading"
    for _ in range(3):
        matcher.start()
    until(lambda: matcher.reason != "loading")
    assert matcher.reason == f"there is no file {mine} of weights"
    mine.symlink_to(path)
    until(lambda: matcher.reason is None)
    assert len(matcher.match(stored(scene(1)), stored(scene(1)))) > 50


def test_without_weights_it_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(models.lightglue, "URL", "http://127.0.0.1:9/sift_lightglue.pth")
    with pytest.raises(RetrieverUnavailable, match=r"can't be fetched.*`ambience weights fetch"):
        LightGlue(LightGlueOptions()).load()


def test_a_file_of_another_network_is_refused_by_its_name(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(RetrieverUnavailable, match=r"other\.pth holds no .* of LightGlue"):
        LightGlue(LightGlueOptions(weights=str(path))).load()


def test_a_device_that_is_not_there_is_named(path: Path) -> None:
    matcher = LightGlue(LightGlueOptions(weights=str(path), device="cuda:9"))
    with pytest.raises(RetrieverUnavailable, match=r"no device cuda:9 here.*set `device: auto`"):
        matcher.load()
    assert matcher.reason == "loading"


def test_all_indexes_of_a_process_share_one_of_the_same_options() -> None:
    assert shared(LightGlueOptions()) is shared(LightGlueOptions())
    assert shared(LightGlueOptions()) is not shared(LightGlueOptions(candidates=7))


def test_it_suits_rootsift_alone() -> None:
    assert LightGlue.suits(LOCAL_DTYPE)
    assert not LightGlue.suits(local_dtype(XFeat))


def until(holds: object, seconds: float = 60.0) -> None:
    """Wait until the function returns true."""
    assert callable(holds)
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)
