"""HardNet8 with random weights in the published format, loaded as the service does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import RetrieverUnavailable
from models.extractors.local import Local
from models.registry import make_extractor
from models.types import Features
from tests.indexes.local.scenes import scene

SMALL = {"descriptor": "hardnet8", "max_keypoints": 60, "query_keypoints": 60}


def published_state() -> Any:
    """Return the state dict of a random network, with the tensor names of the published file."""
    import torch
    from kornia.feature import HardNet8

    torch.manual_seed(0)
    with torch.device("meta"):
        network = HardNet8(pretrained=False)
    state = network.state_dict()
    for name, tensor in state.items():
        scale = (2 / max(1, tensor[0].numel())) ** 0.5 if tensor.ndim == 4 else 1
        state[name] = torch.randn(tensor.shape) * scale
        if "running" in name:
            state[name] = torch.full(tensor.shape, float("var" in name))
        if "num_batches" in name:
            state[name] = torch.tensor(0)
    state["mean"] *= 0.01
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    path = tmp_path_factory.mktemp("weights") / "hub" / "checkpoints" / "hardnet8v2.pt"
    path.parent.mkdir(parents=True)
    torch.save(published_state(), path)
    return path


@pytest.fixture(scope="module")
def hardnet(weights: Path) -> Local:
    extractor = make_extractor("local", {**SMALL, "weights": str(weights)})
    assert isinstance(extractor, Local)
    extractor.load()
    return extractor


def nearest(one: Features, other: Features) -> tuple[Features, Features]:
    """Return the pairs of mutually most similar descriptors."""
    left, right = (side["descriptor"].astype(np.float32) for side in (one, other))
    left, right = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (left, right))
    similarity = left @ right.T
    best = similarity.argmax(axis=1)
    mutual = similarity.argmax(axis=0)[best] == np.arange(len(one))
    return one[mutual], other[best[mutual]]


def test_the_network_is_the_published_one() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in published_state().items()}
    convolutions = [shape for shape in shapes.values() if len(shape) == 4]
    widths = [32, 32, 64, 64, 128, 128, 256]
    assert convolutions == [
        *((out, into, 3, 3) for into, out in zip([1, *widths], widths, strict=False)),
        (512, 256, 8, 8),
    ]
    assert shapes["components"] == (512, 128)
    assert shapes["mean"] == (512,)


def test_the_keypoints_are_those_of_rootsift(hardnet: Local) -> None:
    features = hardnet.extract(scene(1))
    sift = make_extractor("local", {"max_keypoints": 60}).extract(scene(1))
    for name in ("x", "y", "scale", "angle"):
        np.testing.assert_array_equal(features[name], sift[name])
    assert features["descriptor"].dtype == np.int8
    assert (features["descriptor"] < 0).any()


def test_the_network_gives_unit_descriptors(hardnet: Local) -> None:
    frames = np.array([[50, 60, 8, 0], [120, 100, 20, 45]], np.float32)
    descriptors = hardnet._descriptor.run(scene(1), frames)  # type: ignore[attr-defined]
    assert descriptors.shape == (2, 128)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)


def test_a_patch_turns_with_its_keypoint(hardnet: Local) -> None:
    """Describe one place in a picture and in the turned picture, at the angles of SIFT."""
    pixels = scene(2, 201, 201)
    turned = np.ascontiguousarray(np.rot90(pixels))
    describe = hardnet._descriptor.run  # type: ignore[attr-defined]
    (one,) = describe(pixels, np.array([[120, 90, 6, 30]], np.float32))
    # A quarter turn counter-clockwise takes (x, y) to (y, width - 1 - x).
    right, wrong = describe(turned, np.array([[90, 80, 6, 300], [90, 80, 6, 120]], np.float32))
    assert one @ right > 0.99
    assert one @ wrong < one @ right - 0.05


def test_a_turned_picture_has_the_same_descriptors_at_turned_places(hardnet: Local) -> None:
    pixels = scene(4)
    ours, turned = nearest(
        hardnet.extract(pixels), hardnet.extract(np.ascontiguousarray(np.rot90(pixels)))
    )
    near = np.abs(ours["x"] - (399 - turned["y"])) + np.abs(ours["y"] - turned["x"]) < 2
    assert near.sum() >= 20


def test_pixels_may_be_read_only(hardnet: Local) -> None:
    pixels = scene(3, 375, 500)
    pixels.setflags(write=False)
    assert len(hardnet.extract(pixels))


def test_the_mirror_image_is_extracted_from_the_flipped_picture(hardnet: Local) -> None:
    pixels = scene(4)
    query, mirror = hardnet.extract_variants(pixels, "mirror")
    assert hardnet.mirrored(query) is None
    flipped = np.ascontiguousarray(pixels[:, ::-1])
    (of_flipped,) = hardnet.extract_variants(flipped, "identity")
    of_flipped["x"] -= 399
    np.testing.assert_array_equal(mirror, of_flipped)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1024), (1024, 1), (3, 2), (16, 16)])
def test_tiny_pictures_have_features_if_any_of_the_right_kind(
    hardnet: Local, shape: tuple[int, int]
) -> None:
    features = hardnet.extract(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    assert features.dtype == hardnet.dtype


def test_a_blank_picture_has_none(hardnet: Local) -> None:
    blank = np.full((200, 300), 90, np.uint8)
    assert hardnet.extract(blank).shape == (0,)
    assert [len(variant) for variant in hardnet.extract_variants(blank, "mirror")] == [0, 0]


def test_descriptors_never_share_a_feature_space(hardnet: Local) -> None:
    assert hardnet.fingerprint != make_extractor("local", {"max_keypoints": 60}).fingerprint


def test_the_file_that_torch_has_in_its_cache_is_taken(
    weights: Path, hardnet: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(weights.parents[2]))
    assert make_extractor("local", SMALL).fingerprint == hardnet.fingerprint


def test_another_models_weights_leave_it_unavailable(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(RetrieverUnavailable, match=r"other.pt holds no .* of HardNet8"):
        make_extractor("local", {**SMALL, "weights": str(path)}).load()
