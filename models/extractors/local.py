"""Local features: SIFT keypoints with RootSIFT descriptors, for copies that were cut or turned.

Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004; Arandjelović & Zisserman,
"Three things everyone should know to improve object retrieval", 2012.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from models.base import Extractor
from models.keypoints import Rows, Sift, rank_in_cell, spread
from models.types import Features, Options, Pixels, Variants, View

DESCRIPTOR_SCALE = 512
"""What a unit descriptor is multiplied by before it is rounded to uint8: no value reaches 0.5."""

LOCAL_DTYPE = np.dtype(
    [
        ("x", np.float32),
        ("y", np.float32),
        ("scale", np.float32),
        ("angle", np.float32),
        ("descriptor", np.uint8, (128,)),
    ]
)
"""x, y: pixels of the gray view (negative x in a mirrored query); scale: diameter in pixels; angle:
degrees in [0, 360); descriptor: unit length times DESCRIPTOR_SCALE."""


class LocalOptions(Options):
    descriptor: Literal["rootsift"] = "rootsift"
    max_keypoints: int = Field(200, ge=4, le=256)
    """Stored per picture: at most a quarter of them in each quadrant."""
    near: int = Field(3, ge=1)
    """At most this many stored keypoints within a sixtieth of the long side."""
    query_keypoints: int = Field(600, ge=4, le=1000, exclude=True)
    """A query may have more than are stored: any of them can meet a stored one. Excluded from the
    dump, thus from the fingerprint: stored features don't depend on it."""
    min_side: int = Field(480, ge=16)
    """Smaller pictures are enlarged to this long side before SIFT."""
    max_side: int = Field(640, ge=16)
    """Larger pictures are reduced to this long side before SIFT."""


class Local(Extractor):
    """Features of one picture: (n,) of LOCAL_DTYPE, n from 0 to 256, strongest first."""

    Config: ClassVar[type[Options]] = LocalOptions
    view: ClassVar[View] = "gray"
    place: ClassVar[Literal["ingress", "replica"]] = "replica"
    index: ClassVar[str] = "local"
    dtype: ClassVar[np.dtype[Any]] = LOCAL_DTYPE
    shape: tuple[int, ...] = (-1,)
    options: LocalOptions

    def mirrored(self, features: Features) -> Features:
        """Features of the picture mirrored left to right, its x axis pointing left.

        So x becomes -x rather than width - 1 - x: a homography absorbs the shift. SIFT's 4×4 cells
        lie along the keypoint's own axis: mirroring swaps the rows of cells beside that axis, and
        the sense of the 8 orientations within each.
        """
        mirror = features.copy()
        mirror["x"] = -features["x"]
        mirror["angle"] = (180 - features["angle"]) % 360
        cells = features["descriptor"].reshape(-1, 4, 4, 8)
        mirror["descriptor"] = cells[:, ::-1][..., _MIRRORED_BINS].reshape(-1, 128)
        return mirror

    def extract_variants(self, pixels: Pixels, variants: Variants) -> list[Features]:
        """The query as it is and, unless `identity`, mirrored. SIFT turns with the picture."""
        query = self._query(pixels)
        return [query] if variants == "identity" else [query, self.mirrored(query)]

    def _extract(self, pixels: Pixels) -> Features:
        sift = self._sift(pixels)
        total, near = self.options.max_keypoints, self.options.near
        chosen = spread(sift.keypoints.points, pixels.shape, total, total // 4, near)
        return _pack(sift, chosen)

    def _query(self, pixels: Pixels) -> Features:
        """The strongest of each cell of the picture, then each one's second, and so on.

        So the first few hundred speak for every part of it: a busy one can't outvote the others.
        """
        sift = self._sift(pixels)
        total, near = self.options.query_keypoints, self.options.near
        points = sift.keypoints.points
        chosen = spread(points, pixels.shape, total, total, near)
        rank = rank_in_cell(points[chosen], pixels.shape)
        query = _pack(sift, chosen[np.argsort(rank, kind="stable")])
        self._check(query)
        return query

    def _sift(self, pixels: Pixels) -> Sift:
        return Sift(pixels, (self.options.min_side, self.options.max_side))


_MIRRORED_BINS = [0, 7, 6, 5, 4, 3, 2, 1]


def rootsift(sift: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """RootSIFT of SIFT descriptors (n, 128) float32, as (n, 128) uint8 of length DESCRIPTOR_SCALE.

    The root of the L1-normalised vector: Euclidean distance of the roots is Hellinger distance.
    """
    total = np.maximum(sift.sum(axis=1, keepdims=True), 1e-9)
    quantised = np.rint(np.sqrt(sift / total) * DESCRIPTOR_SCALE)
    return np.asarray(np.minimum(quantised, 255), np.uint8)


def _pack(sift: Sift, chosen: Rows) -> Features:
    features = np.empty(len(chosen), LOCAL_DTYPE)
    features["x"], features["y"] = sift.keypoints.points[chosen].T
    features["scale"] = sift.keypoints.scale[chosen]
    features["angle"] = sift.keypoints.angle[chosen]
    features["descriptor"] = rootsift(sift.describe(chosen))
    return features


EXTRACTOR = Local
