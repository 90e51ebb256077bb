"""The `tint` extractor without text queries, so that its features may be whitened."""

from __future__ import annotations

from typing import ClassVar

from models.base import Extractor
from models.extractors.tint import Tint  # type: ignore[import-not-found]


class Shade(Tint):  # type: ignore[misc]
    reads_text: ClassVar[bool] = False


EXTRACTOR: type[Extractor] = Shade
