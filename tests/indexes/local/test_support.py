from __future__ import annotations

import numpy as np

from indexes.base import Hit, Support
from indexes.local.support import supported, with_rarity
from indexes.local.verification import KeypointArrays
from models.extractors.local import LOCAL_DTYPE

IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
GRID = np.array([(x, y) for x in range(0, 100, 10) for y in range(0, 100, 10)], np.float64)


def keypoints(points: np.ndarray) -> KeypointArrays:
    features = np.zeros(len(points), LOCAL_DTYPE)
    features["x"], features["y"], features["scale"] = points[:, 0], points[:, 1], 4
    return KeypointArrays.of(features)


def hit(image_id: int, points: np.ndarray) -> Hit:
    shown = np.hstack([points, points]).tolist()
    return Hit(image_id, inliers=len(points), homography=IDENTITY, points=shown)


def test_inliers_all_over_both_pictures_speak_for_one_picture() -> None:
    (found,) = supported([hit(1, GRID)], keypoints(GRID), {1: keypoints(GRID)})
    assert with_rarity([found])[0].support == Support(100.0, 1.0, 1.0, 0.0)


def test_few_inliers_in_a_corner_speak_for_a_shared_element() -> None:
    corner = GRID[(GRID < 30).all(axis=1)]
    (found,) = supported([hit(1, corner)], keypoints(GRID), {1: keypoints(GRID)})
    assert found.support is not None
    assert found.support.visible == 0.09
    assert found.support.spread < 0.1


def test_keypoints_that_match_many_images_count_less() -> None:
    logo, own = GRID[:8], GRID[20:60]
    hits = [hit(1, logo), hit(2, logo), hit(3, logo), hit(50, np.concatenate([logo, own]))]
    images = {one.image_id: keypoints(GRID) for one in hits}
    found = with_rarity(supported(hits, keypoints(GRID), images))
    rare = [one.support.rare for one in found if one.support is not None]
    assert rare == [2, 2, 2, 42]


def test_only_keypoints_in_the_overlap_are_expected_to_match() -> None:
    part = GRID[GRID[:, 0] < 50]
    (found,) = supported([hit(1, part)], keypoints(part), {1: keypoints(GRID)})
    assert with_rarity([found])[0].support == Support(50.0, 1.0, 1.0, 0.0)


def test_views_from_two_places_bend_the_inliers() -> None:
    turned = GRID @ np.array([[0.6, 0.8], [-0.8, 0.6]]) * 2 + 7
    receding = GRID / (1 + 0.002 * GRID[:, :1])
    bends = []
    for mirror, there in ((1.0, turned), (-1.0, GRID * [-1, 1]), (1.0, receding)):
        shown = np.hstack([GRID, there]).tolist()
        homography = [[mirror, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        one = Hit(1, inliers=100, homography=homography, points=shown)
        (found,) = supported([one], keypoints(GRID), {1: keypoints(GRID)})
        assert found.support is not None
        bends.append(found.support.bend)
    assert max(bends[:2]) < 1e-6
    assert bends[2] > 0.03
