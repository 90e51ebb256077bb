"""Every error that a caller can meet, with the HTTP status it becomes.

AmbienceError                 500
├── InvalidInput              400   a field is missing, malformed or out of its limits
│   ├── BrokenPicture         400   the bytes are no whole picture
│   ├── UnsupportedPicture    415   a format that is not accepted
│   └── PictureTooLarge       413   more bytes or pixels than the limit
├── UnknownName               404   a retriever, extractor or option that does not exist
├── ImageNotFound             404   no image under that id
├── Conflict                  409   the id holds another picture
│   └── AlreadyIndexed        409   the id has these features already
└── Unavailable               503   try again later
    ├── Overloaded            503   too many requests or pixels in flight
    ├── StoreUnavailable      503   the store can't be read or written
    ├── RetrieverUnavailable  503   no replica, still loading, or its weights can't be had
    ├── SnapshotRejected      503   an index's snapshot is damaged or of something else
    └── DeadlineExceeded      503   no answer within the deadline

All arguments are positional and kept in `args`, so every error survives pickling between processes.
"""

from __future__ import annotations

from typing import ClassVar


class AmbienceError(Exception):
    """Root of all errors: `detail` says what to do, `field` names the request's field at fault."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail, field)
        self.detail = detail
        self.field = field

    def __str__(self) -> str:
        return self.detail


class InvalidInput(AmbienceError):
    status = 400
    title = "Invalid input"


class BrokenPicture(InvalidInput):
    title = "Broken picture"


class UnsupportedPicture(InvalidInput):
    status = 415
    title = "Unsupported picture format"


class PictureTooLarge(InvalidInput):
    status = 413
    title = "Picture too large"


class UnknownName(AmbienceError):
    status = 404
    title = "Unknown name"


class ImageNotFound(AmbienceError):
    status = 404
    title = "Image not found"


class Conflict(AmbienceError):
    status = 409
    title = "Conflict"


class AlreadyIndexed(Conflict):
    title = "Already indexed"


class Unavailable(AmbienceError):
    status = 503
    title = "Unavailable"


class Overloaded(Unavailable):
    title = "Overloaded"


class StoreUnavailable(Unavailable):
    title = "Store unavailable"


class RetrieverUnavailable(Unavailable):
    title = "Retriever unavailable"


class SnapshotRejected(Unavailable):
    title = "Snapshot rejected"


class DeadlineExceeded(Unavailable):
    title = "Deadline exceeded"
