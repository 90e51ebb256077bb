"""The request and response bodies of /v1."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from models.types import MAX_IMAGE_ID, Options

ImageId = Annotated[int, Field(ge=0, le=MAX_IMAGE_ID)]
MAX_WORDS = 1000
MAX_NOTE = 1000
TAKEN = "When it was taken, ISO 8601; a local time without its offset is read as UTC."
TRUNCATED = "True if the picture is cut short or damaged; what is there is used."


def _readable(text: str) -> str:
    if not text.strip():
        raise ValueError("has no words in it")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError("has control characters in it")
    return text


_PLAIN = r"[^\u0000-\u001f\u007f-\u009f]*"
Words = Annotated[
    str,
    Field(min_length=1, max_length=MAX_WORDS),
    AfterValidator(_readable),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_WORDS,
            "pattern": rf"^{_PLAIN}[^\s\u0000-\u001f\u007f-\u009f]{_PLAIN}$",
        }
    ),
]


def _without_null(schema: dict[str, Any]) -> None:
    for field in schema.get("properties", {}).values():
        kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
        if field.get("default", ...) is None and len(kinds) == 1:
            del field["default"], field["anyOf"]
            field.update(kinds[0])


class Answer(BaseModel):
    """An answer that leaves a field without a value out; no field is null."""

    model_config = ConfigDict(json_schema_extra=_without_null)


class ModelState(Answer):
    """The state, over all replicas, of a retriever's model that searches do not use."""

    state: Literal["loading", "ready"] = Field(description="Ready when all replicas have it.")
    reason: str | None = Field(None, description="Why it is not ready.")
    count: int = Field(description="Images with features of it.")
    bytes: int = Field(description="Memory of its index.")
    extractor: str | None = Field(None, description="A file of models/extractors/.")
    fingerprint: str | None = Field(None, description="Names the feature space.")


class TaggedIndexState(BaseModel):
    """The state of an index beside the main one, of the images to which a key is limited."""

    state: Literal["loading", "ready", "unavailable"]
    index: str = Field(description="The kind of index in use.")
    count: int = Field(description="Images in it.")
    bytes: int = Field(description="Its memory.")


class RetrieverState(Answer):
    """The state of one retriever or annotator."""

    name: str
    kind: Literal["retriever", "annotator"]
    state: Literal["loading", "ready", "unavailable"]
    reason: str | None = Field(None, description="Why it is not ready.")
    count: int = Field(description="Images in its index.")
    applied_seq: int = Field(description="The newest change in its index.")
    bytes: int = Field(description="Memory of its index.")
    index: str = Field(description="The kind of index in use.")
    fingerprint: str = Field(description="Names the feature space.")
    extractor: str = Field(description="A file of models/extractors/ or models/annotators/.")
    reads_text: bool = Field(False, description="Whether words can be a query.")
    next: ModelState | None = Field(None, description="The model to switch to.")
    previous: ModelState | None = Field(None, description="The model to switch back to.")
    shards: int = Field(1, description="Number of deployments over which its images are split.")
    replicas: int = Field(0, description="Number of its replicas that run.")
    device: str = Field("cpu", description="Where its model computes: `cpu`, `cuda`, …")
    threads: int = Field(1, description="Pictures and searches that a replica works on at once.")
    tagged: dict[str, TaggedIndexState] | None = Field(
        None, description="By tag, the indexes for keys that are limited to it; not to such a key."
    )


class RetrieverStates(BaseModel):
    retrievers: list[RetrieverState]


class RetrieverOutcome(Answer):
    """Whether a retriever has the image in its index."""

    state: Literal["indexed", "pending"]
    reason: str | None = Field(None, description="Why it is pending.")


class AddAnswer(Answer):
    """An acknowledged, durable add."""

    image_id: int
    seq: int = Field(description="Seq of this change; pass it as `min_seq`.")
    retrievers: dict[str, RetrieverOutcome]
    truncated: bool | None = Field(None, description=TRUNCATED)


class ImageAnswer(BaseModel):
    """Everything that is known of an image."""

    image_id: int
    generation: int
    file_name: str
    source: str
    upload_name: str | None = Field(None, description="The name of the uploaded file.")
    width: int
    height: int
    format: str | None = Field(None, description="The encoding, such as `JPEG`, `HEIC` or `RAW`.")
    bytes: int | None = Field(None, description="Size of the file.")
    taken: str | None = Field(None, description=TAKEN)
    exif_tags: int | None = Field(
        None, description="Number of EXIF tags about the photograph and the camera."
    )
    quality: int | None = Field(
        None, description="Of a JPEG: the quality whose quantisation table is nearest."
    )
    sha256: str
    created: float = Field(description="Seconds since the epoch.")
    metadata: dict[str, Any]
    retrievers: dict[str, RetrieverOutcome]
    annotations: dict[str, Any] = Field(
        description="By annotator: `text`, `tags`, `by` (`machine` or `person`) and details; "
        "pending ones have `state` and `reason`."
    )
    has_thumbnail: bool


class EditedImage(ImageAnswer):
    """An image after an edit."""

    seq: int = Field(description="Seq of this change; pass it as `min_seq`.")


class AnnotationEdit(Options):
    """An annotation written by a person."""

    text: str = Field("", max_length=10_000, description="A caption, or the text in the picture.")
    tags: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list, max_length=200, description="Best first."
    )

    @field_validator("text")
    @classmethod
    def _lines(cls, text: str) -> str:
        return _without_controls(text, "\n\t")

    @field_validator("tags")
    @classmethod
    def _words(cls, tags: list[str]) -> list[str]:
        if not all(tag.strip() for tag in tags):
            raise ValueError("a tag must not be blank")
        return list(dict.fromkeys(_without_controls(tag, "") for tag in tags))

    @model_validator(mode="after")
    def _something(self) -> AnnotationEdit:
        if not self.text.strip() and not self.tags:
            raise ValueError("give text or tags, or null to remove the annotation")
        return self


class ImageEdit(Options):
    """Changes of an image by a person."""

    annotations: dict[Annotated[str, Field(pattern=r"^[\w .-]{1,50}$")], AnnotationEdit | None] = (
        Field(
            default_factory=dict,
            max_length=50,
            description="By annotator, or under any other name: a new annotation, or null to "
            "remove it. Annotators never change what was edited.",
            json_schema_extra={"additionalProperties": False},
        )
    )
    metadata: dict[str, Any] = Field(
        default_factory=dict, description="Keys to set; null removes one. Others stay."
    )


class ImagesToDelete(Options):
    ids: list[Annotated[int, Field(ge=0, le=MAX_IMAGE_ID)]] = Field(min_length=1, max_length=1000)
    remember: bool = Field(
        False, description="Recognise the pictures when they come back, altered too."
    )
    note: str = Field("", max_length=MAX_NOTE, description="Why they were deleted.")


class KeptChanges(Options):
    """How far a system that follows the changes has come."""

    consumer: str = Field(pattern="^[A-Za-z0-9_.-]{1,64}$", description="Its name.")
    after: int = Field(ge=0, le=2**62, description="The `head` that it has read.")


class ImageList(BaseModel):
    images: list[ImageAnswer]
    next_cursor: str | None = None
    total: int = Field(description="Number of images that meet the conditions, on all pages.")


class WordMatch(Answer):
    """Where a query word was found."""

    word: str = Field(description="The query word.")
    how: Literal["exact", "substring", "fuzzy", "sound"] = Field(
        alias="as", description="How it was found."
    )
    found: str = Field(description="The word that was found.")
    source: str = Field(alias="in", description="The annotation it is in.")
    at: tuple[int, int] = Field(description="Start and end in the text or, if given, in the tag.")
    tag: str | None = Field(None, description="The tag it is in.")


class Measures(Answer):
    """What a retriever says of a hit; each kind of retriever has its own fields."""

    distance: float | None = Field(None, description="All but local and text: 0 is nearest.")
    inliers: int | None = Field(None, description="local: keypoints that one homography matches.")
    matches: int | None = Field(None, description="local: matched keypoints.")
    mirrored: bool | None = Field(None, description="Whether the query's mirror image was found.")
    confidence: float | None = Field(
        None, description="Probability of being a true match, not a chance neighbour."
    )
    homography: list[list[float]] | None = Field(
        None, description="local: 3×3, from query to image, in pixels of the gray views."
    )
    points: list[list[float]] | None = Field(
        None, description="local: inliers as query x, query y, image x, image y."
    )
    score: float | None = Field(None, description="text: from 0 to 1.")
    matched: list[WordMatch] | None = Field(
        None, description="text: which query words were found, how, and where."
    )


class RankedMeasures(Measures):
    """A retriever's part in a fused hit."""

    rank: int = Field(ge=0, description="Rank in the retriever's list; 0 is the best.")


class ChangedRegion(BaseModel):
    """A region that differs: x, y, width, height in pixels of both pictures."""

    query: tuple[int, int, int, int]
    image: tuple[int, int, int, int]


class FoldedCopies(BaseModel):
    """Hits that are folded into one, because they are copies of it."""

    count: int = Field(description="Number of hits folded into this one.")
    image_ids: list[int] = Field(description="Their ids, in the order of the answer.")


class FusedRow(Answer):
    """One found image: its fused score, and its rank and measures in each retriever's list."""

    image_id: int
    score: float
    confidence: float | None = Field(
        None, description="Probability of being a true match, not a chance neighbour."
    )
    relation: Literal["same", "edited", "part", "shares", "like"] | None = Field(
        None,
        description="How the query picture and the image relate, by their pixels: `same`, "
        "`edited` and `part` are verified; `shares` has an element in common; `like` has none.",
    )
    changes: list[Literal["mirrored", "turned", "bordered", "negative"]] | None = Field(
        None, description="What happened to a picture that is the same or edited."
    )
    overlap: tuple[float, float] | None = Field(
        None, description="Shares of the query's and the image's area that both show."
    )
    regions: list[ChangedRegion] | None = Field(
        None, description="With `explain`: where they differ."
    )
    width: int | None = Field(None, description="Width in pixels; 0 if it is unknown.")
    height: int | None = Field(None, description="Height in pixels; 0 if it is unknown.")
    format: str | None = Field(None, description="The encoding, such as `JPEG`, `HEIC` or `RAW`.")
    bytes: int | None = Field(None, description="Size of the file.")
    taken: str | None = Field(None, description=TAKEN)
    created: str | None = Field(None, description="When it was added, ISO 8601.")
    file_name: str | None = Field(None, description="`{id}.online`, or the name of its file.")
    copies: FoldedCopies | None = Field(
        None, description="With `collapse`: the hits that are folded into this one."
    )
    retrievers: dict[str, RankedMeasures] = Field(description="By retriever.")


class UnappliedPart(BaseModel):
    """A part of a composed query that the answer does not take into account."""

    part: str = Field(description="The part as it was written.")
    at: tuple[int, int] = Field(description="Where it begins and ends, in characters.")
    reason: str = Field(description="Why it was not applied.")


class SearchResults(BaseModel):
    hits: list[FusedRow]
    next_cursor: str | None = None
    unapplied: list[UnappliedPart] = Field(
        default_factory=list,
        description="Parts of `composed` that no retriever could take into account.",
    )
    truncated: bool = Field(False, description=TRUNCATED)


class RetrieverRow(Measures):
    """One hit of one retriever."""

    image_id: int


class RetrieverResults(BaseModel):
    hits: list[RetrieverRow]
    next_cursor: str | None = None
    truncated: bool = Field(False, description=TRUNCATED)


def _without_controls(text: str, allowed: str) -> str:
    for letter in text:
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in allowed:
            raise ValueError(f"control character U+{ord(letter):04X} is not allowed")
    return text
