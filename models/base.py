"""The extractor contract: a new retriever is one file in `models/extractors/`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from models.errors import InvalidInput
from models.method import Method
from models.types import Features, Pixels, TextFeatures, Variants


class Extractor(Method):
    """Base class of extractors. An extractor makes features from one view of a picture."""

    place: ClassVar[Literal["ingress", "replica"]] = "replica"
    """Where the features of queries are extracted. `ingress` suits methods that take a few
    milliseconds, because the ingress already holds the decoded pixels."""
    index: ClassVar[str]
    """Name of the index that searches these features; see `indexes.registry`."""
    dtype: np.dtype[Any]
    """Dtype of the features. An instance overrides that of its class where options decide it."""
    shape: tuple[int, ...]
    """Shape of one picture's features; -1 stands for a variable length. Neural models set the shape
    when they load."""
    reads_text: ClassVar[bool] = False
    """Whether text can be a query, that is, whether `extract_text` works."""
    additive: ClassVar[bool] = False
    """Whether features are unit vectors that can be added and subtracted to form one query."""
    of_pictures: ClassVar[bool] = True
    """Whether features are made from pictures. If not, the retriever searches annotations."""

    def extract(self, pixels: Pixels) -> Features:
        """Features of one view, with this extractor's dtype and shape."""
        features = self._extract(pixels)
        self._check(features)
        return features

    def extract_many(self, pixels: Sequence[Pixels]) -> list[Features]:
        """Features of several pictures; neural models extract them in batches."""
        return [self.extract(one) for one in pixels]

    def extract_text(self, text: str) -> Features:  # noqa: ARG002
        """Features of a text query.

        Raises InvalidInput for a text that can't be searched for, and for every text where
        `reads_text` is false.
        """
        raise InvalidInput("this retriever does not search by words", "text")

    def text_features(self, texts: Sequence[str]) -> TextFeatures:  # noqa: ARG002
        """Features of several texts, with the model's scale and bias of cosines.

        Raises InvalidInput like `extract_text`, and for every text where features of pictures are
        not scored by texts.
        """
        raise InvalidInput("this retriever does not score pictures by words", "text")

    def extract_variants(self, pixels: Pixels, variants: Variants) -> list[Features]:
        """Features of the query under each symmetry: the picture itself first, its mirror image
        second.

        Symmetries that make no difference to the search have no entry.
        """
        return (
            self._variants(pixels, variants) if variants != "identity" else [self.extract(pixels)]
        )

    def mirrored(self, features: Features) -> Features | None:  # noqa: ARG002
        """Features of the mirrored picture, computed from features of the picture; None where that
        is impossible."""
        return None

    def to_row(self, features: Features) -> bytes:
        """The features as the bytes that the store keeps."""
        return features.tobytes()

    def from_row(self, row: bytes | memoryview) -> Features:
        """A read-only view of the features in a stored row."""
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
    """The 8 symmetries of a picture: the picture, its mirror image, then both rotated by 90, 180
    and 270 degrees."""
    mirror = pixels[:, ::-1]
    turned = [np.rot90(side, turns) for turns in (1, 2, 3) for side in (pixels, mirror)]
    return [np.ascontiguousarray(picture) for picture in (pixels, mirror, *turned)]
