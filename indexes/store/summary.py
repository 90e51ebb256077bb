"""What filters ask of an image row, and what a store takes on disk."""

from __future__ import annotations

from typing import NamedTuple

from models.types import FileFacts


class Summary(NamedTuple):
    """The part of an image row that filters ask for."""

    image_id: int
    width: int
    height: int
    created: float
    """Creation time in seconds since the epoch."""
    facts: FileFacts | None


class Sizes(NamedTuple):
    """What a store takes on disk, in bytes."""

    store: int
    """All of it, also pages that are free for later writes."""
    previews: int
    """The part that holds previews."""
