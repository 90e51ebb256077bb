"""A retriever for tests that searches annotations by the words that they contain."""

from __future__ import annotations

import zlib
from typing import Any, ClassVar

import numpy as np
import orjson

from models.base import Extractor
from models.types import Features, Pixels, View

WIDTH = 256


class Words(Extractor):
    """Features: (256,) float32, how often each word (by its hash) occurs."""

    view: ClassVar[View] = "preview"
    index: ClassVar[str] = "vectors"
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    shape: ClassVar[tuple[int, ...]] = (WIDTH,)
    reads_text: ClassVar[bool] = True
    of_pictures: ClassVar[bool] = False

    def extract_text(self, text: str) -> Features:
        counts = np.zeros(WIDTH, np.float32)
        for word in text.split():
            counts[zlib.crc32(word.encode()) % WIDTH] += 1
        return counts

    def from_row(self, row: bytes | memoryview) -> Features:
        said = orjson.loads(row).values()
        return self.extract_text(" ".join(one["text"] for one in said))

    def _extract(self, pixels: Pixels) -> Features:
        raise NotImplementedError


EXTRACTOR = Words
