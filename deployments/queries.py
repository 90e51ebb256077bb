"""The request bodies of searches."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from deployments.schemas import ImageId, Words
from models.pictures.formats import ENCODING_NAMES
from models.types import Options

MAX_RESULTS = 1000
MAX_QUERIES = 16
ROW_CONDITIONS = frozenset(
    (
        *("formats", "min_width", "min_height", "min_bytes", "max_bytes"),
        *("taken_after", "taken_before", "added_after", "added_before"),
    )
)
"""Conditions of a filter on what image rows hold."""

Sort = Literal["relevance", "newest", "oldest"]


def _encoding(name: object) -> object:
    known = {one.lower(): one for one in ENCODING_NAMES}
    if not isinstance(name, str) or name.strip().lower() not in known:
        raise ValueError(f"no format {str(name)[:50]!r}; there are {', '.join(ENCODING_NAMES)}")
    return known[name.strip().lower()]


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


Encoding = Annotated[
    str,
    BeforeValidator(_encoding),
    WithJsonSchema({"type": "string", "enum": list(ENCODING_NAMES)}),
]
Size = Annotated[int, Field(ge=0, le=2**62)]
Moment = Annotated[datetime, AfterValidator(_utc)]
"""ISO 8601, or a date; without an offset it is UTC."""


class Negative(Options):
    """What hits must be unlike."""

    text: Words | None = Field(
        None, description="Words to avoid; only retrievers with additive vectors use them."
    )
    image_ids: list[ImageId] = Field(
        default_factory=list,
        max_length=1000,
        description="Images that must not be found; retrievers with additive vectors also avoid "
        "similar ones.",
    )
    weight: float = Field(
        1.0,
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="Factor of each negative part's unit vector before it is subtracted.",
    )


class Filter(Options):
    """Only images that meet all conditions are found."""

    ids: list[ImageId] | None = Field(None, max_length=100_000, description="One of these ids.")
    metadata: dict[str, Any] | None = Field(
        None, description="Top-level keys with these values; a stored list may contain the value."
    )
    tags: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None, max_length=100, description="All of these tags."
    )
    formats: list[Encoding] | None = Field(
        None, max_length=len(ENCODING_NAMES), description="One of these encodings, as in `format`."
    )
    min_width: Size | None = Field(None, description="At least so many pixels wide.")
    min_height: Size | None = Field(None, description="At least so many pixels high.")
    min_bytes: Size | None = Field(None, description="Files of at least so many bytes.")
    max_bytes: Size | None = Field(None, description="Files of at most so many bytes.")
    taken_after: Moment | None = Field(None, description="Taken at this moment or later.")
    taken_before: Moment | None = Field(None, description="Taken before this moment.")
    added_after: Moment | None = Field(None, description="Added at this moment or later.")
    added_before: Moment | None = Field(None, description="Added before this moment.")
    larger: bool = Field(
        False, description="Of more pixels than the query picture, or each of several."
    )

    @property
    def of_rows(self) -> bool:
        """Whether there are conditions on what image rows hold, beside `larger`."""
        return any(getattr(self, name) is not None for name in ROW_CONDITIONS)


class SearchQuery(Options):
    """Any mix of uploaded pictures, stored images and text."""

    image_ids: list[ImageId] = Field(
        default_factory=list, max_length=MAX_QUERIES, description="Stored images to search by."
    )
    text: Words | None = Field(None, description="Words to search by.")
    composed: Words | None = Field(
        None,
        description="Words, `-words` to avoid, images (`~123`), tags (`#beach`) and exact texts "
        '(`"trail closed"`) in one line, in place of `text`.',
    )
    negative: Negative = Field(Negative(), description="What hits must be unlike.")
    retrievers: dict[str, Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]] | None = (
        Field(None, min_length=1, description="Retrievers to ask, with weights; default: all, 1.")
    )
    k: int = Field(20, ge=1, le=MAX_RESULTS, description="At most this many hits.")
    min_confidence: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Minimum probability of being a true match; 0 also returns chance neighbours. "
        "Default: 0.5, or what `ambience evaluate --apply` chose.",
    )
    sort: Sort = Field(
        "relevance",
        description="Order of the hits that `min_confidence` leaves: best first, or by the date "
        "taken, else added.",
    )
    collapse: bool = Field(
        False, description="Fold hits that are copies of an earlier hit into that one."
    )
    cursor: str | None = Field(
        None, max_length=200, description="`next_cursor` of the previous page."
    )
    filter: Filter | None = Field(None, description="Only images that meet these conditions.")
    region: tuple[float, float, float, float] | None = Field(
        None, description="x, y, width, height of the part to search by, in upright pixels."
    )
    explain: bool = Field(False, description="Return where local features matched.")
    mirrored: bool = Field(True, description="Also find mirror images.")
    min_seq: int | None = Field(
        None, ge=0, le=2**62, description="Answer no earlier than this change."
    )
    stale_ok: bool = Field(False, description="Do not wait for the newest changes.")

    @model_validator(mode="after")
    def _one_text(self) -> SearchQuery:
        if self.text is not None and self.composed is not None:
            raise ValueError("give text or composed, not both")
        return self


class RetrieverQuery(Options):
    """A search of one retriever; its own parameters stand beside these fields."""

    image_id: ImageId | None = Field(None, description="A stored image to search by.")
    text: Words | None = Field(None, description="Words to search by.")
    filter: Filter | None = Field(None, description="Only images that meet these conditions.")
    variants: Literal["identity", "mirror", "dihedral"] | None = Field(
        None, description="Symmetries of the query picture that are tried."
    )
    mirrored: bool = Field(
        True, description="Also find mirror images (unless `variants` is given)."
    )
    region: tuple[float, float, float, float] | None = Field(
        None, description="x, y, width, height of the part to search by, in upright pixels."
    )
    min_seq: int | None = Field(
        None, ge=0, le=2**62, description="Answer no earlier than this change."
    )
    cursor: str | None = Field(
        None, max_length=200, description="`next_cursor` of the previous page."
    )
