"""The index contract: an index applies changes and answers queries; each type is one folder."""

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
from models.errors import invalid_field
from models.types import Features, Options
from models.weights import Weights

if TYPE_CHECKING:  # Importing it imports numba.
    from indexes.inverted.file import Method

MAX_K = 10_000

Params = TypeVar("Params", bound="SearchParams")
Rows = Callable[[Sequence[int]], Mapping[int, Features]]
"""Function that reads stored features by image id and leaves out missing ids."""


class SearchParams(Options):
    """Search parameters of every retriever; subclasses add their own."""

    k: int | None = Field(None, ge=1, le=MAX_K, description="At most this many hits.")
    distance_threshold: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Only hits strictly nearer than this."
    )
    offset: int = Field(0, ge=0, le=MAX_K, description="Skip this many best hits.")

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Validate parameters of a request. Raises InvalidInput, naming the first invalid field."""
        try:
            return cls.model_validate(dict(given))
        except ValidationError as exc:
            raise invalid_field(exc.errors(), whole="parameters") from exc


class DistanceParams(SearchParams):
    """Parameters that require `k`, `distance_threshold`, or both."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.k is None and self.distance_threshold is None:
            raise ValueError("give k or distance_threshold")
        return self


class Support(NamedTuple):
    """How well the inliers of a hit speak for one picture rather than a shared element."""

    rare: float
    """Number of inliers; one whose keypoint of the query matches n images counts 1/n."""
    visible: float
    """Share of the keypoints that both pictures should show that are inliers, 0 to 1."""
    spread: float
    """Share of the pictures' overlap that the inliers span, 0 to 1."""
    bend: float
    """Deviation of the inliers from the best similarity transform, as a share of their distance
    from their centre: hardly any between copies of one element, more between views of one scene
    from two places."""
    proposed: bool = False
    """Whether the hit did not verify, but may show a small part of either picture."""


class Hit(NamedTuple):
    """One found image. Hits are ordered by ascending distance, or by descending inliers or matches.

    It is a tuple, because each answer carries hundreds of hits and a dataclass takes four times as
    long to pickle.
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
    """Probability that the hit is a true match rather than a chance neighbour; None if unknown."""
    score: float | None = None
    """Score of a text search, from 0 to 1; 1 means that every word matches exactly."""
    matched: list[dict[str, Any]] | None = None
    """Matches of a text search, one for each query word that was found: the `word`; how it was
    found (`as`: exact, substring, fuzzy or sound); the word that was `found`; the annotator (`in`);
    and its position `at` [start, end], in characters of the annotation's text or, where that is
    given, of its `tag`."""
    support: Support | None = None
    """Of hits of `local` that are to be compared."""

    def row(self) -> dict[str, Any]:
        """The hit as a JSON object, without the fields that are None."""
        shown = zip(self._fields, self, strict=True)
        return {name: value for name, value in shown if value is not None and name != "support"}


@dataclass(frozen=True, slots=True)
class Query:
    """Features of one query, one entry for each symmetry tried: the picture itself, its mirror
    image, …"""

    variants: Sequence[Features]
    allowed: npt.NDArray[np.int64] | None = None
    """Ids (sorted, unique) of the images that may be found; None allows all."""
    is_one_picture: bool = True
    """Whether the query is one picture. Only then are its distances comparable with those between
    pairs of images; texts and sums of vectors lie elsewhere in the space."""
    sharded: bool = False
    """Whether the query asks one shard for its part of the answer."""
    candidates: Any = None
    """In the second round of a sharded search: the merged candidates of the first round."""


@dataclass(frozen=True, slots=True)
class Part:
    """One shard's part of a search round; `indexes.replica.sharding` merges the parts of all."""

    count: int
    """Number of images in the shard."""
    hits: list[Hit]
    """Hits, best first, including those that `offset` skips; empty in the first of two rounds."""
    candidates: Any = None
    """In the first of two rounds: the candidates that are merged for the second round."""
    evidence: npt.NDArray[np.float64] | None = None
    """Values (n,) from which the confidence of the hits is computed; None if there are none."""
    confidence_model: ConfidenceModel | None = None


class Index(ABC):
    """Searches one feature space. Searches only read: any number of threads may search at once,
    while nothing else is called.

    An index never uses image ids internally. Each apply takes a fresh slot, so that a removed image
    and a new one under the same id never mix.
    """

    Config: ClassVar[type[Options]] = Options
    Params: ClassVar[type[SearchParams]] = DistanceParams
    verifying: ClassVar[bool] = False
    """Whether a hit of a fused search is a verified match (a copy, the same scene) rather than a
    neighbour."""
    fused: ClassVar[Mapping[str, Any]] = {"k": 200}
    """Search parameters of this index in a fused search; they limit its list to plausible hits."""
    state_version: ClassVar[int] = 1
    """Version of the state that `freeze` returns; increase it when the meaning changes."""
    default_background: ClassVar[BackgroundModel | None] = None
    """Background model of photographs in general, used until one is fitted to the collection."""

    def __init__(self, options: Options, rows: Rows) -> None:
        self.options = options
        self.rows = rows
        self.background = self.default_background

    @abstractmethod
    def apply(self, changes: Mapping[int, Features | None]) -> None:
        """Replace the features of these image ids; None removes an image. Idempotent."""

    def search(self, query: Query, params: SearchParams) -> list[Hit]:
        """Return hits, best first, ties by image id, each id once; fewer than k if fewer exist.

        Each image is ranked by the query variant that matches it best.
        """
        if self._is_empty_search(query):
            return []
        hits = self._search(query, _with_offset(params))
        return self.finished(hits, params)[params.offset :]

    def part(self, query: Query, params: SearchParams) -> Part:
        """Search as one shard. Returns the shard's part of a search round."""
        if self._is_empty_search(query):
            return Part(len(self), [])
        candidates = (
            self._candidates(query, _with_offset(params)) if query.candidates is None else None
        )
        if candidates is not None:
            return Part(len(self), [], candidates)
        return self._part_with_evidence(self._search(query, _with_offset(params)), query)

    def answer(self, query: Query, params: SearchParams) -> list[Hit]:
        """Search, and add a confidence to the hits if it can be computed."""
        if self._is_empty_search(query):
            return []
        part = self._part_with_evidence(self._search(query, _with_offset(params)), query)
        hits = self.with_confidence(part.hits, part.evidence, part.count, part.confidence_model)
        return self.finished(hits, params)[params.offset :]

    @classmethod
    def finished(cls, hits: list[Hit], params: SearchParams) -> list[Hit]:  # noqa: ARG003
        """The last step of a search, over the hits of the whole index or of all shards."""
        return hits

    @classmethod
    def with_confidence(
        cls,
        hits: list[Hit],
        evidence: npt.NDArray[np.float64] | None,
        count: int,
        confidence_model: ConfidenceModel | None,
    ) -> list[Hit]:
        """Add confidence to hits, computed from their evidence and the number of images searched.

        Returns the hits unchanged if there is no evidence or no confidence model.
        """
        if evidence is None or confidence_model is None:
            return hits
        sure = confidence_model.confidence(evidence, count).round(4).tolist()
        return [hit._replace(confidence=one) for hit, one in zip(hits, sure, strict=True)]

    @abstractmethod
    def freeze(self) -> Frozen:
        """Freeze the current state, to be read while changes are applied. Takes milliseconds."""

    @abstractmethod
    def restore(self, saved: Saved) -> None:
        """Restore a state that was frozen under the same options and `depends_on`.

        The index must be empty. Afterwards it answers and applies changes as the frozen index
        would.
        """

    @property
    def depends_on(self) -> Mapping[str, Any]:
        """What the state depends on besides features and options, as JSON."""
        return {}

    @classmethod
    def weights(cls, options: Options) -> Sequence[Weights]:  # noqa: ARG003
        """The weights of a network that searches need, besides those of the extractor."""
        return ()

    def check_dtype(self, dtype: np.dtype[Any]) -> None:  # noqa: B027
        """Raises InvalidInput where the options do not suit features of this dtype."""

    @classmethod
    def max_hits(cls, params: SearchParams) -> int | None:
        """Maximum number of hits, including those that `offset` skips; None for no limit."""
        return None if params.k is None else params.k + params.offset

    @staticmethod
    def sort_key(hit: Hit) -> tuple[float, int]:
        """Sort key of hits, ascending."""
        assert hit.distance is not None
        return hit.distance, hit.image_id

    @classmethod
    def merge_candidates(cls, candidates: Sequence[Any], query: Query, params: SearchParams) -> Any:
        """Merge the shards' candidates of the first round for the second round."""
        raise NotImplementedError

    def maintain(self) -> bool:
        """Spend some milliseconds on upkeep between changes, such as memory for new images.

        Returns whether there is more to do at once.
        """
        return False

    @property
    def needs_compaction(self) -> bool:
        """Whether a rebuilt index would be much smaller or faster. The replica then builds a new
        one beside this one."""
        return False

    @property
    def has_learnt(self) -> bool:
        """Whether it has trained itself on its rows, which only a snapshot saves the next start."""
        return False

    def image_ids(self) -> npt.NDArray[np.int64]:
        """Ids (n,) of the indexed images in any order; empty if no background is to be fitted."""
        return np.empty(0, np.int64)

    def training_method(self, _: int) -> Method | None:
        """Training method for rows of this many values; None if the index is not trained."""
        return None

    def training_vectors(self, _: Sequence[Features]) -> npt.NDArray[np.float32]:
        """Training vectors from these features: float32 (n, d)."""
        raise NotImplementedError

    def background_of(self, sample: npt.NDArray[Any]) -> BackgroundModel:
        """Fit a background model to stored features (n, …) of random images."""
        return BackgroundModel.of(self.pair_distances(sample))

    def pair_distances(self, sample: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Distances (n (n - 1) / 2,) of all pairs of stored features (n, …)."""
        raise NotImplementedError

    @abstractmethod
    def __len__(self) -> int:
        """Number of indexed images."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory of the index's own arrays in bytes."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """The index type in use, such as `binary-flat`; shown by GET /v1/retrievers."""

    def _is_empty_search(self, query: Query) -> bool:
        return len(self) == 0 or (query.allowed is not None and query.allowed.size == 0)

    def _part_with_evidence(self, hits: list[Hit], query: Query) -> Part:
        evidence = self._evidence(hits, query) if hits else None
        confidence_model: ConfidenceModel | None = FalseDiscoveryRate()
        if query.is_one_picture:
            confidence_model = None if self.background is None else self.background.law
        return Part(len(self), hits, evidence=evidence, confidence_model=confidence_model)

    def _evidence(self, hits: Sequence[Hit], query: Query) -> npt.NDArray[np.float64] | None:
        """Evidence (n,) of these hits; None if there is none.

        For a query that is one picture: distances as the background model expects them. For any
        other query: the probabilities that unrelated images lie as near.
        """
        if self.background is None or not query.is_one_picture:
            return None
        return np.array([hit.distance for hit in hits], np.float64)

    def _candidates(self, _: Query, __: SearchParams) -> Any:
        """Candidates that the other shards need before they can find hits; None if the index needs
        only one round."""
        return None

    @abstractmethod
    def _search(self, query: Query, params: SearchParams) -> list[Hit]: ...


def _with_offset(params: Params) -> Params:
    """Enlarge `k` by the number of hits that `offset` skips."""
    if not params.offset or params.k is None:
        return params
    return params.model_copy(update={"k": params.k + params.offset})
