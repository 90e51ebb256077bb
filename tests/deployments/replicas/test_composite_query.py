from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from deployments.replicas.composite_query import composite_features
from deployments.wire import CompositeQuery
from models.errors import ImageNotFound, InvalidInput
from models.registry import make_extractor
from models.types import Features
from tests.deployments import served

EAST, NORTH = np.eye(2, dtype=np.float32)
STORED = {1: EAST, 2: NORTH, 3: -EAST}


class Compass(type(make_extractor("phash"))):  # type: ignore[misc]
    """An additive extractor that reads `north` and `south`."""

    additive = True

    def extract_text(self, text: str) -> Features:
        return {"north": NORTH, "south": -NORTH}[text]


def rows(image_ids: Sequence[int]) -> dict[int, Features]:
    return {image_id: STORED[image_id] for image_id in image_ids if image_id in STORED}


def composite(*pictures: Features, **parts: object) -> list[float]:
    extractor = Compass(Compass.Config())
    made: Features = composite_features(extractor, rows, CompositeQuery(**parts), pictures)  # type: ignore[arg-type]
    assert made.dtype == np.float32
    return made.tolist()


def test_parts_add_up_to_a_vector_of_unit_length() -> None:
    half = pytest.approx([0.5**0.5, 0.5**0.5])
    assert composite(EAST, text="north") == half
    assert composite(image_ids=[1, 2]) == half
    assert composite(EAST, EAST) == [1, 0]


def test_negative_parts_are_taken_off_with_their_weight() -> None:
    assert composite(EAST, text="north", negative_ids=[1]) == [0, 1]
    slight = composite(EAST, negative_text="north", negative_weight=0.5)
    assert slight == pytest.approx([0.8**0.5, -(0.2**0.5)])


def test_a_negative_image_without_features_counts_nothing() -> None:
    assert composite(EAST, negative_ids=[99]) == [1, 0]


def test_parts_that_cancel_out_are_no_query() -> None:
    with pytest.raises(InvalidInput, match="cancel"):
        composite(image_ids=[1, 3])


def test_an_image_without_features_is_not_found() -> None:
    with pytest.raises(ImageNotFound, match="99"):
        composite(EAST, image_ids=[99])


def test_a_non_additive_extractor_accepts_only_text() -> None:
    with served.with_test_extractors():
        words = make_extractor("words")
    made = composite_features(words, rows, CompositeQuery(text="red", image_ids=[1]))
    assert made.sum() == 1
    with pytest.raises(InvalidInput) as refused:
        composite_features(words, rows, CompositeQuery(image_ids=[1]))
    assert refused.value.field == "text"
