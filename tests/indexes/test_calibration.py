"""Confidence: few chance hits make a hit believable, many don't."""

from __future__ import annotations

import numpy as np
import pytest

from indexes.calibration import PRIOR, TAIL, Background, confidence_of


def ball_distances(dimensions: int, count: int, seed: int = 0) -> np.ndarray:
    """Distances from the centre of a ball filled evenly: P(distance < d) = d^dimensions."""
    return np.random.default_rng(seed).random(count) ** (1 / dimensions)


@pytest.mark.parametrize("dimensions", [3, 6, 20])
def test_the_tail_of_random_pairs_gives_its_threshold_and_dimensions(dimensions: int) -> None:
    fitted = Background.of(ball_distances(dimensions, 100_000))
    assert fitted.near == pytest.approx(TAIL ** (1 / dimensions), rel=0.02)
    assert fitted.dimensions == pytest.approx(dimensions, rel=0.15)


def test_a_few_copies_among_the_pairs_hardly_move_the_fit() -> None:
    clean = ball_distances(6, 100_000)
    mixed = np.concatenate([clean, np.zeros(30)])
    assert Background.of(mixed).dimensions == pytest.approx(
        Background.of(clean).dimensions, rel=0.1
    )


def test_confidence_is_a_half_where_chance_hits_equal_the_prior() -> None:
    assert confidence_of(np.array([0.0, PRIOR, 1e9])).tolist() == pytest.approx(
        [1, 0.5, 0], abs=1e-9
    )


def test_as_many_chance_hits_are_counted_as_there_are_by_simulation() -> None:
    dimensions, count = 5, 2000
    fitted = Background.of(ball_distances(dimensions, 100_000))
    rng = np.random.default_rng(1)
    nearest = (rng.random((500, count)) ** (1 / dimensions)).min(axis=1)
    believed = fitted.confidence(nearest, count) >= 0.5
    assert believed.mean() == pytest.approx(PRIOR, abs=0.02)


def test_nearer_is_surer_and_a_larger_collection_less_sure() -> None:
    fitted = Background.of(ball_distances(6, 10_000))
    distances = np.linspace(0, 2, 50)
    small, large = fitted.confidence(distances, 100), fitted.confidence(distances, 100_000)
    assert (np.diff(small) <= 0).all()
    assert (large <= small).all()
    assert small[0] == 1
    assert ((small >= 0) & (small <= 1)).all()


@pytest.mark.parametrize("flat", [np.zeros(1000), np.ones(1000)])
def test_a_collection_of_one_picture_many_times_gives_a_finite_fit(flat: np.ndarray) -> None:
    fitted = Background.of(flat)
    assert np.isfinite(fitted.confidence(np.array([0.0, 0.5, 2.0]), 10)).all()
