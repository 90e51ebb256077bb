"""How much of each picture the other explains where they overlap.

Content is what stands out from its surroundings: edges, ink, texture. Where both pictures have the
same structure after a fit of gain and offset, it is explained; blank paper counts for nothing. The
structure is compared as in SSIM (Wang et al. 2004), by the correlation of small windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from indexes.relation.alignment import (
    Floats,
    Matrix,
    applied,
    covered_areas,
    magnification,
    overlap,
    refined,
    rescaled,
)
from indexes.relation.kernels import (
    STRIDE,
    WINDOW,
    compare_windows,
    coverage,
    normalised,
    spreads,
    trackable,
    weighed,
)
from indexes.relation.side import Side, level_of, quantised, smoothed
from models.types import Pixels

TINY = 100
"""Long side of pictures that are enlarged before they are compared."""
SMALLEST = 20
"""Minimum side of an overlap in pixels of the coarser picture."""
COARSE, FINE = 144, 400
"""Long sides, in pixels, of the overlap when it is compared first, and then more closely."""
HOPELESS = (0.35, 0.65)
"""Explained share at the coarse size below which photographs, and drawings, are not compared more
closely."""
CONTRADICTED, EXPLAINED = (0.45, 0.62), (0.80, 0.92)
"""Correlations up to which a window contradicts, and from which it is explained: of photographs,
and of drawings, where other letters in the same place resemble each other.
"""
WHOLE = 0.97
"""Share of a picture's area in the overlap from which all its content counts as inside."""
REGION = 5
"""Number of windows from which a changed region is one."""
GOOD_ENOUGH = 0.85
"""Explained share at the coarse size from which no better alignment of whole pictures is sought."""
UNSURE = ((0.1, 0.7), (0.7, 0.88))
FINE_UNSURE = ((0.4, 0.95), (0.6, 0.95))
"""Explained shares between which an alignment is refined at both sizes, of photographs and of
drawings. Below, refining does not help; above, it does not change what the pictures are."""
CELL, FINE_CELL = 24, 40
"""Pixels between tracked points at both sizes."""
LEVELS = 3
"""Number of halvings at which points are tracked at the coarse size."""


@dataclass(frozen=True)
class Agreement:
    """What an alignment of two pictures says. Shares are of the weight of content, 0 to 1."""

    matrix: Matrix
    """From query pixels to image pixels."""
    inside: float
    """Explained share of the content of both in the overlap."""
    query: float
    """Explained share of all of the query's content."""
    image: float
    query_inside: float
    """Share of the query's content that lies in the overlap."""
    image_inside: float
    query_area: float
    """Share of the query's area that lies in the overlap."""
    image_area: float
    changed: float
    """Share of the content in the overlap in the larger contradicted regions."""
    changed_area: float
    """Share of the overlap's area in the boxes of these regions."""
    beside: float
    """Explained share of the content in the overlap beside these boxes."""
    windows: float
    """Number of independent windows with content that are explained."""
    negative: bool
    plain: float
    """How much both pictures are drawn rather than photographed, 0 to 1."""
    regions: tuple[tuple[float, float, float, float], ...] = ()
    """Contradicted regions in the query: left, top, right, bottom in its pixels."""


def glance(query: Side, image: Side, matrix: Matrix) -> Comparison | None:
    """Compare two pictures at a small size under an alignment, which is refined. None if they
    hardly overlap."""
    return _compare_at(COARSE, query, image, matrix, CELL)


def compare(query: Side, image: Side, seen: Comparison) -> Agreement | None:
    """Compare two pictures more closely; None if the first glance leaves no hope."""
    plain = min(query.plain, image.plain)
    if seen.score < HOPELESS[0] + plain * (HOPELESS[1] - HOPELESS[0]):
        return None
    closer = _compare_at(FINE, query, image, seen.unscaled, FINE_CELL) or seen
    return closer.agreement(query, image)


def warm_up() -> None:
    """Compile all kernels, or load them from the cache, before the first comparison."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    one, other = Side.of(noise[0]), Side.of(noise[1])
    seen = _compare_at(COARSE, one, other, np.eye(3), CELL)
    assert seen is not None
    assert not one.is_smooth
    seen.trackable(CELL)
    seen.image_total(other)


def _compare_at(
    size: int, query: Side, image: Side, matrix: Matrix, cell: int
) -> Comparison | None:
    scales = _common_scales(query, image, matrix, size)
    if scales is None:
        return None
    compared = _compared(query, image, scales, rescaled(matrix, *scales))
    if compared is None or not _is_unsure(compared.score, size, min(query.plain, image.plain)):
        return compared
    update = refined(*compared.trackable(cell), levels=LEVELS if size == COARSE else 1)
    if update is None or not _plausible(update, compared.one.shape):
        return compared
    again = _compared(query, image, scales, compared.matrix @ update)
    return again if again is not None and again.score > compared.score else compared


def _is_unsure(score: float, size: int, plain: float) -> bool:
    """Whether a better alignment may change the answer."""
    photo, drawn = UNSURE if size == COARSE else FINE_UNSURE
    low, high = (least + plain * (most - least) for least, most in zip(photo, drawn, strict=True))
    return low < score < high


def _plausible(update: Matrix, shape: tuple[int, ...]) -> bool:
    """Whether an update moves no corner by more than a quarter of the picture."""
    height, width = shape[:2]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    return bool(abs(applied(update, corners) - corners).max() < max(shape[:2]) / 4)


def _common_scales(
    query: Side, image: Side, matrix: Matrix, size: int
) -> tuple[float, float] | None:
    """Factors that bring both pictures to the resolution of the coarser one."""
    quad = overlap(query.shape, image.shape, matrix)
    if quad is None:
        return None
    centre = quad.mean(axis=0)
    growth = magnification(matrix, (float(centre[0]), float(centre[1])))
    if not 1 / 24 < growth < 24:
        return None
    scale = min(1.0, growth)
    extent = quad.max(axis=0) - quad.min(axis=0)
    scale *= min(1.0, size / max(1.0, float(extent.max()) * scale))
    if min(extent) * scale < SMALLEST:
        return None
    if max(query.shape) <= TINY or max(image.shape) <= TINY:
        scale *= min(2.5, max(1.0, COARSE / max(1.0, float(extent.max()) * scale)))
        return quantised(scale), quantised(scale / growth)
    return quantised(scale), quantised(min(1.0, scale / growth))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two pictures compared at one size under one alignment."""

    matrix: Matrix
    """From pixels of the reduced query to those of the reduced image."""
    scales: tuple[float, float]
    """Factors by which both pictures are reduced."""
    one: Pixels
    other: Pixels
    """The image, warped onto the query."""
    covered: npt.NDArray[np.bool_]
    """Windows that lie in both pictures."""
    inside: npt.NDArray[np.bool_]
    """Windows that lie at least partly in both pictures."""
    explained: Floats
    contradicted: npt.NDArray[np.bool_]
    weights: Floats
    """Weights of both pictures' content, (2, rows, columns); so are `means` and `spreads`."""
    means: Floats
    spreads: Floats
    noise: npt.NDArray[np.float64]
    sign: float

    @cached_property
    def both(self) -> Floats:
        """Weight of what is in either picture, 0 outside the overlap."""
        return np.where(self.covered, np.maximum(*self.weights), np.float32(0))

    @cached_property
    def agreeing(self) -> float:
        """Weight of what is explained."""
        return float((self.both * self.explained).sum())

    @cached_property
    def score(self) -> float:
        """Explained share of the content in the overlap."""
        return self.agreeing / max(float(self.both.sum()), 1e-6)

    @property
    def windows(self) -> float:
        """Number of independent windows with content that are explained."""
        return self.agreeing * STRIDE**2 / WINDOW**2

    @property
    def merit(self) -> float:
        """By how much the alignment explains; the better of two explains more of both pictures."""
        return self.score * math.sqrt(self.windows / min(self.scales) ** 2)

    @property
    def unscaled(self) -> Matrix:
        return rescaled(self.matrix, 1 / self.scales[0], 1 / self.scales[1])

    def trackable(self, cell: int) -> tuple[Pixels, Pixels, Floats]:
        """Both pictures locally normalised, and positions (n, 2) that can be tracked."""
        sides = [
            normalised(pixels, self.means[at], self.spreads[at], sign)
            for at, (pixels, sign) in enumerate([(self.one, 1.0), (self.other, self.sign)])
        ]
        least = np.minimum(*self.spreads)
        usable = np.where(self.covered & (least > 2 * self.noise.max()), least, np.float32(0))
        return sides[0], sides[1], trackable(sides[0], usable, cell)

    def agreement(self, query: Side, image: Side) -> Agreement:
        matrix = self.unscaled
        total = max(float(self.both.sum()), 1e-6)
        # Windows across the edge of the overlap belong to neither side of it.
        first = np.where(self.inside & ~self.covered, 0, self.weights[0])
        query_total = max(float(first.sum()), 1e-6)
        there = np.where(self.covered, self.weights[1], 0)
        count = int(self.covered.sum())
        lost = min(1.5, float(self.inside.sum()) / count)
        query_area, image_area = covered_areas(query.shape, image.shape, matrix)
        image_total = max(float(there.sum()), 1e-6)
        if image_area < WHOLE:
            image_total = max(self.image_total(image), image_total)
        changed, boxes = _changed(self.contradicted, self.both)
        beside = self.covered.copy()
        for left, top, right, bottom in boxes:
            beside[top:bottom, left:right] = False
        rest = float(self.both[beside].sum())
        return Agreement(
            matrix=matrix,
            inside=self.score,
            query=min(1.0, float((first * self.explained).sum()) / query_total),
            image=min(1.0, lost * float((there * self.explained).sum()) / image_total),
            query_inside=min(1.0, float(first[self.covered].sum()) / query_total),
            image_inside=min(1.0, lost * float(there.sum()) / image_total),
            query_area=query_area,
            image_area=image_area,
            changed=changed / total,
            changed_area=1 - float(beside.sum()) / count,
            beside=float((self.both * self.explained)[beside].sum()) / max(rest, 1e-6),
            windows=self.windows,
            negative=self.sign < 0,
            plain=min(query.plain, image.plain),
            regions=tuple(
                tuple(edge * STRIDE / self.scales[0] for edge in box)  # type: ignore[misc]
                for box in boxes
            ),
        )

    def image_total(self, image: Side) -> float:
        """Weight of all of the image's content."""
        return float(weighed(spreads(image.scaled(self.scales[1])), self.noise[1]))


def _compared(
    query: Side, image: Side, scales: tuple[float, float], matrix: Matrix
) -> Comparison | None:
    one = query.scaled(scales[0])
    height, width = one.shape
    if min(height, width) < SMALLEST:
        return None
    size = [max(1, round(side * scales[1])) for side in image.shape]
    inverse = np.ascontiguousarray(matrix, np.float64)
    covered, inside = coverage(inverse, height // STRIDE, width // STRIDE, *size)
    if covered.sum() < 12:
        return None
    level = level_of(scales[1])
    warped = cv2.warpPerspective(
        image.level(level),
        rescaled(matrix, 1.0, 1 / (scales[1] * 2**level)),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    other = smoothed(np.asarray(warped, np.uint8))
    plain = min(query.plain, image.plain)
    low, high = (least + plain * (most - least) for least, most in (CONTRADICTED, EXPLAINED))
    found = compare_windows(one, other, covered, low, high)
    return Comparison(matrix, scales, one, other, covered, inside, *found)


def _changed(
    contradicted: npt.NDArray[np.bool_], weights: Floats
) -> tuple[float, list[tuple[int, int, int, int]]]:
    """Weight of the larger contradicted regions, and their boxes in windows."""
    close = cv2.MORPH_CLOSE
    closed = cv2.morphologyEx(contradicted.astype(np.uint8), close, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    sums = np.bincount(labels.ravel(), weights.ravel(), count)
    areas = stats[:, cv2.CC_STAT_AREA]
    large = [label for label in np.argsort(-areas) if label and areas[label] >= REGION]
    boxes = [tuple(int(value) for value in stats[label, :4]) for label in large[:16]]
    total = float(sums[large].sum()) if large else 0.0
    return total, [(left, top, left + width, top + height) for left, top, width, height in boxes]
