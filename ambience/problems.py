"""The errors of the client.

ClientError
├── ServiceUnreachable        no answer: no connection, or a time-out
└── Problem                   the service refused, or failed: an answer of application/problem+json
    ├── InvalidInput          400   a field is missing, malformed or out of its limits
    │   ├── MalformedQuery    400   a composed query; `position` says where
    │   ├── BrokenPicture     400
    │   ├── UnsupportedPicture 415
    │   └── PictureTooLarge   413
    ├── Forbidden             401   a key is needed, or another one
    ├── ForeignOrigin         403
    ├── UnknownHost           403
    ├── KeyLimited            403   the key is limited to a tag, which does not allow it
    ├── UnknownName           404   a retriever or annotator that does not exist
    ├── ImageNotFound         404
    ├── SlowUpload            408
    ├── Conflict              409
    │   ├── AlreadyIndexed    409
    │   ├── BannedPicture     409   it was deleted to stay away
    │   └── DuplicatePicture  409   `image_id` names the image of which the picture is a copy
    ├── ChangesGone           410   the log no longer reaches back so far
    ├── PreconditionFailed    412   the image has changed since
    ├── KeyReused             422   the idempotency key belongs to another picture
    ├── TooManyRequests       429
    └── Unavailable           503   try again later
        ├── Overloaded        503
        ├── StoreUnavailable  503
        ├── RetrieverUnavailable 503
        ├── SnapshotRejected  503
        └── DeadlineExceeded  503
"""

from __future__ import annotations

import re
from typing import Any

import httpx

PREFIX = "/problems/"


class ClientError(Exception):
    """Root of the client's errors."""


class ServiceUnreachable(ClientError):
    """No answer from the service."""


class Problem(ClientError):
    """An error that the service answered (RFC 9457)."""

    def __init__(self, status: int, title: str, detail: str, **members: Any) -> None:
        super().__init__(status, title, detail)
        self.status = status
        self.title = title
        self.detail = detail
        """What was wrong, and what to do."""
        self.type: str = members.get("type", "about:blank")
        self.field: str | None = members.get("field")
        """The request's field at fault."""
        self.image_id: int | None = members.get("image_id")
        """The stored image of which the picture is a copy."""
        self.position: int | None = members.get("position")
        """Of a composed query: number of characters before the one at fault."""

    def __str__(self) -> str:
        return self.detail


class InvalidInput(Problem): ...


class MalformedQuery(InvalidInput): ...


class BrokenPicture(InvalidInput): ...


class UnsupportedPicture(InvalidInput): ...


class PictureTooLarge(InvalidInput): ...


class Forbidden(Problem): ...


class ForeignOrigin(Problem): ...


class UnknownHost(Problem): ...


class KeyLimited(Problem): ...


class UnknownName(Problem): ...


class ImageNotFound(Problem): ...


class SlowUpload(Problem): ...


class Conflict(Problem): ...


class AlreadyIndexed(Conflict): ...


class BannedPicture(Conflict): ...


class DuplicatePicture(Conflict): ...


class ChangesGone(Problem): ...


class PreconditionFailed(Problem): ...


class KeyReused(Problem): ...


class TooManyRequests(Problem): ...


class Unavailable(Problem): ...


class Overloaded(Unavailable): ...


class StoreUnavailable(Unavailable): ...


class RetrieverUnavailable(Unavailable): ...


class SnapshotRejected(Unavailable): ...


class DeadlineExceeded(Unavailable): ...


def _by_type(kind: type[Problem]) -> dict[str, type[Problem]]:
    found = {PREFIX + re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower(): kind}
    for below in kind.__subclasses__():
        found |= _by_type(below)
    return found


KINDS = _by_type(Problem)
"""The classes of problems by their `type`; another type is a plain Problem."""


def problem_of(answer: httpx.Response) -> Problem:
    """The error that an answer of 400 or more stands for, also one of a proxy in between."""
    try:
        said = answer.json()
    except ValueError:
        said = {}
    if not isinstance(said, dict):
        said = {}
    status, title = answer.status_code, str(said.pop("title", answer.reason_phrase))
    detail = str(said.pop("detail", "") or f"{status} {answer.text[:200]}".strip())
    said.pop("status", None)
    return KINDS.get(str(said.get("type")), Problem)(status, title, detail, **said)
