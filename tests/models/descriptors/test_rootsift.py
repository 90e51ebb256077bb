"""RootSIFT's arithmetic; tests/models/extractors/test_local.py has its behaviour on pictures."""

from __future__ import annotations

import numpy as np

from models.descriptors.rootsift import RootSift, rootsift


def test_rootsift_is_the_root_of_the_l1_normalised_vector() -> None:
    sift = np.zeros((2, 128), np.float32)
    sift[0, :4] = [1, 4, 9, 2]
    sift[1] = 3
    quantised = rootsift(sift)
    assert quantised[0, :4].tolist() == [128, 255, 255, 181]
    assert set(quantised[1].tolist()) == {45}
    assert rootsift(np.zeros((1, 128), np.float32)).max() == 0


def test_mirroring_is_a_permutation_that_undoes_itself() -> None:
    numbered = np.arange(128, dtype=np.uint8)[None]
    mirrored = RootSift().mirrored(numbered)
    assert sorted(mirrored[0].tolist()) == list(range(128))
    assert mirrored.tolist() != numbered.tolist()
    np.testing.assert_array_equal(RootSift().mirrored(mirrored), numbered)
