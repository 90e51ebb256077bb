"""Text queries, which search the annotations of images, made by annotators and by people."""

from __future__ import annotations

import unicodedata
from typing import ClassVar

import numpy as np
import orjson

from models.base import Extractor
from models.errors import InvalidInput
from models.types import Features, Pixels, View

LONGEST_TEXT = 1000
"""Maximum number of characters of a query."""
FINGERPRINT = "annotations-1"
"""Fingerprint of the feature space in which the stores keep annotations; see
`indexes.store.base.ANNOTATIONS`."""


class Text(Extractor):
    """Features of a query: its UTF-8 bytes, (n,) uint8.

    A stored row is a JSON object that maps annotators to annotations; the index `text` reads it. No
    features are made from pictures.
    """

    view: ClassVar[View] = "preview"
    index: ClassVar[str] = "text"
    dtype = np.dtype(np.uint8)
    shape = (-1,)
    reads_text: ClassVar[bool] = True
    of_pictures: ClassVar[bool] = False

    @property
    def fingerprint(self) -> str:
        """The fingerprint of all annotations, regardless of who made them."""
        return FINGERPRINT

    def extract_text(self, text: str) -> Features:
        """The query's UTF-8 bytes, (n,) uint8. Raises InvalidInput for a text that can't be
        searched for."""
        if not text.strip():
            raise InvalidInput("text: give at least one word", "text")
        if len(text) > LONGEST_TEXT:
            raise InvalidInput(f"text: at most {LONGEST_TEXT} characters", "text")
        # Cc are control characters; Cs are halves of surrogate pairs, which UTF-8 can't
        # encode.
        if any(
            unicodedata.category(char) in ("Cc", "Cs") and char not in "\t\n\r" for char in text
        ):
            raise InvalidInput("text: no control characters", "text")
        features = np.frombuffer(text.encode(), np.uint8)
        self._check(features)
        return features

    def from_row(self, row: bytes | memoryview) -> Features:
        """The row's bytes, (n,) uint8. Raises ValueError unless it is a JSON object of objects."""
        annotations = orjson.loads(row)
        if not isinstance(annotations, dict) or not all(
            isinstance(annotation, dict) for annotation in annotations.values()
        ):
            raise ValueError("annotations are a JSON object of objects")
        return super().from_row(row)

    def _extract(self, pixels: Pixels) -> Features:  # noqa: ARG002
        raise InvalidInput("text is searched by words, not by a picture", "image")


EXTRACTOR = Text
