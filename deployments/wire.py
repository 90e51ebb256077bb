"""Messages between the ingress and a replica. Everything pickles; errors travel as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexes.base import Hit, Part
from models.types import Features, Pixels, Variants, View

State = Literal["loading", "ready", "unavailable"]
Kind = Literal["retriever", "annotator"]


@dataclass(frozen=True, slots=True)
class TaggedIndex:
    """The state of an index beside the main one, of the images with one tag."""

    state: State
    index: str
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Description:
    """What the ingress needs to know of a retriever."""

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
    """Whether its hits are verified matches rather than neighbours."""
    explains: bool
    """Whether its hits can show where they match."""
    fused_params: Mapping[str, Any] = field(default_factory=dict)
    """Search parameters of its list in a fused search."""
    reads_text: bool = False
    """Whether text can be a query."""
    additive: bool = False
    """Whether pictures and texts of one query add up to one vector."""
    of_pictures: bool = True
    """Whether it searches by pictures; otherwise by text only."""
    next: Description | None = None
    """Description of the model that is to replace this one."""
    searched_by: str = ""
    """Name of its index in `indexes.registry`."""
    shards: int = 1
    device: str = "cpu"
    """Device on which its model computes."""
    threads: int = 1
    """Number of pictures that a replica extracts at once, and of searches."""
    tagged: Mapping[str, TaggedIndex] = field(default_factory=dict)
    """By tag, the indexes of the images to which keys are limited."""

    def row(self) -> dict[str, Any]:
        """The row of GET /v1/retrievers."""
        shown = ("name", "kind", "state", "reason", "count", "applied_seq", "bytes", "index")
        more = ("fingerprint", "extractor", "reads_text", "device", "threads")
        row = {name: getattr(self, name) for name in (*shown, *more)}
        if self.shards > 1:
            row["shards"] = self.shards
        if self.tagged:
            row["tagged"] = {tag: asdict(one) for tag, one in self.tagged.items()}
        return {name: value for name, value in row.items() if value is not None}

    def limited_to(self, tag: str) -> Description:
        """The description of the index of this tag alone."""
        missing: State = "loading" if self.kind == "retriever" else self.state
        own = self.tagged.get(tag, TaggedIndex(missing, self.searched_by, 0, 0))
        state = own.state if self.state == "ready" else self.state
        reason = state if state == "loading" else self.reason
        limited = replace(self, state=state, reason=reason, tagged={}, next=None)
        return replace(limited, index=own.index, count=own.count, bytes=own.bytes)


def tagged_over_shards(shards: Sequence[Description]) -> dict[str, TaggedIndex]:
    """By tag, the indexes of all shards together: ready when all that exist are."""
    found: dict[str, TaggedIndex] = {}
    for shard in shards:
        for tag, one in shard.tagged.items():
            other = found.get(tag, replace(one, count=0, bytes=0))
            state = one.state if other.state == "ready" else other.state
            count, size = one.count + other.count, one.bytes + other.bytes
            found[tag] = TaggedIndex(state, one.index, count, size)
    return found


@dataclass(frozen=True, slots=True)
class CompositeQuery:
    """A query of several parts: unit vectors are added, those of negative parts subtracted.

    A retriever that reads text but does not add vectors uses `text` alone.
    """

    pixels: Sequence[Pixels] = ()
    image_ids: Sequence[int] = ()
    text: str | None = None
    negative_text: str | None = None
    negative_ids: Sequence[int] = ()
    negative_weight: float = 1.0
    """Factor of each negative part's vector."""

    @property
    def is_one_picture(self) -> bool:
        """Whether the only part is one picture."""
        words = self.text or self.negative_text
        return not words and not self.negative_ids and len(self.pixels) + len(self.image_ids) == 1


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One query: features, pixels, a stored image, or a composite.

    `fingerprint` names the feature space to search, which is that of the features.
    """

    params: Mapping[str, Any]
    variants: Variants = "identity"
    features: Sequence[Features] | None = None
    fingerprint: str | None = None
    pixels: Pixels | None = None
    image_id: int | None = None
    composite: CompositeQuery | None = None
    allowed: npt.NDArray[np.int64] | None = None
    min_seq: int = 0
    stale_ok: bool = False
    deadline: float = 5.0
    """Seconds that this retriever may take."""
    of_a_sum: bool = False
    """Whether the features are of a text or a composite."""
    sharded: bool = False
    """Whether a shard is asked for its part; see `indexes.replica.sharding`."""
    candidates: Any = None
    """The merged candidates of the first round of a sharded search."""
    tag: str | None = None
    """Only images with this tag exist for the query; None: all do."""

    @property
    def is_one_picture(self) -> bool:
        """Whether the query is one picture, not a text or a composite."""
        return not self.of_a_sum and (self.composite is None or self.composite.is_one_picture)


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    hits: list[Hit]
    applied_seq: int
    stale: bool
    seconds: float
    part: Part | None = None
    """Replaces the hits when a shard is asked."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Shards that did not answer → reason."""


@dataclass(frozen=True, slots=True)
class AnnotateAnswer:
    row: dict[str, Any]
    """The annotation as `Annotation.row` returns it."""
    fingerprint: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ExtractAnswer:
    row: bytes
    """Features as the store keeps them."""
    fingerprint: str
    seconds: float
