"""From what an alignment says to a relation, with a confidence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexes.relation.alignment import (
    ORIENTATIONS,
    Matrix,
    applied,
    box_on_box,
    covered_areas,
    orientation,
    rescaled,
    thumb,
    whole_box,
)
from indexes.relation.comparison import GOOD_ENOUGH, Agreement, Comparison, compare, glance
from indexes.relation.side import Side

Kind = Literal["same", "edited", "part", "shares", "like"]
VERIFIED: frozenset[Kind] = frozenset({"same", "edited", "part"})
Alteration = Literal["mirrored", "turned", "bordered", "negative"]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Relation:
    """The relation of a query picture to a stored one."""

    kind: Kind
    confidence: float
    """Probability that the relation is verified: that it is `same`, `edited` or `part`."""
    overlap: tuple[float, float] | None = None
    """Share of the query's and of the stored picture's area that both show."""
    explained: float = 0.0
    """Mean of the shares of both pictures' content that the other explains."""
    changes: tuple[Alteration, ...] = ()
    evidence: Agreement | None = None
    """What the pixels say; None where they were not compared."""
    regions: tuple[tuple[Box, Box], ...] = ()
    """Regions that differ: boxes (x, y, width, height) in the pixels of both."""
    homography: Matrix | None = field(default=None, compare=False)
    """From query pixels to image pixels; None where the pixels tell of no alignment."""

    @property
    def is_verified(self) -> bool:
        return self.kind in VERIFIED

    @property
    def words(self) -> str:
        """The relation in words, such as `same, mirrored`."""
        return ", ".join((self.kind, *self.changes))

    def row(self) -> dict[str, Any]:
        """The relation as JSON, without what is not known."""
        shown: dict[str, Any] = {"relation": self.kind}
        if self.changes:
            shown["changes"] = self.changes
        if self.overlap is not None:
            shown["overlap"] = self.overlap
        if self.regions:
            shown["regions"] = [{"query": one, "image": other} for one, other in self.regions]
        return shown

    def enlarged(self, query: float, image: float) -> Relation:
        """The relation with its regions and homography in pixels of pictures that are larger by
        these factors."""
        regions = tuple(
            (_enlarged(one, query), _enlarged(other, image)) for one, other in self.regions
        )
        matrix = self.homography
        if matrix is not None:
            matrix = rescaled(matrix, query, image)
        return replace(self, regions=regions, homography=matrix)


def _enlarged(box: Box, factor: float) -> Box:
    left, top, width, height = (round(edge * factor) for edge in box)
    return left, top, width, height


LIKE = Relation("like", 0.0)


def relate(
    query: Side,
    image: Side,
    alignments: Sequence[Matrix],
    *,
    whole: bool,
    supported: bool = False,
) -> Relation:
    """The relation of two pictures under the best of these alignments, and whole on whole.

    `supported` says that their keypoints tell of one picture, so that less must be explained.
    """
    smooth = query.is_smooth, image.is_smooth
    if all(smooth) or (any(smooth) and not alignments):
        return _smooth(query, image)
    best: Comparison | None = None
    for matrix in _tried(query, image, alignments, whole):
        seen = glance(query, image, matrix)
        if seen is not None and (best is None or seen.merit > best.merit):
            best = seen
        if best is not None and _is_whole(best, query, image):
            break
    if best is None:
        return LIKE
    found = compare(query, image, best)
    return _unverified(best.windows) if found is None else judged(found, query, image, supported)


def _unverified(windows: float) -> Relation:
    return Relation("shares", SHARED) if windows >= MIN_WINDOWS else LIKE


def _is_whole(seen: Comparison, query: Side, image: Side) -> bool:
    """Whether an alignment explains both pictures whole, so that no better one is sought."""
    if seen.score < GOOD_ENOUGH:
        return False
    return min(covered_areas(query.shape, image.shape, seen.unscaled)) >= FULL


def _tried(query: Side, image: Side, alignments: Sequence[Matrix], whole: bool) -> Iterator[Matrix]:
    """The given alignments, and, where whole pictures may be the same, that of both in the most
    similar orientation, without and, where one has borders, within them."""
    if whole or not alignments:
        yield whole_on_whole(query, image)
    yield from alignments
    if whole or not alignments:
        inner = within_borders(query, image)
        if inner is not None:
            yield inner


def whole_on_whole(query: Side, image: Side) -> Matrix:
    """The alignment of two whole pictures in the most similar orientation."""
    turn = orientation(query.thumb, image.thumb)
    return box_on_box(whole_box(query.shape), whole_box(image.shape), turn)


def within_borders(query: Side, image: Side) -> Matrix | None:
    """The alignment of what lies within the borders of two pictures; None if there are none."""
    boxes = query.box, image.box
    if boxes == (whole_box(query.shape), whole_box(image.shape)):
        return None
    turn = orientation(thumb(query.gray, query.box), thumb(image.gray, image.box))
    return box_on_box(*boxes, turn)


FULL = 0.93
"""Share of a picture's content that lies in the overlap if the picture lies in it."""
SAME_INSIDE, SAME_CHANGED = (0.95, 0.94), (0.016, 0.006)
"""Explained share from which, and share of changed regions up to which, pictures are the same: of
photographs and of drawings."""
PRESERVED = 0.965
"""Explained share of one picture's content if the other only adds to it."""
ADDED_INSIDE = 0.72
"""Explained share of the overlap of such drawings."""
DRAWN_INSIDE, PHOTO_INSIDE = 0.95, 0.62
"""Explained share of the overlap from which the pictures are one: of drawings, whose elements recur
in others, and of photographs."""
SUPPORTED_INSIDE = 0.35
"""The same of photographs whose keypoints tell of one picture."""
MIN_WINDOWS = 4.0
"""Number of explained windows below which agreement may be chance."""
PARTIAL_INSIDE = 0.985
"""The same of drawings that overlap in part; patterns can overlap with any shift."""
PATCHED_BESIDE, PATCHED_AREA = 0.985, 0.08
"""Explained share of all but the box of the only changed region from which, and share of the
overlap's area in that box up to which, drawings are one with something pasted in. Two forms, or
two drawings of one character, differ in more places, or in small things all over."""
MIN_PARTIAL = 0.12
"""Share of both pictures in an overlap that holds neither whole."""
SHARED = 0.05
"""Confidence of pictures of which little agrees."""
SMOOTH_STEPS = 5.0
"""Root mean square difference of smooth pictures, in grey values, up to which they are the same."""


def judged(found: Agreement, query: Side, image: Side, supported: bool) -> Relation:
    """The relation that an agreement means."""
    overlap = round(found.query_area, 3), round(found.image_area, 3)
    whole = found.query_inside >= FULL, found.image_inside >= FULL
    photo, drawn = SUPPORTED_INSIDE if supported else PHOTO_INSIDE, _drawn_inside(found, whole)
    threshold = photo + (drawn - photo) * found.plain
    margin = (found.inside - threshold) / (1 - threshold)
    # Patterns agree under many shifts, so keypoints must tell of one drawing, too.
    partial = min(found.query, found.image) >= MIN_PARTIAL and (supported or found.plain <= 0.5)
    confidence = _confidence(margin, found.windows)
    explained = (found.query + found.image) / 2
    kind: Kind
    if margin < 0 or found.windows < MIN_WINDOWS or not (any(whole) or partial):
        kind = "shares" if found.windows >= MIN_WINDOWS else "like"
        sure = min(confidence, 0.3)
        return Relation(kind, sure, overlap, explained, (), found, homography=found.matrix)
    if all(whole):
        inside, changed = (
            least + found.plain * (most - least) for least, most in (SAME_INSIDE, SAME_CHANGED)
        )
        unchanged = found.inside >= inside and found.changed <= changed
        kind = "same" if unchanged else "edited"
    else:
        kind = "part"
    changes = _changes(found, query) if kind != "part" else ()
    regions = () if kind == "same" else _regions(found, query, image)
    return Relation(kind, confidence, overlap, explained, changes, found, regions, found.matrix)


def _drawn_inside(found: Agreement, whole: tuple[bool, bool]) -> float:
    """Explained share of the overlap from which drawings are one, of which these lie whole in
    it."""
    patched = len(found.regions) == 1 and found.changed_area <= PATCHED_AREA
    if any(whole) and patched and found.beside >= PATCHED_BESIDE:
        return PHOTO_INSIDE
    areas = min(found.query_area, found.image_area)
    if all(whole) and areas >= FULL and max(found.query, found.image) >= PRESERVED:
        return ADDED_INSIDE
    return DRAWN_INSIDE if any(whole) else PARTIAL_INSIDE


def _confidence(margin: float, windows: float) -> float:
    sure = 1 / (1 + math.exp(-max(-50.0, margin * 5 + 1.5)))
    return round(float(sure * (1 - 0.5 ** (windows / 4))), 4)


def _changes(found: Agreement, query: Side) -> tuple[Alteration, ...]:
    """What happened to the whole picture."""
    height, width = query.shape
    centre = np.array(
        [[width / 2, height / 2], [width / 2 + 8, height / 2], [width / 2, height / 2 + 8]]
    )
    origin, across, down = applied(found.matrix, centre)
    axis_x, axis_y = across - origin, down - origin
    changes: list[Alteration] = []
    mirrored = axis_x[0] * axis_y[1] - axis_x[1] * axis_y[0] < 0
    if mirrored:
        changes.append("mirrored")
        axis_x = -axis_x
    if abs(math.degrees(math.atan2(axis_x[1], axis_x[0]))) > 5:
        changes.append("turned")
    if min(found.query_area, found.image_area) < 0.93:
        changes.append("bordered")
    if found.negative:
        changes.append("negative")
    return tuple(changes)


def _regions(found: Agreement, query: Side, image: Side) -> tuple[tuple[Box, Box], ...]:
    if not found.regions:
        return ()
    edges = np.array(found.regions)
    corners = edges[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    there = applied(found.matrix, corners.reshape(-1, 2)).reshape(corners.shape)
    return tuple(zip(_boxes(corners, query.shape), _boxes(there, image.shape), strict=True))


def _boxes(corners: npt.NDArray[np.float64], shape: tuple[int, int]) -> list[Box]:
    """Boxes around corners (n, 4, 2), within a picture."""
    height, width = shape
    low = np.clip(np.floor(corners.min(axis=1)), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=1)), low + 1, (width, height)).astype(int)
    return [
        (left, top, *size)
        for (left, top), size in zip(low.tolist(), (high - low).tolist(), strict=True)
    ]


def _smooth(query: Side, image: Side) -> Relation:
    """The relation of pictures without edges: the same only in the same colours."""
    if not (query.is_smooth and image.is_smooth):
        return LIKE
    one, other = query.mosaic.astype(np.float32), image.mosaic.astype(np.float32)
    best, which = np.inf, 0
    for number in range(8):
        side = one[:, ::-1] if number % 2 else one
        gap = float(np.sqrt(((np.rot90(side, number // 2) - other) ** 2).mean()))
        if gap < best - 0.5:
            best, which = gap, number
    if best > SMOOTH_STEPS:
        return LIKE
    changes: tuple[Alteration, ...] = ("mirrored",) if which % 2 else ()
    if which // 2:
        changes = (*changes, "turned")
    boxes = whole_box(query.shape), whole_box(image.shape)
    matrix = box_on_box(*boxes, ORIENTATIONS[which])
    return Relation("same", 0.99, (1.0, 1.0), 1.0, changes, homography=matrix)
