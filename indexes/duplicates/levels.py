"""What two pictures are to each other, from the strictest level to the loosest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:  # Importing them imports OpenCV, which commands need not wait for.
    from indexes.duplicates.seams import Around
    from indexes.relation.judging import Relation

Level = Literal[
    "bytes",
    "pixels",
    "reencode",
    "resize",
    "turned",
    "crop",
    "bordered",
    "edited",
    "collage",
    "raw",
    "burst",
    "similar",
]
LEVELS: tuple[Level, ...] = get_args(Level)
EXACT: frozenset[Level] = frozenset({"bytes", "pixels"})
"""Levels at which one picture stands for the other in all other pairs."""
MEANINGS: dict[Level, str] = {
    "bytes": "identical files",
    "pixels": "the same pixels in another file, as far as previews and sizes tell",
    "reencode": "the same picture, compressed again",
    "resize": "the same picture in another size",
    "turned": "the same picture, mirrored or turned",
    "crop": "a part of the other picture",
    "bordered": "the same picture within a border",
    "edited": "the same picture, changed in places",
    "collage": "one of the pictures of a collage",
    "raw": "camera RAW and the JPEG beside it",
    "burst": "taken within seconds",
    "similar": "only similar",
}
SHAPE = 0.02
"""Relative difference of the aspect ratios of a picture in two sizes, beside rounding."""
BURST_SECONDS = 5.0
"""Seconds within which two pictures of a burst are taken."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of two pictures beside their relation."""

    sizes: tuple[tuple[int, int], tuple[int, int]]
    """Width and height of both."""
    same_preview: bool = False
    """Whether the stored previews are the same, byte by byte."""
    around: Around | None = None
    """What lies around the one that is a part of the other; None if none is."""
    raw: bool = False
    """Whether exactly one of them is camera RAW."""
    seconds: float | None = None
    """Seconds between the dates at which they were taken; None if unknown."""
    near: bool = False
    """Whether hashes or vectors call them close."""


def level_of(relation: Relation, evidence: Evidence) -> Level | None:
    """The level of two different files; None if they are not even similar."""
    if relation.is_verified and evidence.raw:
        return "raw"
    if evidence.same_preview and evidence.sizes[0] == evidence.sizes[1]:
        return "pixels"
    if relation.kind == "same":
        return _copy(relation, evidence)
    apart = evidence.seconds is not None and 0 < evidence.seconds <= BURST_SECONDS
    if relation.is_verified and not apart:
        return _altered(relation, evidence)
    at_once = evidence.seconds is not None and evidence.seconds <= BURST_SECONDS
    if at_once and (relation.is_verified or evidence.near):
        return "burst"
    return "similar" if evidence.near else None


def _altered(relation: Relation, evidence: Evidence) -> Level:
    if relation.kind == "edited":
        return "bordered" if relation.changes == ("bordered",) else "edited"
    # Without pixels that were compared, two views of one scene are called a part, too.
    if relation.overlap is None:
        return "similar"
    of_part: dict[Around | None, Level] = {"plain": "bordered", "seams": "collage"}
    return of_part.get(evidence.around, "crop")


def _copy(relation: Relation, evidence: Evidence) -> Level:
    if "bordered" in relation.changes:
        return "bordered"
    if "negative" in relation.changes:
        return "edited"
    if relation.changes:
        return "turned"
    (width, height), (other_width, other_height) = evidence.sizes
    if (width, height) == (other_width, other_height):
        return "reencode"
    if not (width and height and other_width and other_height):
        return "reencode"
    ratio = width * other_height / (height * other_width)
    allowed = SHAPE + 1 / min(width, height, other_width, other_height)
    return "resize" if abs(ratio - 1) <= allowed else "crop"
