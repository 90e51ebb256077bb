"""The bodies of /v1/duplicates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from deployments.schemas import Answer, ImageId
from indexes.duplicates.best import Criterion
from indexes.duplicates.decisions import MOST_IMAGES, What
from indexes.duplicates.levels import Level
from models.types import Options

SECONDS = "Seconds since the epoch."
Box = Annotated[list[int], Field(min_length=4, max_length=4)]


class PairRegion(BaseModel):
    """A region that differs: x, y, width, height."""

    a: Box = Field(description="In pixels of `a`.")
    b: Box = Field(description="In pixels of `b`.")


class DuplicatePair(Answer):
    """Two images of a group."""

    a: int
    b: int
    level: Level
    relation: str = Field(description="As of a search; `identical` for the same bytes.")
    confidence: float = Field(description="Probability that the relation is a verified one.")
    changes: list[str] | None = Field(None, description="mirrored, turned, bordered, negative.")
    overlap: tuple[float, float] | None = Field(
        None, description="Shares of the areas of `a` and `b` that both show."
    )
    regions: list[PairRegion] | None = Field(None, description="What differs.")
    enlarged: int | None = Field(
        None, description="The one that is the other, only enlarged, as far as previews tell."
    )


class DuplicateImage(Answer):
    """An image of a group."""

    image_id: int
    width: int
    height: int
    bytes: int | None = Field(None, description="Size of its file.")
    format: str | None = None
    taken: str | None = Field(None, description="ISO 8601.")
    created: str = Field(description="When it was added, ISO 8601.")
    sha256: str
    file_name: str
    upload_name: str | None = None
    has_thumbnail: bool
    tags: list[str]
    best: bool
    reasons: list[str] = Field(description="Why it is, or is not, the best.")


class DuplicateGroup(BaseModel):
    """Images of which one can stay, the best first."""

    group_id: str
    level: Level
    bytes: int = Field(description="Bytes to win: of the files of all but the best.")
    images: list[DuplicateImage]
    pairs: list[DuplicatePair]


class LevelCounts(BaseModel):
    level: Level
    groups: int
    images: int
    bytes: int = Field(description="Bytes to win.")


class DuplicateList(BaseModel):
    levels: list[LevelCounts] = Field(description="All levels, the strictest first.")
    groups: list[DuplicateGroup] = Field(
        description="The strictest level first, in it the most bytes to win."
    )
    next_cursor: str | None
    head: int = Field(description="Seq of the log up to which `ambience duplicates` has looked.")
    pending: int = Field(description="Log entries that it has not looked at yet.")


class DecisionRequest(Options):
    """A decision on images, of a group or any others."""

    decision: What = Field(
        description="`delete` all but those to keep; `keep_larger`: delete all but the one with "
        "the most pixels; `keep_all`, `different` (no copies at all) and `alternates` (a stack): "
        "don't show them together again."
    )
    image_ids: list[ImageId] = Field(
        min_length=2,
        max_length=MOST_IMAGES,
        description="All images that are decided on.",
        json_schema_extra={"uniqueItems": True},
    )
    keep: list[ImageId] | None = Field(
        None,
        max_length=MOST_IMAGES,
        description="Of `delete`: those of `image_ids` that stay; default: the best one.",
    )


class DecisionAnswer(Answer):
    """A decision."""

    decision_id: str
    decision: What
    made: float = Field(description=SECONDS)
    by: Literal["person", "rule"]
    image_ids: list[int]
    keep: list[int] = Field(description="Images that stay.")
    deleted: list[int]
    level: Level | None = Field(None, description="Level of the group that was decided on.")
    state: Literal["begun", "done", "undone"]
    restored: dict[str, int] | None = Field(
        None, description="After an undo: the ids under which deleted images are back, by old id."
    )


class DecisionList(BaseModel):
    decisions: list[DecisionAnswer] = Field(description="The newest first.")
    next_cursor: str | None


class LevelRule(BaseModel):
    """What decides a level."""

    level: Level
    meaning: str
    automatic: bool = Field(description="Whether `ambience duplicates --apply` asks nobody.")
    approvals: int = Field(description="Approvals by a person since the last denial.")
    denials: int
    needed: int = Field(description="Approvals without a denial to become automatic.")


class RuleList(BaseModel):
    best: list[Criterion] = Field(description="The first by which pictures differ decides.")
    criteria: dict[Criterion, str] = Field(description="All criteria, with what is better.")
    levels: list[LevelRule]


class RuleEdit(Options):
    """A change of the rule of a level."""

    automatic: bool | None = Field(
        None, description="409 unless there are enough approvals without a denial."
    )
    needed: int | None = Field(None, ge=1, le=10_000, description="Approvals that it takes.")


class BestEdit(Options):
    """Which picture is the best."""

    order: list[Criterion] = Field(
        min_length=1,
        description="The first by which two pictures differ decides.",
        json_schema_extra={"uniqueItems": True},
    )
