"""How much of each picture the other explains where they overlap.

Content is what stands out from its surroundings: edges, ink, texture. Where both pictures have the
same structure after a fit of gain and offset, it is explained; blank paper counts for nothing. The
structure is compared as in SSIM (Wang et al. 2004), by the correlation of small windows.
"""

from __future__ import annotations

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
from indexes.relation.side import STRIDE, WINDOW, Scaled, Side, block_means, quantised, window_means

TINY = 100
"""Long side of pictures that are enlarged before they are compared."""
SMALLEST = 20
"""Minimum side of an overlap in pixels of the coarser picture."""
COARSE, FINE = 144, 400
"""Long sides, in pixels, of the overlap when it is compared first, and then more closely."""
HOPELESS = (0.35, 0.65)
"""Explained share at the coarse size below which photographs, and drawings, are not compared more
closely."""
NOISE = 1.8
"""Standard deviation of what compression leaves, in grey values."""
RELATIVE_NOISE = 0.05
"""The same as a share of the picture's contrast."""
HALF_WEIGHT = 0.35
"""Spread, as a share of the picture's contrast, that has half the largest weight."""
CONTRADICTED, EXPLAINED = (0.45, 0.62), (0.80, 0.92)
"""Correlations up to which a window contradicts, and from which it is explained: of photographs,
and of drawings, where other letters in the same place resemble each other.
"""
LOUD = 0.3
"""Weight from which a contradicted window counts as changed."""
REGION = 5
"""Number of windows from which a changed region is one."""
GOOD_ENOUGH = 0.93
"""Explained share of the overlap above which an alignment is not refined."""


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
    calm: float
    """Share of the overlap's area that is not contradicted."""
    changed: float
    """Share of the content in the overlap in the larger contradicted regions."""
    windows: float
    """Number of independent windows with content that are explained."""
    negative: bool
    plain: float
    """How much both pictures are drawn rather than photographed, 0 to 1."""
    regions: tuple[tuple[float, float, float, float], ...] = ()
    """Contradicted regions in the query: left, top, right, bottom in its pixels."""


def compare(query: Side, image: Side, matrix: Matrix) -> Agreement | None:
    """Compare two pictures under an alignment, which is refined. None if they hardly overlap, or
    nothing in them agrees."""
    coarse = _compare_at(COARSE, query, image, matrix)
    plain = min(query.plain, image.plain)
    if coarse is None or coarse[0].score < HOPELESS[0] + plain * (HOPELESS[1] - HOPELESS[0]):
        return None if coarse is None else coarse[0].agreement(query, image, coarse[1])
    matrix = coarse[0].unscaled(coarse[1])
    compared, scales = _compare_at(FINE, query, image, matrix) or coarse
    return compared.agreement(query, image, scales)


def _compare_at(
    size: int, query: Side, image: Side, matrix: Matrix
) -> tuple[_Compared, tuple[float, float]] | None:
    scales = _common_scales(query, image, matrix, size)
    if scales is None:
        return None
    one, other = query.scaled(scales[0]), image.scaled(scales[1])
    plain = min(query.plain, image.plain)
    compared = _compared(one, other, rescaled(matrix, *scales), plain)
    if compared is None or compared.score >= GOOD_ENOUGH:
        return None if compared is None else (compared, scales)
    update = refined(*compared.trackable())
    if update is not None and _plausible(update, one.pixels.shape):
        again = _compared(one, other, compared.matrix @ update, plain)
        if again is not None and again.score > compared.score:
            compared = again
    return compared, scales


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


@dataclass(frozen=True)
class _Compared:
    """Two pictures compared window by window, on the query's grid."""

    matrix: Matrix
    one: Scaled
    other: Scaled
    spreads: tuple[Floats, Floats]
    weights: tuple[Floats, Floats]
    noise: tuple[float, float]
    explained: Floats
    contradicted: npt.NDArray[np.bool_]
    covered: npt.NDArray[np.bool_]
    """Windows that lie in both pictures."""
    inside: npt.NDArray[np.bool_]
    """Windows that lie at least partly in both pictures."""
    sign: float

    @cached_property
    def both(self) -> Floats:
        """Weight of what is in either picture, 0 outside the overlap."""
        return np.where(self.covered, np.maximum(*self.weights), np.float32(0))

    @cached_property
    def score(self) -> float:
        return float((self.both * self.explained).sum()) / max(float(self.both.sum()), 1e-6)

    def unscaled(self, scales: tuple[float, float]) -> Matrix:
        return rescaled(self.matrix, 1 / scales[0], 1 / scales[1])

    def trackable(self) -> tuple[Floats, Floats, Floats]:
        """Both pictures locally normalised, and where there is something to track."""
        size = self.covered.shape[1] * STRIDE, self.covered.shape[0] * STRIDE
        sides = []
        for side, sign in ((self.one, 1.0), (self.other, self.sign)):
            centred = side.values[: size[1], : size[0]] - cv2.resize(side.mean, size)
            scaled = centred * (sign / (cv2.resize(side.spread, size) + 3))
            sides.append(np.asarray(scaled, np.float32))
        least = np.minimum(*self.spreads)
        usable = np.where(self.covered & (least > 2 * max(self.noise)), least, 0)
        there = cv2.resize(usable.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        return sides[0], sides[1], np.asarray(there * abs(sides[0]), np.float32)

    def agreement(self, query: Side, image: Side, scales: tuple[float, float]) -> Agreement:
        matrix = self.unscaled(scales)
        total = max(float(self.both.sum()), 1e-6)
        explained = float((self.both * self.explained).sum())
        # Windows across the edge of the overlap belong to neither side of it.
        first = np.where(self.inside & ~self.covered, 0, self.weights[0])
        query_total = max(float(first.sum()), 1e-6)
        there = np.where(self.covered, self.weights[1], 0)
        lost = min(1.5, float(self.inside.sum()) / max(1, int(self.covered.sum())))
        image_total = max(self._image_total(image, scales[1]), float(there.sum()), 1e-6)
        changed, boxes = _changed(self.contradicted & self.covered, self.both)
        query_area, image_area = covered_areas(query.shape, image.shape, matrix)
        return Agreement(
            matrix=matrix,
            inside=explained / total,
            query=min(1.0, float((first * self.explained)[self.covered].sum()) / query_total),
            image=min(1.0, lost * float((there * self.explained).sum()) / image_total),
            query_inside=min(1.0, float(first[self.covered].sum()) / query_total),
            image_inside=min(1.0, lost * float(there.sum()) / image_total),
            query_area=query_area,
            image_area=image_area,
            calm=1 - float((self.contradicted & self.covered).sum()) / int(self.covered.sum()),
            changed=changed / total,
            windows=explained * STRIDE**2 / WINDOW**2,
            negative=self.sign < 0,
            plain=min(query.plain, image.plain),
            regions=tuple(
                tuple(edge * STRIDE / scales[0] for edge in box)  # type: ignore[misc]
                for box in boxes
            ),
        )

    def _image_total(self, image: Side, factor: float) -> float:
        return float(_weights(image.scaled(factor).spread, self.noise[1]).sum())


def _weights(spread: Floats, noise: float) -> Floats:
    """Weight of content by its spread: 0 for noise, nearly 1 for strong edges."""
    contrast = noise / RELATIVE_NOISE
    excess = np.maximum(spread - noise, 0)
    return np.asarray(excess / (excess + HALF_WEIGHT * contrast), np.float32)


def _compared(one: Scaled, other: Scaled, matrix: Matrix, plain: float) -> _Compared | None:
    height, width = one.pixels.shape
    if min(height, width) < SMALLEST:
        return None
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = width, height
    pixels = cv2.warpPerspective(
        other.pixels, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    warped = Scaled(np.asarray(pixels, np.uint8))
    mask = cv2.warpPerspective(
        np.full(other.pixels.shape, 255, np.uint8), matrix, size, flags=flags
    )
    inside = block_means(mask)
    covered = cv2.erode(inside, np.ones((3, 3), np.uint8)) > 254
    if covered.sum() < 12:
        return None
    spreads = one.spread, warped.spread
    covariance = window_means(one.values * warped.values) - one.mean * warped.mean
    noise = _noise(spreads[0][covered]), _noise(spreads[1][covered])
    sign = -1.0 if float(covariance[covered].sum()) < 0 else 1.0
    alike = (sign * covariance + noise[0] * noise[1]) / np.sqrt(
        (spreads[0] ** 2 + noise[0] ** 2) * (spreads[1] ** 2 + noise[1] ** 2)
    )
    low, high = (least + plain * (most - least) for least, most in (CONTRADICTED, EXPLAINED))
    explained = np.clip((alike - low) / (high - low), 0, 1)
    weights = _weights(spreads[0], noise[0]), _weights(spreads[1], noise[1])
    return _Compared(
        matrix=matrix,
        one=one,
        other=warped,
        spreads=spreads,
        weights=weights,
        noise=noise,
        explained=np.where(covered, explained, 0).astype(np.float32),
        contradicted=(alike < low) & (np.maximum(*weights) > LOUD),
        covered=covered,
        inside=cv2.dilate(inside, np.ones((5, 5), np.uint8)) > 0,
        sign=sign,
    )


def _noise(spreads: Floats) -> float:
    """Spread of the noise, from the spreads of a picture's windows."""
    return max(NOISE, RELATIVE_NOISE * float(np.quantile(spreads, 0.95)))


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
