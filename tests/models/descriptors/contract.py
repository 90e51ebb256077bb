"""What every descriptor must do whose network detects its own keypoints."""

from __future__ import annotations

import numpy as np
import pytest

from indexes.base import Hit, Query
from indexes.local.index import LocalIndex
from models.extractors.local import Local
from models.types import Features, Pixels
from tests.indexes.local.scenes import scene


def flipped(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[:, ::-1])


def first_hit(index: LocalIndex, variants: list[Features]) -> Hit:
    hits = index.search(Query(variants), index.Params.parse({"explain": True}))
    assert hits, "nothing found"
    return hits[0]


class DetectingDescriptorContract:
    """A subclass has the fixture `local`, an extractor that is loaded."""

    def test_features_are_within_their_limits(self, local: Local) -> None:
        features = local.extract(scene(1))
        assert features.dtype == local.dtype
        assert features["descriptor"].dtype == np.int8
        assert 20 <= len(features) <= 256
        assert ((features["x"] > -1) & (features["x"] < 400)).all()
        assert ((features["y"] > -1) & (features["y"] < 300)).all()
        assert not features["scale"].any()
        assert not features["angle"].any()
        assert (np.abs(features["descriptor"].astype(int)).max(axis=1) == 127).all()

    def test_a_row_brings_the_features_back(self, local: Local) -> None:
        features = local.extract(scene(2))
        assert (features["descriptor"] < 0).any()
        row = local.to_row(features)
        assert len(row) == len(features) * (16 + features["descriptor"].shape[1])
        np.testing.assert_array_equal(local.from_row(row), features)

    def test_extraction_is_repeatable_and_takes_read_only_pixels(self, local: Local) -> None:
        pixels = scene(3)
        pixels.setflags(write=False)
        features = local.extract(pixels)
        assert len(features)
        np.testing.assert_array_equal(features, local.extract(scene(3)))

    def test_the_mirror_image_is_extracted_from_the_flipped_picture(self, local: Local) -> None:
        pixels = scene(4)
        query = local.extract_variants(pixels, "mirror")
        assert local.mirrored(query[0]) is None
        assert len(query) == 2
        (of_flipped,) = local.extract_variants(flipped(pixels), "identity")
        of_flipped["x"] -= 399
        np.testing.assert_array_equal(query[1], of_flipped)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 1024), (1024, 1), (3, 2), (16, 16), (33, 31)])
    def test_tiny_pictures_have_features_if_any_of_the_right_kind(
        self, local: Local, shape: tuple[int, int]
    ) -> None:
        features = local.extract(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        assert features.dtype == local.dtype
        assert np.isfinite(features["x"]).all()
        assert len(local.extract_variants(np.zeros(shape, np.uint8), "mirror")) == 2
