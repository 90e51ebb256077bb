"""What travels between the ingress and a retriever. Everything pickles; errors travel as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexes.base import Hit
from models.types import Features, Pixels, Variants, View

State = Literal["loading", "ready", "unavailable"]
Kind = Literal["retriever", "annotator"]


@dataclass(frozen=True, slots=True)
class Description:
    """What the ingress must know of a retriever to use it."""

    name: str
    kind: Kind
    state: State
    reason: str | None
    extractor: str
    options: Mapping[str, Any]
    fingerprint: str
    view: View
    place: Literal["ingress", "replica"]
    index: str
    count: int
    bytes: int
    applied_seq: int
    verifying: bool
    """Whether its hits are verified pictures rather than neighbours."""
    explains: bool
    """Whether its hits can say where they match."""
    fused_params: Mapping[str, Any] = field(default_factory=dict)
    """Search parameters of its list in a fused search."""

    def row(self) -> dict[str, Any]:
        """As GET /v1/retrievers shows it."""
        shown = ("name", "kind", "state", "reason", "count", "applied_seq", "bytes", "index")
        row = {name: getattr(self, name) for name in (*shown, "fingerprint", "extractor")}
        return {name: value for name, value in row.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One query picture: as features (with their fingerprint), as pixels, or as a stored image."""

    params: Mapping[str, Any]
    variants: Variants = "identity"
    features: Sequence[Features] | None = None
    fingerprint: str | None = None
    pixels: Pixels | None = None
    image_id: int | None = None
    allowed: npt.NDArray[np.int64] | None = None
    min_seq: int = 0
    stale_ok: bool = False
    deadline: float = 5.0
    """Seconds this retriever may take."""


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    hits: list[Hit]
    applied_seq: int
    stale: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class AnnotateAnswer:
    row: dict[str, Any]
    """As `Annotation.row` makes it."""
    fingerprint: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ExtractAnswer:
    row: bytes
    """Features as the store keeps them."""
    fingerprint: str
    seconds: float
