"""What the rows of images say of their files, as /v1 shows it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from models.types import FileFacts


def facts_row(facts: FileFacts | None) -> dict[str, Any]:
    """The facts of a file; those that are unknown are left out."""
    if facts is None:
        return {}
    row = asdict(facts) | {"taken": None if facts.taken is None else iso_time(facts.taken)}
    return {name: value for name, value in row.items() if value is not None}


def iso_time(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, with milliseconds where there are some."""
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    text = moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
    return text.replace("+00:00", "Z")
