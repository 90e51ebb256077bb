"""Confidence: a hit is believable if few hits of its distance are expected by chance."""

from __future__ import annotations

import numpy as np
import pytest

from indexes.calibration import (
    PRIOR,
    TAIL,
    BackgroundModel,
    FalseDiscoveryRate,
    NormalisedBackgroundModel,
    chances,
    confidence_of,
)


def ball_distances(dimensions: int, count: int, seed: int = 0) -> np.ndarray:
    """Return distances from the centre of a uniform ball: P(distance < d) = d^dimensions."""
    return np.random.default_rng(seed).random(count) ** (1 / dimensions)


@pytest.mark.parametrize("dimensions", [3, 6, 20])
def test_the_tail_of_random_pairs_gives_its_threshold_and_dimensions(dimensions: int) -> None:
    fitted = BackgroundModel.of(ball_distances(dimensions, 100_000))
    assert fitted.near == pytest.approx(TAIL ** (1 / dimensions), rel=0.02)
    assert fitted.dimensions == pytest.approx(dimensions, rel=0.15)


def test_a_few_copies_among_the_pairs_hardly_move_the_fit() -> None:
    clean = ball_distances(6, 100_000)
    mixed = np.concatenate([clean, np.zeros(30)])
    assert BackgroundModel.of(mixed).dimensions == pytest.approx(
        BackgroundModel.of(clean).dimensions, rel=0.1
    )


def test_confidence_is_a_half_where_chance_hits_equal_the_prior() -> None:
    assert confidence_of(np.array([0.0, PRIOR, 1e9])).tolist() == pytest.approx(
        [1, 0.5, 0], abs=1e-9
    )


def test_as_many_chance_hits_are_counted_as_there_are_by_simulation() -> None:
    dimensions, count = 5, 2000
    fitted = BackgroundModel.of(ball_distances(dimensions, 100_000))
    rng = np.random.default_rng(1)
    nearest = (rng.random((500, count)) ** (1 / dimensions)).min(axis=1)
    above_confidence = fitted.confidence(nearest, count) >= 0.5
    assert above_confidence.mean() == pytest.approx(PRIOR, abs=0.02)


def test_nearer_is_surer_and_a_larger_collection_less_sure() -> None:
    fitted = BackgroundModel.of(ball_distances(6, 10_000))
    distances = np.linspace(0, 2, 50)
    small, large = fitted.confidence(distances, 100), fitted.confidence(distances, 100_000)
    assert (np.diff(small) <= 0).all()
    assert (large <= small).all()
    assert small[0] == 1
    assert ((small >= 0) & (small <= 1)).all()


@pytest.mark.parametrize("flat", [np.zeros(1000), np.ones(1000)])
def test_a_collection_of_one_picture_many_times_gives_a_finite_fit(flat: np.ndarray) -> None:
    fitted = BackgroundModel.of(flat)
    assert np.isfinite(fitted.confidence(np.array([0.0, 0.5, 2.0]), 10)).all()


def crowded_and_lonely(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors of a crowd of similar images and of isolated ones: (600, 64) each."""
    rng = np.random.default_rng(seed)
    crowd = rng.normal(size=64) + 0.9 * rng.normal(size=(600, 64))
    return _units(crowd), _units(rng.normal(size=(600, 64)))


def _units(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_normalised_distance_is_that_of_the_paper() -> None:
    crowd, lonely = crowded_and_lonely()
    background = NormalisedBackgroundModel.normalised_by(0.7, np.concatenate([crowd, lonely]))
    query = _units(np.random.default_rng(5).normal(size=(1, 64)))
    nearest = np.sort(background.sample @ query[0])[-2:].mean()
    found = background.normalised(np.array([0.1, 0.9]), query[[0, 0]])
    assert found == pytest.approx(np.array([0.1, 0.9]) + 0.7 * nearest, abs=1e-6)


def test_copies_of_the_query_are_none_of_its_background() -> None:
    _, lonely = crowded_and_lonely()
    alone = NormalisedBackgroundModel.normalised_by(1.0, lonely)
    query = _units(lonely[:1] + 0.01 * np.random.default_rng(1).normal(size=(1, 64)))
    with_copies = alone.normalised(np.zeros(1), query)
    others = np.sort(lonely[1:] @ query[0])[-2:].mean()
    assert with_copies == pytest.approx([others], abs=1e-6)


def test_one_threshold_separates_copies_from_neighbours_in_dense_and_sparse_regions() -> None:
    """The queries are edited slightly in the crowd and heavily among the isolated images."""
    crowd, lonely = crowded_and_lonely()
    rng = np.random.default_rng(2)
    queries = np.concatenate([crowd[300:500], lonely[300:500]])
    edits = np.repeat([0.04, 0.14], 200)[:, np.newaxis] * rng.normal(size=queries.shape)
    rest = np.concatenate([crowd[500:], lonely[500:], crowd[:300], lonely[:300]])
    near = (1 - queries @ rest.T).min(axis=1)
    same = 1 - (queries * _units(queries + edits)).sum(axis=1)
    sample = np.concatenate([crowd[:250], lonely[:250]])
    normal = NormalisedBackgroundModel.normalised_by(1.0, sample)
    normal_near, normal_same = normal.normalised(near, queries), normal.normalised(same, queries)

    def told_apart(true: np.ndarray, chance: np.ndarray) -> float:
        """Return the share of pairs of a true and a chance match that one threshold can order."""
        return float((true[:, np.newaxis] < chance).mean())

    assert told_apart(normal_same, normal_near) > 0.99
    assert told_apart(same, near) < 0.9
    raw = normal.raw
    found = (normal.confidence(normal_same, 1000) >= 0.5).mean()
    assert found > (raw.confidence(same, 1000) >= 0.5).mean() + 0.2
    assert (normal.confidence(normal_near, 1000) >= 0.5).mean() < 0.05


def test_tail_probabilities_are_those_of_unrelated_images_whatever_share_matches() -> None:
    rng = np.random.default_rng(0)
    unrelated = rng.normal(0.8, 0.02, 200_000)
    for true in (0, 400):
        sample = np.concatenate([unrelated, rng.normal(0.7, 0.02, true)])
        found = chances(np.array([0.8, 0.78, 0.76, 0.74]), sample)
        assert found == pytest.approx([0.5, 0.1587, 0.02275, 0.00135], rel=0.15)


def test_words_are_as_sure_whatever_range_a_model_gives_its_cosines() -> None:
    """CLIP gives true pairs cosines of about 0.3 among 0.2, SigLIP of about 0.1 among 0."""
    rng = np.random.default_rng(0)
    clip = 1 - np.concatenate([rng.normal(0.3, 0.01, 5), rng.normal(0.2, 0.02, 2000)])
    siglip = 1 - ((1 - clip) - 0.2)
    narrow = 1 - ((1 - clip) - 0.2) / 4
    expected = chances(clip[:50], clip)
    for distances in (siglip, narrow):
        assert chances(distances[:50], distances) == pytest.approx(expected, rel=1e-6)


def test_a_small_sample_makes_chance_likelier() -> None:
    sample = np.random.default_rng(0).normal(size=100_000)
    assert chances(np.array([-3.0]), sample[:100]) > 1.3 * chances(np.array([-3.0]), sample)


def test_the_false_discovery_rate_is_that_of_benjamini_and_hochberg() -> None:
    nearest = np.array([0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216])
    adjusted = np.array([0.01, 0.04, 0.084, 0.084, 0.084, 0.1, 0.1057, 0.216, 0.216, 0.216])
    found = FalseDiscoveryRate().confidence(nearest, 10)
    assert found == pytest.approx(confidence_of(adjusted), rel=1e-3)
    assert FalseDiscoveryRate().confidence(np.empty(0), 100).shape == (0,)


def test_a_nearer_hit_is_never_less_sure() -> None:
    drawn = np.sort(np.random.default_rng(0).random(300) ** 3)
    assert (np.diff(FalseDiscoveryRate().confidence(drawn, 300)) <= 1e-12).all()


@pytest.mark.parametrize("true", [0, 1, 30, 300])
def test_word_queries_are_confident_of_true_matches_and_hardly_any_others(true: int) -> None:
    """Of 2,000 images, the true ones are nearer by five standard deviations of the unrelated ones.

    A single true image must be nearer than many must be to be told from chance.
    """
    above_confidence, wrongly = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        distances = np.concatenate([rng.normal(-5, 0.7, true), rng.normal(0, 1, 2000 - true)])
        sample = rng.choice(distances, 512, replace=False)
        order = np.argsort(distances)[:500]
        sure = FalseDiscoveryRate().confidence(chances(distances[order], sample), 2000) >= 0.5
        above_confidence.append((sure & (order < true)).sum())
        wrongly.append((sure & (order >= true)).sum())
    assert np.mean(above_confidence) >= (0.9 if true > 1 else 0.6) * true
    assert np.mean(wrongly) <= 0.1 + 0.05 * true
