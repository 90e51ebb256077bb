"""What the command line prints as tables."""

from __future__ import annotations

import pytest

from cluster.cli.tables import print_hits


def test_a_hit_says_its_relation_first(capsys: pytest.CaptureFixture[str]) -> None:
    local = {"rank": 0, "inliers": 70, "mirrored": True}
    related = {"relation": "same", "changes": ["mirrored"]}
    print_hits(
        [
            {"image_id": 4, "score": 0.9, "retrievers": {"local": local}, **related},
            {"image_id": 5, "score": 0.4, "retrievers": {"color": {"rank": 1, "distance": 12.5}}},
        ]
    )
    printed = capsys.readouterr().out
    assert "same mirrored; local: inliers 70, mirrored" in printed
    assert "color: distance 12.5" in printed
