"""Local features: keypoints and their descriptors, which find crops, rotations and pictures inside
other pictures.

`models.descriptors` holds the methods that detect and describe keypoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from models.base import Extractor
from models.descriptors.aliked import Aliked
from models.descriptors.base import Descriptor
from models.descriptors.hardnet8 import HardNet8
from models.descriptors.rootsift import RootSift
from models.descriptors.selection import Selection
from models.descriptors.xfeat import XFeat
from models.types import Features, Options, Pixels, Variants, View
from models.weights import Weights

DESCRIPTORS: Mapping[str, type[Descriptor]] = {
    "rootsift": RootSift,
    "hardnet8": HardNet8,
    "aliked": Aliked,
    "xfeat": XFeat,
}


def local_dtype(descriptor: type[Descriptor]) -> np.dtype[Any]:
    """Dtype of one keypoint with the values of its descriptor, a multiple of a unit vector.

    x, y: pixels of the gray view (negative x in a mirrored query); scale: diameter in pixels, 0
    where the keypoint has neither scale nor angle; angle: degrees in [0, 360).
    """
    places = [(name, np.float32) for name in ("x", "y", "scale", "angle")]
    return np.dtype([*places, ("descriptor", descriptor.dtype, (descriptor.width,))])


LOCAL_DTYPE = local_dtype(RootSift)


class LocalOptions(Options):
    descriptor: Literal["rootsift", "hardnet8", "aliked", "xfeat"] = "rootsift"
    max_keypoints: int = Field(256, ge=4, le=256)
    """Maximum number of stored keypoints per picture, spread evenly over it."""
    near: int = Field(3, ge=1)
    """Maximum number of stored keypoints within a sixtieth of the long side."""
    query_keypoints: int = Field(600, ge=4, le=1000, exclude=True)
    """Maximum number of keypoints of a query. It may exceed the stored number, because any query
    keypoint can match a stored one. Excluded from the dump, and so from the fingerprint: stored
    features do not depend on it."""
    min_side: int = Field(480, ge=16)
    """Long side in pixels to which smaller pictures are enlarged before detection."""
    max_side: int = Field(640, ge=16)
    """Long side in pixels to which larger pictures are reduced before detection."""
    weights: str | None = Field(None, exclude=True)
    """Path of a file of weights that replaces the published one, such as ALIKED's n16rot. Excluded
    from the dump, because the hash of the file is part of the fingerprint."""

    @model_validator(mode="after")
    def _weights_are_used(self) -> LocalOptions:
        if self.weights is not None and self.descriptor == "rootsift":
            raise ValueError(
                "rootsift has no weights: remove the option, or choose another descriptor"
            )
        return self


class Local(Extractor):
    """Features of one picture: (n,) of `local_dtype`, n from 0 to 256, in `Selection`'s order."""

    Config: ClassVar[type[Options]] = LocalOptions
    view: ClassVar[View] = "gray"
    place: ClassVar[Literal["ingress", "replica"]] = "replica"
    index: ClassVar[str] = "local"
    version: ClassVar[int] = 3
    dtype = LOCAL_DTYPE
    shape: tuple[int, ...] = (-1,)
    options: LocalOptions

    def __init__(self, options: LocalOptions) -> None:
        super().__init__(options)
        self._descriptor = DESCRIPTORS[options.descriptor]()
        self.dtype = local_dtype(type(self._descriptor))

    def weights(self) -> Sequence[Weights]:
        return self._descriptor.weights(self.options.weights)

    def load(self) -> None:
        super().load()
        self._descriptor.load(self.files)

    def mirrored(self, features: Features) -> Features | None:
        """Features of the picture mirrored left to right, with an x axis that points left.

        x becomes -x rather than width - 1 - x, because a homography absorbs the shift. None for
        neural descriptors, which need the mirrored picture.
        """
        descriptors = self._descriptor.mirrored(features["descriptor"])
        if descriptors is None:
            return None
        mirror = features.copy()
        mirror["x"] = -features["x"]
        mirror["angle"] = (180 - features["angle"]) % 360
        mirror["descriptor"] = descriptors
        return mirror

    def extract_variants(self, pixels: Pixels, variants: Variants) -> list[Features]:
        """Features of the query and, unless `identity`, of its mirror image."""
        query = self._query(pixels)
        if variants == "identity":
            return [query]
        mirror = self.mirrored(query)
        if mirror is None:
            mirror = self._query(np.ascontiguousarray(pixels[:, ::-1]))
            mirror["x"] -= pixels.shape[1] - 1
        return [query, mirror]

    def _extract(self, pixels: Pixels) -> Features:
        return self._described(pixels, self.options.max_keypoints)

    def _query(self, pixels: Pixels) -> Features:
        query = self._described(pixels, self.options.query_keypoints)
        self._check(query)
        return query

    def _described(self, pixels: Pixels, total: int) -> Features:
        sides = self.options.min_side, self.options.max_side
        selection = Selection(total, self.options.near)
        keypoints, descriptors = self._descriptor.describe(pixels, sides, selection)
        features = np.empty(len(descriptors), self.dtype)
        features["x"], features["y"] = keypoints.points.T
        features["scale"], features["angle"] = keypoints.scale, keypoints.angle
        features["descriptor"] = descriptors
        return features


EXTRACTOR = Local
