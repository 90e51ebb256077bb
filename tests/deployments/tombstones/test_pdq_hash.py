"""PDQ hashes are those of the reference implementation."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.tombstones.pdq_hash import pdq_hashes
from models.types import Pixels

PUBLISHED = {
    (200, 300): "3fc0903f23ff35e0c807387f0bff37c0c03f643f0d80a4bfa0bf96905f805f80",
    (64, 64): "89a5662cd9a9332d4e2bf446c9ad364a4dd23658c9b3364ecd99b3224d9dd926",
    (517, 131): "ac1f1c3879e0e3c364c75c8c8c8cb1d863c7e397d2bf1e381e781c780e783c78",
}
"""What pdqhash 0.2.8, which wraps the reference implementation, says of `drawn` of these sizes."""


def drawn(height: int, width: int) -> Pixels:
    y, x = np.mgrid[:height, :width].astype(np.int64)
    waves = x * x * 7 // (width + 3) + y * 31 * (x // 40) + y * y // (height // 7 + 1)
    return (waves[..., None] // np.array([1, 2, 3]) % 256).astype(np.uint8)


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_hash_is_that_of_the_reference_implementation(size: tuple[int, int]) -> None:
    hashes, quality = pdq_hashes(drawn(*size))
    assert hashes[0].tobytes().hex() == PUBLISHED[size]
    assert quality == 100


def test_a_turned_or_mirrored_picture_has_the_same_hashes_in_another_order() -> None:
    picture = drawn(256, 256)
    own = {one.tobytes() for one in pdq_hashes(picture)[0]}
    assert len(own) == 8
    for other in (picture[:, ::-1], np.rot90(picture), picture.transpose(1, 0, 2)):
        near = [
            min(np.bitwise_count(one ^ np.frombuffer(stored, np.uint8)).sum() for stored in own)
            for one in pdq_hashes(np.ascontiguousarray(other))[0]
        ]
        assert max(near) <= 31


def test_a_picture_without_content_has_no_quality() -> None:
    for size in ((300, 200), (1, 1), (3, 500)):
        assert pdq_hashes(np.full((*size, 3), 90, np.uint8))[1] == 0
