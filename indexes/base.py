"""The index contract: apply changes, answer queries. One file per kind of index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from indexes.arrays.frozen import Frozen, Saved
from indexes.calibration import BackgroundModel, ConfidenceModel, FalseDiscoveryRate
from models.errors import InvalidInput
from models.types import Features, Options

if TYPE_CHECKING:  # It brings numba.
    from indexes.inverted.file import Method

MAX_K = 10_000

Params = TypeVar("Params", bound="SearchParams")
Rows = Callable[[Sequence[int]], Mapping[int, Features]]
"""Reads stored features by image id; ids that are gone are left out."""


class SearchParams(Options):
    """What every retriever understands. Subclasses add their own."""

    k: int | None = Field(None, ge=1, le=MAX_K, description="At most this many hits.")
    distance_threshold: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Only hits strictly nearer than this."
    )
    offset: int = Field(0, ge=0, le=MAX_K, description="Leave out this many best hits.")

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Validate wire parameters; raises InvalidInput naming the first field at fault."""
        try:
            return cls.model_validate(dict(given))
        except ValidationError as exc:
            first = exc.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or None
            raise InvalidInput(f"{field or 'parameters'}: {first['msg']}", field) from exc


class DistanceParams(SearchParams):
    """`k`, `distance_threshold`, or both; at least one."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.k is None and self.distance_threshold is None:
            raise ValueError("give k or distance_threshold")
        return self


class Hit(NamedTuple):
    """One found picture. Distances ascend, inliers and matches descend.

    A tuple, since hundreds travel with each answer: a dataclass takes four times as long to pickle.
    """

    image_id: int
    distance: float | None = None
    inliers: int | None = None
    matches: int | None = None
    mirrored: bool | None = None
    homography: list[list[float]] | None = None
    points: list[list[float]] | None = None
    """Matched points as rows (query x, query y, image x, image y) in pixels of the gray view."""
    confidence: float | None = None
    """Probability of being a true match rather than a chance neighbour; None where unknown."""
    score: float | None = None
    """Of a text: from 0 to 1, which is all words as asked."""
    matched: list[dict[str, Any]] | None = None
    """Of a text, for each word of the query that is in it: the `word`, found `as` exact, substring,
    fuzzy or sound; the word `found`; `in` whose annotation; `at` [start, end], in characters of the
    annotation's text or, where that is given, of its `tag`."""

    def row(self) -> dict[str, Any]:
        """The hit as JSON shows it: what is None is left out."""
        shown = zip(self._fields, self, strict=True)
        return {name: value for name, value in shown if value is not None}


@dataclass(frozen=True, slots=True)
class Query:
    """Features of one query picture under each symmetry tried: as it is, mirrored, …"""

    variants: Sequence[Features]
    allowed: npt.NDArray[np.int64] | None = None
    """Only these image ids (sorted, unique) may be found; None allows all."""
    is_one_picture: bool = True
    """Whether it is one picture's, whose distances compare with those of the collection's pairs;
    words and sums of vectors lie elsewhere."""
    sharded: bool = False
    """Whether a shard is asked, for its part of the answer."""
    candidates: Any = None
    """In the second round of a sharded search: what came of the first."""


@dataclass(frozen=True, slots=True)
class Part:
    """One shard's part of a search round; `indexes.replica.sharding` merges the parts of all."""

    count: int
    """Pictures in the shard."""
    hits: list[Hit]
    """Best first, with those that `offset` leaves out; none in the first round of two."""
    candidates: Any = None
    """In the first round of two: what makes the second one's `candidates`."""
    evidence: npt.NDArray[np.float64] | None = None
    """(n,) what the confidence of the hits depends on; None where none can be said."""
    confidence_model: ConfidenceModel | None = None


class Index(ABC):
    """Searches one feature space. Not thread-safe: its replica calls it from one thread.

    An index never uses image ids as its own: each apply takes a fresh slot, so a removed picture
    and a new one under the same id never meet.
    """

    Config: ClassVar[type[Options]] = Options
    Params: ClassVar[type[SearchParams]] = DistanceParams
    verifying: ClassVar[bool] = False
    """Whether a hit of `fused` is a verified picture (a copy, the same scene), not a neighbour."""
    fused: ClassVar[Mapping[str, Any]] = {"k": 200}
    """Search parameters of one list in a fused search: they cut it to what can be true."""
    state_version: ClassVar[int] = 1
    """Count it up when what `freeze` gives means something else than before."""
    default_background: ClassVar[BackgroundModel | None] = None
    """Of photographs in general: it holds until the collection's own background is known."""

    def __init__(self, options: Options, rows: Rows) -> None:
        self.options = options
        self.rows = rows
        self.background = self.default_background

    @abstractmethod
    def apply(self, changes: Mapping[int, Features | None]) -> None:
        """Replace (or, where None, remove) the features of these image ids. Idempotent."""

    def search(self, query: Query, params: SearchParams) -> list[Hit]:
        """Hits best first, ties by image id; fewer than k where fewer exist, each id once.

        The best of the query's variants counts for each image.
        """
        if self._finds_nothing(query):
            return []
        return self._search(query, _widened(params))[params.offset :]

    def part(self, query: Query, params: SearchParams) -> Part:
        """A shard's part of a search."""
        if self._finds_nothing(query):
            return Part(len(self), [])
        candidates = self._candidates(query, _widened(params)) if query.candidates is None else None
        if candidates is not None:
            return Part(len(self), [], candidates)
        return self._part_with_evidence(self._search(query, _widened(params)), query)

    def answer(self, query: Query, params: SearchParams) -> list[Hit]:
        """A search whose hits say how likely they are to be true, where that can be said."""
        if self._finds_nothing(query):
            return []
        part = self._part_with_evidence(self._search(query, _widened(params)), query)
        return self.with_confidence(part.hits, part.evidence, part.count, part.confidence_model)[
            params.offset :
        ]

    @classmethod
    def with_confidence(
        cls,
        hits: list[Hit],
        evidence: npt.NDArray[np.float64] | None,
        count: int,
        confidence_model: ConfidenceModel | None,
    ) -> list[Hit]:
        """Hits with confidence, by what `_evidence` said of them and so many pictures searched."""
        if evidence is None or confidence_model is None:
            return hits
        sure = confidence_model.confidence(evidence, count).round(4).tolist()
        return [hit._replace(confidence=one) for hit, one in zip(hits, sure, strict=True)]

    @abstractmethod
    def freeze(self) -> Frozen:
        """Its state as of now, to be read while changes are applied. Takes milliseconds."""

    @abstractmethod
    def restore(self, saved: Saved) -> None:
        """Become, from empty, what was frozen under the same options and `depends_on`.

        From then on it answers as that index did, and takes changes as that would have.
        """

    @property
    def depends_on(self) -> Mapping[str, Any]:
        """JSON of what its state depends on, beside features and options."""
        return {}

    @classmethod
    def max_hits(cls, params: SearchParams) -> int | None:
        """How many hits an answer has at most, before `offset`; None for any number."""
        return None if params.k is None else params.k + params.offset

    @staticmethod
    def sort_key(hit: Hit) -> tuple[float, int]:
        """Hits ascend by this."""
        assert hit.distance is not None
        return hit.distance, hit.image_id

    @classmethod
    def merge_candidates(cls, candidates: Sequence[Any], query: Query, params: SearchParams) -> Any:
        """What the second round must know, of all that the shards `_candidates` in the first."""
        raise NotImplementedError

    def preallocate(self) -> bool:
        """Ready memory for pictures to come, for some milliseconds; whether there is more to do."""
        return False

    @property
    def needs_compaction(self) -> bool:
        """Whether one built anew would be much smaller or faster: then one is, beside it."""
        return False

    def image_ids(self) -> npt.NDArray[np.int64]:
        """Ids (n,) of what is indexed, in any order; none where no background is to be fitted."""
        return np.empty(0, np.int64)

    def training_method(self, _: int) -> Method | None:
        """How rows of so many values are trained; None for an index that is not trained."""
        return None

    def training_vectors(self, _: Sequence[Features]) -> npt.NDArray[np.float32]:
        """What a training learns from these features: float32 (n, d)."""
        raise NotImplementedError

    def background_of(self, sample: npt.NDArray[Any]) -> BackgroundModel:
        """The background that stored features (n, …) of random pictures show."""
        return BackgroundModel.of(self.pair_distances(sample))

    def pair_distances(self, sample: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Distances (n (n - 1) / 2,) of all pairs of stored features (n, …)."""
        raise NotImplementedError

    @abstractmethod
    def __len__(self) -> int:
        """How many pictures are indexed."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of memory that the index's own arrays take."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What is in use now, such as `binary-flat`; shown by GET /v1/retrievers."""

    def _finds_nothing(self, query: Query) -> bool:
        return len(self) == 0 or (query.allowed is not None and query.allowed.size == 0)

    def _part_with_evidence(self, hits: list[Hit], query: Query) -> Part:
        evidence = self._evidence(hits, query) if hits else None
        confidence_model: ConfidenceModel | None = FalseDiscoveryRate()
        if query.is_one_picture:
            confidence_model = None if self.background is None else self.background.law
        return Part(len(self), hits, evidence=evidence, confidence_model=confidence_model)

    def _evidence(self, hits: Sequence[Hit], query: Query) -> npt.NDArray[np.float64] | None:
        """Distances (n,) of these hits as the background has them.

        Of a query that is no picture's: the chances of unrelated pictures to lie as near.
        """
        if self.background is None or not query.is_one_picture:
            return None
        return np.array([hit.distance for hit in hits], np.float64)

    def _candidates(self, _: Query, __: SearchParams) -> Any:
        """What other shards must know before they can find hits; None where they need not."""
        return None

    @abstractmethod
    def _search(self, query: Query, params: SearchParams) -> list[Hit]: ...


def _widened(params: Params) -> Params:
    """With a `k` that counts what `offset` leaves out."""
    if not params.offset or params.k is None:
        return params
    return params.model_copy(update={"k": params.k + params.offset})
