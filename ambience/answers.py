"""What the service answers: its JSON as it is. A later service may add keys."""

from typing import Any, Literal, NotRequired, TypedDict


class Outcome(TypedDict):
    """Whether a retriever has the image in its index."""

    state: Literal["indexed", "pending"]
    reason: NotRequired[str]


class Added(TypedDict):
    """An acknowledged, durable add."""

    image_id: int
    seq: int
    """Pass it as `min_seq` to a search that must know of it."""
    retrievers: dict[str, Outcome]
    truncated: NotRequired[bool]


class BatchOutcome(TypedDict):
    """The outcome of one picture of a batch: an add, or a problem."""

    status: int
    image_id: NotRequired[int]
    seq: NotRequired[int]
    retrievers: NotRequired[dict[str, Outcome]]
    truncated: NotRequired[bool]
    problem: NotRequired[dict[str, Any]]


class Image(TypedDict):
    """Everything that is known of an image."""

    image_id: int
    generation: int
    file_name: str
    source: str
    upload_name: NotRequired[str | None]
    width: int
    height: int
    format: NotRequired[str | None]
    bytes: NotRequired[int | None]
    taken: NotRequired[str | None]
    """ISO 8601."""
    exif_tags: NotRequired[int | None]
    quality: NotRequired[int | None]
    sha256: str
    created: float
    """Seconds since the epoch."""
    metadata: dict[str, Any]
    retrievers: dict[str, Outcome]
    annotations: dict[str, Any]
    has_thumbnail: bool


class EditedImage(Image):
    """An image after an edit."""

    seq: int


class ImagePage(TypedDict):
    images: list[Image]
    next_cursor: NotRequired[str | None]
    total: int
    """Number of images that meet the conditions, on all pages."""


class DeletedImages(TypedDict):
    deleted: list[int]
    unknown: list[int]


class Change(TypedDict):
    """An image that changed."""

    image_id: int
    seq: int
    deleted: bool
    image: NotRequired[Image]


class Changes(TypedDict):
    changes: list[Change]
    head: int
    """Pass it as `after` next time."""


class Measures(TypedDict, total=False):
    """What a retriever says of a hit; each kind of retriever has its own keys."""

    rank: int
    distance: float
    inliers: int
    matches: int
    mirrored: bool
    confidence: float
    homography: list[list[float]]
    points: list[list[float]]
    score: float
    matched: list[dict[str, Any]]


class ChangedRegion(TypedDict):
    """A region that differs: x, y, width, height in pixels of both pictures."""

    query: tuple[int, int, int, int]
    image: tuple[int, int, int, int]


class FoldedCopies(TypedDict):
    """Hits that are folded into another one."""

    count: int
    image_ids: list[int]


class Hit(TypedDict):
    """One found image."""

    image_id: int
    score: float
    confidence: NotRequired[float]
    relation: NotRequired[Literal["same", "edited", "part", "shares", "like"]]
    changes: NotRequired[list[Literal["mirrored", "turned", "bordered", "negative"]]]
    overlap: NotRequired[tuple[float, float]]
    regions: NotRequired[list[ChangedRegion]]
    width: NotRequired[int]
    height: NotRequired[int]
    format: NotRequired[str]
    bytes: NotRequired[int]
    taken: NotRequired[str]
    created: NotRequired[str]
    file_name: NotRequired[str]
    copies: NotRequired[FoldedCopies]
    retrievers: dict[str, Measures]


class UnappliedPart(TypedDict):
    """A part of a composed query that no retriever could take into account."""

    part: str
    at: tuple[int, int]
    reason: str


class SearchResults(TypedDict):
    hits: list[Hit]
    next_cursor: NotRequired[str | None]
    unapplied: NotRequired[list[UnappliedPart]]
    truncated: NotRequired[bool]


class ComparedPicture(TypedDict):
    """One of two pictures, upright."""

    width: int
    height: int
    image_id: NotRequired[int]


class Comparison(TypedDict):
    """How a query picture and an image relate."""

    relation: Literal["same", "edited", "part", "shares", "like"]
    changes: NotRequired[list[Literal["mirrored", "turned", "bordered", "negative"]]]
    confidence: float
    overlap: NotRequired[tuple[float, float]]
    regions: NotRequired[list[ChangedRegion]]
    homography: NotRequired[list[list[float]]]
    """3×3, from pixels of the query to those of the image."""
    matches: NotRequired[list[tuple[float, float, float, float]]]
    query: ComparedPicture
    image: ComparedPicture
    truncated: NotRequired[bool]


class RetrieverHit(Measures):
    """One hit of one retriever."""

    image_id: int


class RetrieverResults(TypedDict):
    hits: list[RetrieverHit]
    next_cursor: NotRequired[str | None]
    truncated: NotRequired[bool]


class RetrieverState(TypedDict):
    """The state of one retriever or annotator."""

    name: str
    kind: Literal["retriever", "annotator"]
    state: Literal["loading", "ready", "unavailable"]
    reason: NotRequired[str]
    count: int
    applied_seq: int
    bytes: int
    index: str
    fingerprint: str
    extractor: str
    reads_text: NotRequired[bool]
    next: NotRequired[dict[str, Any]]
    previous: NotRequired[dict[str, Any]]
    shards: NotRequired[int]
    replicas: NotRequired[int]
    device: NotRequired[str]
    threads: NotRequired[int]
    tagged: NotRequired[dict[str, dict[str, Any]]]
