"""The errors that callers can receive, with the HTTP status of each.

AmbienceError                 500
├── InvalidInput              400   a field is missing, malformed or out of its limits
│   ├── MalformedQuery        400   a composed query, with the position of the character at fault
│   ├── BrokenPicture         400   the file is empty or damaged, or decoding it fails
│   ├── UnsupportedPicture    415   a format that is not accepted
│   └── PictureTooLarge       413   more bytes or pixels than the limit
├── KeyLimited                403   the API key is limited to a tag, which does not allow it
├── UnknownName               404   a retriever, annotator, job, decision, … that does not exist
├── ImageNotFound             404   no image has that id
├── Conflict                  409   the current state does not allow it; the id holds another image
│   ├── AlreadyIndexed        409   the id already has features of this retriever
│   ├── DuplicatePicture      409   the picture is a copy of a stored image
│   └── BannedPicture         409   the picture was deleted to stay away
├── PreconditionFailed        412   the image is not the one that the request names
├── KeyReused                 422   the idempotency key belongs to another picture
└── Unavailable               503   try again later
    ├── Overloaded            503   too many requests or pixels in flight
    ├── StoreUnavailable      503   the store can't be read or written
    ├── RetrieverUnavailable  503   no replica, still loading, or its weights are missing
    ├── SnapshotRejected      503   a snapshot is damaged or does not match the index or the store
    └── DeadlineExceeded      503   no answer within the deadline

All arguments are positional and kept in `args`, so every error survives pickling between processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class AmbienceError(Exception):
    """Root of all errors: `detail` says what to do, `field` names the invalid request field."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail, field)
        self.detail = detail
        self.field = field

    def __str__(self) -> str:
        return self.detail


class InvalidInput(AmbienceError):
    """A field is missing, malformed or out of its limits: `field` names it."""

    status = 400
    title = "Invalid input"


def invalid_field(
    errors: Sequence[Mapping[str, Any]], inside: str | None = None, whole: str = "body"
) -> InvalidInput:
    """The first of pydantic's validation errors.

    An error that names no field counts to the field `inside`, else its sentence names the `whole`.
    """
    first = errors[0]
    field = ".".join(str(part) for part in first["loc"]) or inside
    sentence = str(first["msg"]).removeprefix("Value error, ")
    return InvalidInput(f"{field or whole}: {sentence}", field)


class MalformedQuery(InvalidInput):
    """A composed query can't be read: `position` counts the characters before the one at fault."""

    title = "Malformed query"

    def __init__(self, detail: str, field: str | None = None, position: int = 0) -> None:
        super().__init__(detail, field)
        self.args = (detail, field, position)
        self.position = position


class BrokenPicture(InvalidInput):
    """The file is empty or damaged, or decoding it fails: send another file."""

    title = "Broken picture"


class UnsupportedPicture(InvalidInput):
    """The file's format is not accepted: convert it, to JPEG for example."""

    status = 415
    title = "Unsupported picture format"


class PictureTooLarge(InvalidInput):
    """The file has more bytes or pixels than the limit: send a smaller one."""

    status = 413
    title = "Picture too large"


class KeyLimited(AmbienceError):
    """The API key is limited to the images with a tag, and the request goes beyond them: send
    another key, or leave out what `field` names."""

    status = 403
    title = "Key is limited"


class UnknownName(AmbienceError):
    """Nothing of this kind has this name: `detail` lists the known ones, if they are few."""

    status = 404
    title = "Unknown name"


class ImageNotFound(AmbienceError):
    """No image has this id, or it lacks what was asked for."""

    status = 404
    title = "Image not found"


class Conflict(AmbienceError):
    """The current state does not allow it: the id holds another picture, or the image changed
    meanwhile."""

    status = 409
    title = "Conflict"


class AlreadyIndexed(Conflict):
    """The id already has features of this retriever: delete them first."""

    title = "Already indexed"


class DuplicatePicture(Conflict):
    """The picture is a copy of the stored image that `image_id` names."""

    title = "Duplicate picture"

    def __init__(self, detail: str, field: str | None = None, image_id: int | None = None) -> None:
        super().__init__(detail, field)
        self.args = (detail, field, image_id)
        self.image_id = image_id


class BannedPicture(Conflict):
    """The picture, or one that it is a copy of, was deleted with `remember`: `GET /v1/tombstones`
    lists such pictures."""

    title = "Banned picture"


class PreconditionFailed(AmbienceError):
    """The image is not the one that `If-Match` or `If-None-Match` names: read it again."""

    status = 412
    title = "Precondition failed"


class KeyReused(AmbienceError):
    """The idempotency key belongs to another picture: use a new key for each picture."""

    status = 422
    title = "Idempotency key reused"


class Unavailable(AmbienceError):
    """The service can't answer now: try again after `Retry-After` seconds."""

    status = 503
    title = "Unavailable"


class Overloaded(Unavailable):
    """Too many requests or pixels are in flight: try again after `Retry-After` seconds."""

    title = "Overloaded"


class StoreUnavailable(Unavailable):
    """The store can't be read or written: try again after `Retry-After` seconds."""

    title = "Store unavailable"


class RetrieverUnavailable(Unavailable):
    """The retriever has no replica, still loads, or lacks its weights: `GET /v1/retrievers`
    says why."""

    title = "Retriever unavailable"


class SnapshotRejected(Unavailable):
    """A snapshot is damaged or does not match the index or the store: the index is rebuilt."""

    title = "Snapshot rejected"


class DeadlineExceeded(Unavailable):
    """There was no answer within the deadline: try again, or ask fewer retrievers."""

    title = "Deadline exceeded"
