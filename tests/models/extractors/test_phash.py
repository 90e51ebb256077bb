"""pHash against its definition, its symmetries, and its robustness to edits."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from models.base import Extractor, dihedral
from models.extractors.phash import turned_codes
from models.pictures.decoding import decode
from models.registry import make_extractor
from models.types import Features, Pixels
from tests import drawing


@pytest.fixture(scope="module")
def phash() -> Extractor:
    return make_extractor("phash")


def scene(seed: int = 0, height: int = 300, width: int = 400) -> Pixels:
    """Draw soft blobs and noise with energy at all frequencies, like a photograph."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height))
    for size, weight in ((40, 1.0), (9, 0.7), (3, 0.4)):
        blobs = Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8))
        layer = blobs.resize((width, height), Image.Resampling.BILINEAR)
        picture = Image.blend(picture, layer, weight)
    return np.asarray(picture)


def defined(pixels: Pixels) -> Features:
    """Compute the hash with Pillow's luma and Lanczos filter and an explicit cosine matrix."""
    luma = Image.fromarray(pixels).convert("L").resize((96, 96), Image.Resampling.LANCZOS)
    k, n = np.arange(24)[:, None], np.arange(96)
    cosines = np.cos(np.pi * k * (2 * n + 1) / 192)
    low = cosines @ np.asarray(luma, np.float64) @ cosines.T
    return np.packbits(low > np.median(low))


def bits_between(first: Features, second: Features) -> int:
    return int(np.bitwise_count(first ^ second).sum())


@pytest.mark.parametrize(
    ("height", "width"), [(300, 400), (96, 96), (50, 31), (31, 500), (700, 97), (900, 1300)]
)
def test_the_hash_is_the_defined_one(phash: Extractor, height: int, width: int) -> None:
    for seed in range(3):
        pixels = scene(seed, height, width)
        assert bits_between(phash.extract(pixels), defined(pixels)) <= 8


def test_half_of_the_bits_are_set(phash: Extractor) -> None:
    features = phash.extract(scene())
    assert features.shape == (72,)
    assert features.dtype == np.uint8
    assert np.bitwise_count(features).sum() == 288


def test_near_copies_lie_under_64_bits_and_other_pictures_far_over(phash: Extractor) -> None:
    picture = Image.fromarray(scene())
    features = phash.extract(scene())
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    for copy in (
        picture.resize((200, 150), Image.Resampling.BICUBIC),
        picture.filter(ImageFilter.GaussianBlur(1)),
        picture.point(lambda value: value * 0.8 + 20),
        Image.open(file),
    ):
        assert bits_between(features, phash.extract(np.asarray(copy))) < 64
    assert bits_between(features, phash.extract(scene(1))) > 200


def test_the_variants_are_those_of_the_flipped_and_turned_pictures(phash: Extractor) -> None:
    pixels = scene()
    for count, name in ((1, "identity"), (2, "mirror"), (8, "dihedral")):
        variants = phash.extract_variants(pixels, name)  # type: ignore[arg-type]
        assert len(variants) == count
        for variant, picture in zip(variants, dihedral(pixels), strict=False):
            assert bits_between(variant, phash.extract(picture)) <= 6


def test_the_mirror_image_is_another_hash(phash: Extractor) -> None:
    as_it_is, mirrored = phash.extract_variants(scene(), "mirror")
    assert bits_between(as_it_is, mirrored) > 200
    assert phash.mirrored(as_it_is) is None


def test_a_reduced_decode_gives_nearly_the_same_hash(phash: Extractor) -> None:
    pixels = scene(2, 1800, 2400)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    full = decode(file.getvalue()).full
    assert full.shape == (900, 1200, 3)
    assert bits_between(phash.extract(full), defined(pixels)) <= 8


def test_a_blank_picture_has_a_hash(phash: Extractor) -> None:
    assert phash.extract(np.zeros((5, 5, 3), np.uint8)).shape == (72,)
    assert phash.extract(np.zeros((1, 1, 3), np.uint8)).shape == (72,)


def test_a_row_of_the_store_gives_the_features_back(phash: Extractor) -> None:
    features = phash.extract(scene())
    assert np.array_equal(phash.from_row(phash.to_row(features)), features)
    assert len(phash.to_row(features)) == 72


def test_a_query_with_few_meaningful_bits_carries_a_mask(phash: Extractor) -> None:
    assert all(len(code) == 72 for code in phash.extract_variants(scene(), "mirror"))
    mirror_symmetric = np.zeros((96, 96, 3), np.uint8)
    mirror_symmetric[:, 20:76] = scene()[:96, :56].max(axis=1, keepdims=True)
    for variant in phash.extract_variants(mirror_symmetric, "dihedral"):
        assert len(variant) == 144
        assert np.bitwise_count(variant[72:]).sum() < 0.9 * 576
    (flat,) = phash.extract_variants(np.full((50, 50, 3), 90, np.uint8), "identity")
    assert np.bitwise_count(flat[72:]).sum() <= 1
    assert np.array_equal(flat[:72], phash.extract(np.full((50, 50, 3), 90, np.uint8)))


def test_a_code_under_all_orientations_is_that_of_the_turned_picture(phash: Extractor) -> None:
    for seed in range(6):
        pixels = np.asarray(drawing.scene(seed))
        made = turned_codes(phash.extract(pixels)[None])[0]
        for picture in dihedral(pixels):
            gaps = np.bitwise_count(made ^ phash.extract(picture)).sum(axis=1)
            assert gaps.min() <= 40
            assert np.sort(gaps)[1] > 120
