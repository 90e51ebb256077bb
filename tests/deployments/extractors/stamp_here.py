"""The `stamp` extractor, run in the ingress for queries and on the full view of the picture."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.base import Extractor
from models.extractors.stamp import Stamp  # type: ignore[import-not-found]
from models.types import View


class StampHere(Stamp):  # type: ignore[misc]
    place: ClassVar[Literal["ingress", "replica"]] = "ingress"
    view: ClassVar[View] = "full"


EXTRACTOR: type[Extractor] = StampHere
