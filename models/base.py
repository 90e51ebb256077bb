"""The extractor contract: a new retriever is one file in `models/extractors/`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from models.errors import InvalidInput
from models.method import Method
from models.types import Features, Pixels, Variants


class Extractor(Method):
    """Makes features of one view of a picture."""

    place: ClassVar[Literal["ingress", "replica"]] = "replica"
    """Where queries are extracted: `ingress` for a few milliseconds of work, next to the pixels."""
    index: ClassVar[str]
    """The kind of index that searches these features: a name of `indexes.registry`."""
    dtype: np.dtype[Any]
    """The class's, or an instance's own where it follows from the options."""
    shape: tuple[int, ...]
    """Of one picture's features; -1 where the length varies. A neural model's own once loaded."""
    reads_text: ClassVar[bool] = False
    """Whether words can be a query: then `extract_text` works."""
    additive: ClassVar[bool] = False
    """Whether features are unit vectors, which may be added up to one query and subtracted."""
    of_pictures: ClassVar[bool] = True
    """Whether its features are made of pictures; else it searches the images' annotations."""

    def extract(self, pixels: Pixels) -> Features:
        """Features of one picture's view, of this class's dtype and shape."""
        features = self._extract(pixels)
        self._check(features)
        return features

    def extract_many(self, pixels: Sequence[Pixels]) -> list[Features]:
        """Features of several pictures: in one pass where the method has a batch."""
        return [self.extract(one) for one in pixels]

    def extract_text(self, text: str) -> Features:  # noqa: ARG002
        """Features of words, comparable with those of pictures. Raises InvalidInput."""
        raise InvalidInput("this retriever does not search by words", "text")

    def extract_variants(self, pixels: Pixels, variants: Variants) -> list[Features]:
        """Features of the query under each symmetry, the picture as it is first, mirror second.

        Methods that don't change under a symmetry leave its entry out.
        """
        return (
            self._variants(pixels, variants) if variants != "identity" else [self.extract(pixels)]
        )

    def mirrored(self, features: Features) -> Features | None:  # noqa: ARG002
        """Features of the mirrored picture from those of the picture, or None if that can't be."""
        return None

    def to_row(self, features: Features) -> bytes:
        """The bytes the store keeps."""
        return features.tobytes()

    def from_row(self, row: bytes | memoryview) -> Features:
        """A read-only view of a stored row."""
        return np.frombuffer(row, self.dtype).reshape(self.shape)

    @abstractmethod
    def _extract(self, pixels: Pixels) -> Features: ...

    def _variants(self, pixels: Pixels, variants: Variants) -> list[Features]:
        pictures = dihedral(pixels)[: 2 if variants == "mirror" else 8]
        return [self.extract(picture) for picture in pictures]

    def _check(self, features: Features) -> None:
        fits = len(features.shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, features.shape, strict=True)
        )
        assert fits, (features.shape, self.shape)
        assert features.dtype == self.dtype, (features.dtype, self.dtype)


def dihedral(pixels: Pixels) -> list[Pixels]:
    """The 8 symmetries of a picture: identity, mirror, then both turned by 90, 180, 270 degrees."""
    mirror = pixels[:, ::-1]
    turned = [np.rot90(side, turns) for turns in (1, 2, 3) for side in (pixels, mirror)]
    return [np.ascontiguousarray(picture) for picture in (pixels, mirror, *turned)]
