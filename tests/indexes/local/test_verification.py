"""Matching and homographies on keypoints whose true positions are known."""

from __future__ import annotations

import numpy as np
import pytest

from indexes.local.descriptors import unit
from indexes.local.kernels import mutual_nearest
from indexes.local.verification import (
    SAME_PLACE,
    KeypointArrays,
    Keypoints,
    Matches,
    agreeing,
    follows,
    match,
    matches_of,
    similarity,
    steadied,
    verify,
)
from indexes.local.verification_kernels import NO_OCTAVE
from models.types import Features
from tests.indexes.local.scenes import jittered, random_features


def moved(features: Features, angle: float, scale: float, shift: tuple[float, float]) -> Features:
    """Return the keypoints turned by `angle` degrees, then scaled, then shifted by pixels."""
    result = jittered(features, 0)
    cos, sin = np.cos(np.deg2rad(angle)) * scale, np.sin(np.deg2rad(angle)) * scale
    result["x"] = cos * features["x"] - sin * features["y"] + shift[0]
    result["y"] = sin * features["x"] + cos * features["y"] + shift[1]
    result["scale"] = features["scale"] * scale
    result["angle"] = (features["angle"] + angle) % 360
    return result


def matched(query: Features, image: Features, ratio: float) -> Matches:
    (matches,) = match(KeypointArrays.of(query), [KeypointArrays.of(image)], ratio, 0.9)
    return matches


@pytest.mark.parametrize(("angle", "scale"), [(0, 1), (30, 1), (200, 0.4), (359, 3)])
def test_the_homography_of_a_turned_and_scaled_picture_is_found(angle: float, scale: float) -> None:
    query = random_features(1, 80)
    image = moved(query, angle, scale, (40, -20))
    verified = verify(agreeing(matched(query, image, 0.9)))
    assert verified is not None
    assert verified.inliers >= 60
    cos, sin = np.cos(np.deg2rad(angle)) * scale, np.sin(np.deg2rad(angle)) * scale
    expected = [[cos, -sin, 40], [sin, cos, -20], [0, 0, 1]]
    np.testing.assert_allclose(verified.homography, expected, rtol=1e-2, atol=0.05)


def test_a_few_true_matches_among_many_are_found_by_their_similarity_transform() -> None:
    true, false = random_features(1, 5), random_features(2, 60)
    query = np.concatenate([true, false])
    image = np.concatenate([moved(true, 70, 0.4, (300, 10)), jittered(random_features(3, 60), 0)])
    rows = np.column_stack([np.arange(65), np.arange(65)])
    arrays = KeypointArrays.of(query), KeypointArrays.of(image)
    found = similarity(matches_of(*arrays, rows))
    assert found is not None
    assert sorted(found.points[:, 0].tolist()) == sorted(true["x"].astype(float).tolist())
    cos, sin = np.cos(np.deg2rad(70)) * 0.4, np.sin(np.deg2rad(70)) * 0.4
    expected = [[cos, -sin, 300], [sin, cos, 10], [0, 0, 1]]
    np.testing.assert_allclose(found.homography, expected, rtol=1e-2, atol=0.05)
    assert similarity(matches_of(*arrays, rows[5:])) is None


def test_few_inliers_close_together_align_the_whole_picture_as_a_similarity_transform() -> None:
    query = random_features(1, 7)
    query["x"], query["y"] = query["x"] / 12 + 220, query["y"] / 12 + 220
    image = moved(query, 20, 0.5, (40, -20))
    noise = np.random.default_rng(3).normal(0, 0.5, (2, 7))
    image["x"], image["y"] = image["x"] + noise[0], image["y"] + noise[1]
    matches = matched(query, image, 1.0)
    verified = verify(matches)
    assert verified is not None
    steady = steadied(verified, matches)
    cos, sin = np.cos(np.deg2rad(20)) * 0.5, np.sin(np.deg2rad(20)) * 0.5
    corners = np.array([(0.0, 0.0), (500.0, 0.0), (500.0, 500.0), (0.0, 500.0)])
    true = corners @ np.array([[cos, -sin], [sin, cos]]).T + [40, -20]

    def stray(homography: np.ndarray) -> float:
        mapped = np.hstack([corners, np.ones((4, 1))]) @ homography.T
        return float(abs(mapped[:, :2] / mapped[:, 2:] - true).max())

    assert stray(steady.homography) < 25 < stray(verified.homography)
    assert steady.inliers == verified.inliers


def test_outliers_among_the_matches_are_no_inliers() -> None:
    query = random_features(1, 100)
    image = moved(query, 10, 0.8, (5, 5))
    image["x"][:40], image["y"][:40] = np.random.default_rng(0).uniform(0, 500, (2, 40))
    verified = verify(matched(query, image, 0.9))
    assert verified is not None
    true = {tuple(row) for row in np.stack([image["x"], image["y"]], 1)[40:].tolist()}
    found = [tuple(row) in true for row in verified.points[:, 2:].tolist()]
    assert np.mean(found) > 0.9
    assert verified.inliers >= 45


def test_matches_with_another_rotation_do_not_agree() -> None:
    query = random_features(1, 60)
    image = moved(query, 0, 1, (0, 0))
    image["angle"][:20] = (image["angle"][:20] + 120) % 360
    matches = matched(query, image, 1.0)
    assert len(matches) == 60
    assert len(agreeing(matches)) == 40


def test_keypoints_with_another_scale_than_the_homography_are_not_inliers() -> None:
    query = random_features(1, 60)
    image = moved(query, 0, 1, (0, 0))
    image["scale"] *= 4
    assert getattr(verify(matched(query, image, 1.0)), "inliers", 0) == 0


def test_a_reflection_is_not_verified() -> None:
    query = random_features(1, 80)
    image = jittered(query, 0)
    image["x"] = -query["x"]
    image["angle"] = (180 - query["angle"]) % 360
    assert getattr(verify(matched(query, image, 1.0)), "inliers", 0) < 6


def test_keypoints_at_one_place_count_once() -> None:
    query = random_features(1, 60)
    query["x"], query["y"] = query["x"] // 250 * 250, query["y"] // 250 * 250
    image = moved(query, 0, 1, (0, 0))
    verified = verify(matched(query, image, 1.0))
    assert getattr(verified, "inliers", 0) <= 4


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_matches_are_not_verified(count: int) -> None:
    query = random_features(1, count)
    matches = matched(query, moved(query, 0, 1, (0, 0)), 1.0)
    assert len(matches) == count
    assert verify(agreeing(matches)) is None


def test_points_on_a_line_are_not_verified_with_a_wild_homography() -> None:
    query = random_features(1, 30)
    query["y"] = 100
    verified = verify(matched(query, moved(query, 0, 1, (9, 9)), 1.0))
    if verified is not None:
        offset = verified.points[:, 2:] - verified.points[:, :2]
        np.testing.assert_allclose(offset, np.full_like(offset, 9), atol=6)


def test_a_match_that_another_place_resembles_as_well_fails_the_ratio() -> None:
    query = random_features(1, 20)
    image = np.concatenate([jittered(query, 1), jittered(query, 2)])
    image["x"][20:] += 300
    assert len(matched(query, image, 0.7)) < 5
    assert len(matched(query, image, 1.0)) == 20


def test_several_angles_of_one_place_do_not_fail_the_ratio() -> None:
    query = random_features(1, 20)
    image = np.concatenate([jittered(query, 1), jittered(query, 2)])
    assert len(matched(query, image, 0.7)) == 20


def test_keypoints_without_scale_and_angle_are_verified_by_their_places() -> None:
    query = random_features(1, 60)
    query["scale"] = query["angle"] = 0
    image = moved(query, 40, 3, (10, 20))
    image["scale"] = image["angle"] = 0
    verified = verify(agreeing(matched(query, image, 0.9)))
    assert verified is not None
    assert verified.inliers >= 45


def brute_force(query: Features, image: Features, ratio: float, farthest: float) -> list[list[int]]:
    """Return the pairs of rows that match, computed from the definition."""
    pairs = []
    cosines = unit(query["descriptor"]) @ unit(image["descriptor"]).T
    places = np.stack([image["x"], image["y"]], axis=1)
    same_place = np.ptp(places, axis=0).max() / SAME_PLACE
    for one in range(len(query)):
        other = int(cosines[one].argmax())
        apart = np.linalg.norm(places - places[other], axis=1) > same_place
        distance = 2 - 2 * cosines[one, other]
        second = 2 - 2 * cosines[one, apart].max()
        mutual = cosines[:, other].argmax() == one
        if mutual and distance < farthest and distance <= ratio**2 * second:
            pairs.append([one, other])
    return pairs


def rows_of(matches: Matches, query: Features, image: Features) -> list[list[int]]:
    return [
        [query["x"].tolist().index(x), image["x"].tolist().index(to_x)]
        for (x, _), (to_x, _) in zip(matches.query.points, matches.image.points, strict=True)
    ]


@pytest.mark.parametrize(("ratio", "farthest"), [(1.0, 4.0), (0.9, 4.0), (1.0, 0.5)])
def test_matches_are_mutual_nearest_neighbours_that_pass_the_ratio(
    ratio: float, farthest: float
) -> None:
    query = np.concatenate([random_features(1, 70), jittered(random_features(2, 30), 1)])
    image = np.concatenate([random_features(2, 30), random_features(3, 50)])
    (matches,) = match(KeypointArrays.of(query), [KeypointArrays.of(image)], ratio, farthest)
    expected = brute_force(query, image, ratio, farthest)
    assert len(expected) >= 20
    assert rows_of(matches, query, image) == expected


def test_pictures_match_as_they_would_alone_whatever_else_is_matched_with_them() -> None:
    query = random_features(1, 90)
    sizes = [0, 1, 200, 256, 3, 0, 80, 17, 256, 40]
    images = [
        KeypointArrays.of(
            np.concatenate([query[: size // 2], random_features(9, size - size // 2)])
        )
        for size in sizes
    ]
    together = match(KeypointArrays.of(query), images, 0.9, 0.9)
    assert all(len(one) >= min(size // 2, 90) for one, size in zip(together, sizes, strict=True))
    for image, matches in zip(images, together, strict=True):
        (alone,) = match(KeypointArrays.of(query), [image], 0.9, 0.9)
        np.testing.assert_array_equal(matches.query.points, alone.query.points)
        np.testing.assert_array_equal(matches.image.points, alone.image.points)


def test_one_keypoint_that_was_stored_twice_matches_once() -> None:
    query = random_features(1, 20)
    image = np.concatenate([query, query])
    (forth,) = match(KeypointArrays.of(query), [KeypointArrays.of(image)], 1.0, 0.9)
    (back,) = match(KeypointArrays.of(image), [KeypointArrays.of(query)], 1.0, 0.9)
    assert len(forth) == len(back) == 20


def test_descriptors_of_zeros_match_nothing() -> None:
    query = random_features(1, 20)
    query["descriptor"] = 0
    assert len(matched(query, query, 0.9)) == 0


def test_matching_any_number_of_images_uses_one_precompiled_kernel() -> None:
    query = KeypointArrays.of(random_features(1, 20))
    for count in (1, 2, 7):
        match(query, [query] * count, 0.9, 0.9)
    assert len(mutual_nearest.signatures) == 1


def placed(homography: list[list[float]], points: list[list[float]]) -> Matches:
    """Match keypoints without scale and angle with the positions the homography maps them to."""
    before = np.array(points)
    after = np.column_stack([before, np.ones(len(before))]) @ np.array(homography).T
    blank = np.zeros(len(before))
    bare = np.full(len(before), NO_OCTAVE)
    return Matches(
        Keypoints(before, bare, blank), Keypoints(after[:, :2] / after[:, 2:], bare, blank)
    )


SQUARE = [[0.0, 0.0], [90.0, 0.0], [90.0, 90.0], [0.0, 90.0]]


@pytest.mark.parametrize(
    ("homography", "possible"),
    [
        ([[1, 0, 5], [0, 1, 5], [0, 0, 1]], True),
        ([[40, 0, 0], [0, 40, 0], [0, 0, 1]], False),
        ([[0.02, 0, 0], [0, 0.02, 0], [0, 0, 1]], False),
        ([[-1, 0, 0], [0, 1, 0], [0, 0, 1]], False),
    ],
    ids=["moved", "40 times as large", "a fiftieth", "a reflection"],
)
def test_keypoints_do_not_follow_an_implausible_homography(
    homography: list[list[float]], possible: bool
) -> None:
    matches = placed(homography, SQUARE)
    assert follows(matches, np.array(homography, float)).tolist() == [possible] * 4


def test_keypoints_beyond_the_horizon_of_the_others_do_not_follow() -> None:
    # The homography reflects the four corners, but not points beyond its horizon at x = 100.
    homography = [[-1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]]
    matches = placed(homography, [*SQUARE, [300.0, 50.0]])
    assert not follows(matches, np.array(homography)).any()


def test_keypoints_that_turn_otherwise_than_the_homography_do_not_follow() -> None:
    query = random_features(1, 40)
    image = moved(query, 0, 1, (0, 0))
    image["angle"][:10] = (image["angle"][:10] + 40) % 360
    matches = matched(query, image, 1.0)
    turned = np.abs(matches.query.angle - matches.image.angle) > 1
    np.testing.assert_array_equal(follows(matches, np.eye(3)), ~turned)
    assert turned.sum() == 10
