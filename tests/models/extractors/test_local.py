"""Local features: number, positions, and behaviour under rotation and mirroring."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import InvalidInput
from models.extractors.local import LOCAL_DTYPE, Local, LocalOptions
from models.registry import make_extractor
from models.types import Features, Pixels

ROOT = Path(__file__).parents[3]
LOCAL = Local(LocalOptions())


def scene(seed: int, height: int = 300, width: int = 400) -> Pixels:
    """Draw grey blobs of several sizes, with keypoints everywhere."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for size in (6, 15, 40, 90):
        blobs = Image.fromarray(rng.integers(0, 256, (size, size), dtype=np.uint8))
        total += np.asarray(blobs.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return (total / 4).astype(np.uint8)


def nearest(one: Features, other: Features) -> tuple[Features, Features]:
    """Return the pairs of mutually nearest descriptors."""
    left, right = (side["descriptor"].astype(np.float32) for side in (one, other))
    distances = ((left[:, None] - right[None]) ** 2).sum(axis=2)
    best = distances.argmin(axis=1)
    mutual = distances.argmin(axis=0)[best] == np.arange(len(one))
    return one[mutual], other[best[mutual]]


def test_features_are_within_their_limits() -> None:
    features = LOCAL.extract(scene(1))
    assert features.dtype == LOCAL_DTYPE
    assert 150 <= len(features) <= 256
    assert (features["x"] > -1).all()
    assert (features["x"] < 400).all()
    assert (features["y"] < 300).all()
    assert (features["scale"] > 0).all()
    assert ((features["angle"] >= 0) & (features["angle"] < 360)).all()


def test_keypoints_do_not_crowd() -> None:
    features = LOCAL.extract(scene(1))
    points = np.stack([features["x"], features["y"]], axis=1)
    near = np.linalg.norm(points[:, None] - points, axis=2) < 400 / 60 - 1e-3
    stronger = np.tril(near, -1).sum(axis=1)
    assert stronger.max() <= 2


def test_no_keypoint_is_there_twice() -> None:
    for seed in range(6):
        (query,) = LOCAL.extract_variants(scene(seed), "identity")
        places = np.column_stack([query[name] for name in ("x", "y", "scale", "angle")])
        assert len(np.unique(places, axis=0)) == len(query)


def test_descriptors_are_of_unit_length_after_the_scale() -> None:
    lengths = np.linalg.norm(LOCAL.extract(scene(1))["descriptor"].astype(float), axis=1) / 512
    np.testing.assert_allclose(lengths, 1, atol=0.01)


def test_the_mirrored_features_are_those_of_the_mirrored_picture() -> None:
    pixels = scene(2)
    computed = LOCAL.mirrored(LOCAL.extract(pixels))
    extracted = LOCAL.extract(np.ascontiguousarray(pixels[:, ::-1]))
    ours, true = nearest(computed, extracted)
    assert len(ours) >= 0.7 * len(computed)
    difference = (ours["descriptor"].astype(float) - true["descriptor"]) / 512
    assert np.median(np.linalg.norm(difference, axis=1)) < 0.1
    assert np.median(np.abs(ours["x"] + 399 - true["x"])) < 0.3
    assert np.median(np.abs(ours["y"] - true["y"])) < 0.3
    turn = (ours["angle"] - true["angle"] + 180) % 360 - 180
    assert np.median(np.abs(turn)) < 1


def test_mirroring_twice_changes_nothing() -> None:
    features = LOCAL.extract(scene(3))
    twice = LOCAL.mirrored(LOCAL.mirrored(features))
    for name in ("x", "y", "scale", "descriptor"):
        np.testing.assert_array_equal(twice[name], features[name])
    np.testing.assert_allclose(twice["angle"], features["angle"], atol=1e-3)


def test_a_turned_picture_has_the_same_descriptors_at_turned_places() -> None:
    pixels = scene(4)
    ours, turned = nearest(
        LOCAL.extract(pixels), LOCAL.extract(np.ascontiguousarray(np.rot90(pixels)))
    )
    near = np.abs(ours["x"] - (399 - turned["y"])) + np.abs(ours["y"] - turned["x"]) < 2
    assert near.mean() > 0.7
    change = (turned["angle"][near] - ours["angle"][near]) % 360
    assert np.median(np.abs(change - 270)) < 2


@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_places_and_scales_are_in_pixels_of_the_picture_given(factor: float) -> None:
    pixels = scene(5)
    size = (round(400 * factor), round(300 * factor))
    other = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    ours, resized = nearest(LOCAL.extract(pixels), LOCAL.extract(other))
    placed = np.stack([ours["x"], ours["y"]], 1) * factor - np.stack(
        [resized["x"], resized["y"]], 1
    )
    near = np.linalg.norm(placed, axis=1) < 3 * factor
    assert near.mean() > 0.5
    assert np.median(resized["scale"][near] / ours["scale"][near]) == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1024), (1024, 1), (3, 2), (16, 16)])
def test_tiny_pictures_have_features_if_any_of_the_right_kind(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    features = LOCAL.extract(rng.integers(0, 256, shape, dtype=np.uint8))
    assert features.dtype == LOCAL_DTYPE
    assert LOCAL.mirrored(features).shape == features.shape


def test_a_blank_picture_has_none() -> None:
    blank = np.full((200, 300), 90, np.uint8)
    assert LOCAL.extract(blank).shape == (0,)
    assert [len(variant) for variant in LOCAL.extract_variants(blank, "mirror")] == [0, 0]


def test_a_query_has_more_keypoints_and_a_mirror_image() -> None:
    pixels = scene(6)
    identity = LOCAL.extract_variants(pixels, "identity")
    assert len(identity) == 1
    assert len(identity[0]) > len(LOCAL.extract(pixels))
    for symmetries in ("mirror", "dihedral"):
        both = LOCAL.extract_variants(pixels, symmetries)
        assert len(both) == 2
        np.testing.assert_array_equal(both[0], identity[0])
        np.testing.assert_array_equal(both[1], LOCAL.mirrored(identity[0]))


def test_the_first_keypoints_are_from_all_over_the_picture() -> None:
    busy = np.full((300, 400), 120, np.uint8)
    busy[:150, :200] = scene(6, 150, 200)
    soft = np.asarray(Image.fromarray(scene(7)).resize((40, 30)).resize((400, 300)))
    pixels = np.where(busy == 120, soft // 8 + 100, busy).astype(np.uint8)
    query = LOCAL.extract_variants(pixels, "identity")[0][:128]
    quadrants = Counter(zip((query["x"] < 200).tolist(), (query["y"] < 150).tolist(), strict=True))
    assert len(quadrants) == 4
    assert min(quadrants.values()) >= 10


def test_a_row_brings_the_features_back() -> None:
    features = LOCAL.extract(scene(7))
    row = LOCAL.to_row(features)
    assert len(row) == len(features) * 144
    np.testing.assert_array_equal(LOCAL.from_row(row), features)
    assert LOCAL.from_row(b"").shape == (0,)


def test_how_many_keypoints_a_query_has_leaves_the_feature_space_as_it_is() -> None:
    plain = make_extractor("local")
    assert make_extractor("local", {"query_keypoints": 100}).fingerprint == plain.fingerprint
    assert make_extractor("local", {"max_keypoints": 100}).fingerprint != plain.fingerprint


def test_extraction_is_repeatable() -> None:
    np.testing.assert_array_equal(LOCAL.extract(scene(8)), LOCAL.extract(scene(8)))


def test_the_default_feature_space_changes_only_with_the_version() -> None:
    assert make_extractor("local").fingerprint == "6817ed29c5ffacb5"
    first_release = "de1127d2a0be9566"
    assert make_extractor("local").fingerprint != first_release


def test_several_threads_extract_the_same_as_one() -> None:
    pictures = [scene(seed) for seed in range(8)]
    alone = [LOCAL.extract(pixels) for pixels in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(LOCAL.extract, pictures * 3))
    for one, other in zip(alone * 3, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_compiled_after_loading() -> None:
    """Count the signatures that a new process has compiled or read from numba's cache."""
    program = (
        "import numpy as np\n"
        "from models.descriptors import scale_space_kernels, selection, sift_kernels\n"
        "from models.registry import make_extractor\n"
        "kernels = [one for module in (scale_space_kernels, selection, sift_kernels)\n"
        "           for one in vars(module).values() if hasattr(one, 'signatures')]\n"
        "count = lambda: sum(len(one.signatures) for one in kernels)\n"
        "local = make_extractor('local'); local.load(); loaded = count()\n"
        "for shape in ((100, 90), (700, 800), (4, 3)):\n"
        "    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)\n"
        "    noise.setflags(write=False)\n"
        "    local.extract(noise); local.extract_variants(noise[:, ::-1], 'mirror')\n"
        "print(loaded, count(), all(one.targetoptions['nogil'] for one in kernels))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded, used, nogil = ran.stdout.split()
    assert int(loaded) > 0
    assert used == loaded
    assert nogil == "True"


def test_weights_for_a_descriptor_that_has_none_are_refused() -> None:
    with pytest.raises(InvalidInput, match="rootsift has no weights"):
        make_extractor("local", {"weights": "/some/file.pth"})


def test_an_unknown_descriptor_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="'rootsift', 'hardnet8', 'aliked' or 'xfeat'"):
        make_extractor("local", {"descriptor": "surf"})
