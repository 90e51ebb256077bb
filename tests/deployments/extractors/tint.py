"""A retriever for tests that is served like the neural ones: weights, batches, words, vectors.

The features of a picture are its mean colour transformed by a matrix, at unit length. Words are
the names of colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from models.base import Extractor
from models.errors import InvalidInput
from models.types import Features, Options, Pixels, View
from models.weights import UrlWeights, Weights

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}


class TintOptions(Options):
    path: str = Field(exclude=True)


class Tint(Extractor):
    """Features: (4,) float32, unit length."""

    Config: ClassVar[type[Options]] = TintOptions
    view: ClassVar[View] = "preview"
    index: ClassVar[str] = "vectors"
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    shape: ClassVar[tuple[int, ...]] = (4,)
    reads_text: ClassVar[bool] = True
    additive: ClassVar[bool] = True
    batch = 4
    uses_gpu = True
    device = "accelerator"
    options: TintOptions
    passes: ClassVar[list[int]] = []
    """Number of pictures in each batch of this process."""

    def weights(self) -> Sequence[Weights]:
        return [UrlWeights("matrix", "http://127.0.0.1:9/matrix.npy", "0" * 64, self.options.path)]

    def load(self) -> None:
        super().load()
        self._matrix = np.load(self.files["matrix"], allow_pickle=False)

    def extract_many(self, pixels: Sequence[Pixels]) -> list[Features]:
        self.passes.append(len(pixels))
        return [self.extract(one) for one in pixels]

    def extract_text(self, text: str) -> Features:
        if text not in COLOURS:
            raise InvalidInput(f"{text} is no colour", "text")
        return self._seen(COLOURS[text])

    def _extract(self, pixels: Pixels) -> Features:
        return self._seen(pixels.reshape(-1, 3).mean(axis=0))

    def _seen(self, colour: Any) -> Features:
        vector = self._matrix @ np.array([*colour, 1.0])
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


EXTRACTOR = Tint
