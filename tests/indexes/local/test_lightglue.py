"""Candidates that geometry leaves unsure are matched again by LightGlue."""

from __future__ import annotations

import numpy as np
import pytest

from indexes.base import Hit, Query
from indexes.local.index import LocalIndex
from indexes.local.ranking import LocalParams, verified_hits
from models.errors import InvalidInput
from models.extractors.local import LOCAL_DTYPE
from models.lightglue import LightGlue, LightGlueOptions, shared
from models.types import Features
from tests.indexes.local.scenes import random_features
from tests.models.descriptors.networks import lightglue_file

IMAGES = {key: random_features(key, 120) for key in range(6)}
LIKELY = 5
"""Keypoints of a query that match by their descriptors: fewer than verify a hit."""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> LightGlueOptions:
    path = lightglue_file(tmp_path_factory.mktemp("weights"))
    return LightGlueOptions(weights=str(path), candidates=2)


def made(options: LightGlueOptions | None) -> LocalIndex:
    index = LocalIndex(
        LocalIndex.Config(lightglue=options), lambda ids: {i: IMAGES[i] for i in ids}
    )
    index.apply(dict(IMAGES))
    return index


def changed(features: Features) -> Features:
    """Return all keypoints in place, but most with descriptors that resemble others as much."""
    rng = np.random.default_rng(1)
    query = features.copy()
    noise = rng.normal(0, 60, features["descriptor"].shape)
    noise[:LIKELY] = 0
    query["descriptor"] = np.rint(features["descriptor"] + noise).clip(0, 255)
    return query


def search(index: LocalIndex, query: Features) -> list[Hit]:
    return index.search(Query([query]), LocalParams.parse({"smnn_match_threshold": 0.6}))


def test_what_geometry_leaves_unsure_is_verified_once_the_matcher_is_loaded(
    options: LightGlueOptions,
) -> None:
    query = changed(IMAGES[3])
    assert search(made(None), query) == []
    index = made(options)
    assert index.kind == "local-flat, without LightGlue: loading"
    assert search(index, query) == []
    shared(options).load()
    assert index.kind == "local-flat, LightGlue"
    (hit,) = search(index, query)
    assert hit.image_id == 3
    assert hit.inliers is not None
    assert hit.inliers > 50


def test_upkeep_begins_to_load_it(options: LightGlueOptions) -> None:
    own = options.model_copy(update={"weights": "/nowhere/sift_lightglue.pth"})
    index = made(own)
    index.maintain()
    loading = shared(own)._loading
    assert loading is not None
    for _ in range(1000):
        if "there is no file" in index.kind:
            break
        loading.join(0.02)
    expected = (
        "local-flat, without LightGlue: there is no file /nowhere/sift_lightglue.pth of weights"
    )
    assert index.kind == expected
    assert search(index, IMAGES[2])[0].image_id == 2


class Counting(LightGlue):
    """Counts the pictures that it matches."""

    def __init__(self, options: LightGlueOptions) -> None:
        super().__init__(options)
        self.asked = 0

    def match(
        self, query: Features, image: Features
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
        self.asked += 1
        return super().match(query, image)


def test_it_is_asked_about_a_few_candidates_and_only_without_a_sure_hit(
    options: LightGlueOptions,
) -> None:
    matcher = Counting(options)
    matcher.load()
    shortlist = [(image_id, 0) for image_id in IMAGES]
    params = LocalParams(smnn_match_threshold=0.6)
    hits = verified_hits([changed(IMAGES[3])], IMAGES, shortlist, params, matcher)
    assert ([hit.image_id for hit in hits], matcher.asked) == ([3], options.candidates)
    hits = verified_hits([IMAGES[3]], IMAGES, shortlist, params, matcher)
    assert ([hit.image_id for hit in hits], matcher.asked) == ([3], options.candidates)


def test_descriptors_that_it_was_not_trained_on_are_refused(options: LightGlueOptions) -> None:
    made(options).check_dtype(LOCAL_DTYPE)
    narrow = np.dtype([("x", "f4"), ("descriptor", "i1", (64,))])
    made(None).check_dtype(narrow)
    with pytest.raises(InvalidInput, match="LightGlue matches rootsift: remove `lightglue`"):
        made(options).check_dtype(narrow)


def test_snapshots_and_training_do_not_depend_on_it(options: LightGlueOptions) -> None:
    with_it, without = (LocalIndex.Config(lightglue=one) for one in (options, None))
    assert with_it.model_dump() == without.model_dump()
