"""A retriever for tests whose models can be told apart by the distances they find.

The features of a picture are its mean colour and `mark`, normalised to unit length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from models.base import Extractor
from models.types import Features, Options, Pixels, TextFeatures, View


class StampOptions(Options):
    mark: int = 0


class Stamp(Extractor):
    """Features: (4,) float32, unit length."""

    Config: ClassVar[type[Options]] = StampOptions
    view: ClassVar[View] = "preview"
    index: ClassVar[str] = "vectors"
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    shape: ClassVar[tuple[int, ...]] = (4,)
    options: StampOptions

    def text_features(self, texts: Sequence[str]) -> TextFeatures:
        vectors = np.zeros((len(texts), 4), np.float32)
        return TextFeatures(self.fingerprint, vectors, float(self.options.mark), None)

    def _extract(self, pixels: Pixels) -> Features:
        colour = pixels.reshape(-1, 3).mean(axis=0)
        vector = np.array([*colour, self.options.mark], np.float32)
        return vector / np.linalg.norm(vector)


EXTRACTOR: type[Extractor] = Stamp
