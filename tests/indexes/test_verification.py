"""Matching and homographies, on keypoints whose true places are known."""

from __future__ import annotations

import numpy as np
import pytest

from indexes.verification import Side, agreeing, match, verify
from models.types import Features
from tests.indexes.scenes import jittered, random_features


def moved(features: Features, angle: float, scale: float, shift: tuple[float, float]) -> Features:
    """The keypoints of the picture turned by degrees, then scaled, then shifted by pixels."""
    result = jittered(features, 0)
    cos, sin = np.cos(np.deg2rad(angle)) * scale, np.sin(np.deg2rad(angle)) * scale
    result["x"] = cos * features["x"] - sin * features["y"] + shift[0]
    result["y"] = sin * features["x"] + cos * features["y"] + shift[1]
    result["scale"] = features["scale"] * scale
    result["angle"] = (features["angle"] + angle) % 360
    return result


@pytest.mark.parametrize(("angle", "scale"), [(0, 1), (30, 1), (200, 0.4), (359, 3)])
def test_the_homography_of_a_turned_and_scaled_picture_is_found(angle: float, scale: float) -> None:
    query = random_features(1, 80)
    image = moved(query, angle, scale, (40, -20))
    verified = verify(agreeing(match(Side.of(query), Side.of(image), 0.9, 0.9)))
    assert verified is not None
    assert verified.inliers >= 60
    cos, sin = np.cos(np.deg2rad(angle)) * scale, np.sin(np.deg2rad(angle)) * scale
    expected = [[cos, -sin, 40], [sin, cos, -20], [0, 0, 1]]
    np.testing.assert_allclose(verified.homography, expected, rtol=1e-2, atol=0.05)


def test_outliers_among_the_matches_are_no_inliers() -> None:
    query = random_features(1, 100)
    image = moved(query, 10, 0.8, (5, 5))
    image["x"][:40], image["y"][:40] = np.random.default_rng(0).uniform(0, 500, (2, 40))
    verified = verify(match(Side.of(query), Side.of(image), 0.9, 0.9))
    assert verified is not None
    true = {tuple(row) for row in np.stack([image["x"], image["y"]], 1)[40:].tolist()}
    found = [tuple(row) in true for row in verified.points[:, 2:].tolist()]
    assert np.mean(found) > 0.9
    assert verified.inliers >= 45


def test_matches_that_turn_otherwise_are_no_agreement() -> None:
    query = random_features(1, 60)
    image = moved(query, 0, 1, (0, 0))
    image["angle"][:20] = (image["angle"][:20] + 120) % 360
    matches = match(Side.of(query), Side.of(image), 1.0, 0.9)
    assert len(matches) == 60
    assert len(agreeing(matches)) == 40


def test_keypoints_that_scale_otherwise_than_the_homography_are_no_inliers() -> None:
    query = random_features(1, 60)
    image = moved(query, 0, 1, (0, 0))
    image["scale"] *= 4
    assert getattr(verify(match(Side.of(query), Side.of(image), 1.0, 0.9)), "inliers", 0) == 0


def test_a_reflection_is_not_verified() -> None:
    query = random_features(1, 80)
    image = jittered(query, 0)
    image["x"] = -query["x"]
    image["angle"] = (180 - query["angle"]) % 360
    assert getattr(verify(match(Side.of(query), Side.of(image), 1.0, 0.9)), "inliers", 0) < 6


def test_keypoints_at_one_place_count_once() -> None:
    query = random_features(1, 60)
    query["x"], query["y"] = query["x"] // 250 * 250, query["y"] // 250 * 250
    image = moved(query, 0, 1, (0, 0))
    verified = verify(match(Side.of(query), Side.of(image), 1.0, 0.9))
    assert getattr(verified, "inliers", 0) <= 4


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_matches_are_not_verified(count: int) -> None:
    query = random_features(1, count)
    matches = match(Side.of(query), Side.of(moved(query, 0, 1, (0, 0))), 1.0, 0.9)
    assert len(matches) == count
    assert verify(agreeing(matches)) is None


def test_points_on_a_line_are_not_verified_with_a_wild_homography() -> None:
    query = random_features(1, 30)
    query["y"] = 100
    verified = verify(match(Side.of(query), Side.of(moved(query, 0, 1, (9, 9))), 1.0, 0.9))
    if verified is not None:
        offset = verified.points[:, 2:] - verified.points[:, :2]
        np.testing.assert_allclose(offset, np.full_like(offset, 9), atol=6)


def test_a_match_that_another_place_resembles_as_well_fails_the_ratio() -> None:
    query = random_features(1, 20)
    image = np.concatenate([jittered(query, 1), jittered(query, 2)])
    image["x"][20:] += 300
    assert len(match(Side.of(query), Side.of(image), 0.7, 0.9)) < 5
    assert len(match(Side.of(query), Side.of(image), 1.0, 0.9)) == 20


def test_several_angles_of_one_place_do_not_fail_the_ratio() -> None:
    query = random_features(1, 20)
    image = np.concatenate([jittered(query, 1), jittered(query, 2)])
    assert len(match(Side.of(query), Side.of(image), 0.7, 0.9)) == 20


def test_keypoints_without_scale_and_angle_are_verified_by_their_places() -> None:
    query = random_features(1, 60)
    query["scale"] = query["angle"] = 0
    image = moved(query, 40, 3, (10, 20))
    image["scale"] = image["angle"] = 0
    verified = verify(agreeing(match(Side.of(query), Side.of(image), 0.9, 0.9)))
    assert verified is not None
    assert verified.inliers >= 45
