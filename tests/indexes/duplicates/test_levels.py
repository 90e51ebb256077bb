"""The level of two pictures by their relation and what is known of their files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from indexes.duplicates.levels import LEVELS, MEANINGS, Evidence, level_of
from indexes.relation.judging import LIKE, Relation

SAME = Relation("same", 0.99, (1.0, 1.0))
EDITED = Relation("edited", 0.9, (1.0, 1.0))
PART = Relation("part", 0.9, (1.0, 0.4))
SIZES = (400, 300), (400, 300)


@pytest.mark.parametrize(
    ("relation", "known", "level"),
    [
        (SAME, {"same_preview": True}, "pixels"),
        (SAME, {}, "reencode"),
        (SAME, {"sizes": ((400, 300), (200, 150))}, "resize"),
        (SAME, {"sizes": ((400, 300), (201, 150))}, "resize"),
        (SAME, {"sizes": ((400, 300), (400, 280))}, "crop"),
        (SAME, {"sizes": ((0, 0), (400, 280))}, "reencode"),
        (replace(SAME, changes=("mirrored",)), {}, "turned"),
        (replace(SAME, changes=("turned", "bordered")), {}, "bordered"),
        (replace(SAME, changes=("negative",)), {}, "edited"),
        (SAME, {"raw": True}, "raw"),
        (SAME, {"seconds": 2.0}, "reencode"),
        (EDITED, {}, "edited"),
        (EDITED, {"seconds": 0.0}, "edited"),
        (EDITED, {"seconds": 2.0}, "burst"),
        (EDITED, {"seconds": 6.0}, "edited"),
        (replace(EDITED, changes=("bordered",)), {}, "bordered"),
        (PART, {}, "crop"),
        (PART, {"around": "seams"}, "collage"),
        (PART, {"around": "plain"}, "bordered"),
        (PART, {"around": "more"}, "crop"),
        (PART, {"raw": True}, "raw"),
        (Relation("part", 0.8), {}, "similar"),
        (LIKE, {}, None),
        (LIKE, {"near": True}, "similar"),
        (LIKE, {"near": True, "seconds": 0.0}, "burst"),
        (LIKE, {"seconds": 1.0}, None),
        (LIKE, {"raw": True}, None),
    ],
)
def test_the_strictest_level_that_holds(
    relation: Relation, known: dict[str, Any], level: str | None
) -> None:
    assert level_of(relation, Evidence(**{"sizes": SIZES, **known})) == level


def test_every_level_has_a_meaning() -> None:
    assert list(MEANINGS) == list(LEVELS)
