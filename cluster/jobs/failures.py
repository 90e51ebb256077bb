"""Errors of a job's processes, carried to the command as values.

Ray replaces a worker's exception by one of its own, drops the cause on the way, and repeats a
failed construction without end. So workers return their errors, and the command raises them again.
"""

from __future__ import annotations

import errno
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from cluster.service.data_folder import job_log
from models.errors import AmbienceError

DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; free space and run it again",
    errno.EDQUOT: "the disk quota is used up; free space and run it again",
    errno.EROFS: "the disk is read-only; mount it for writing and run it again",
    errno.EIO: "the disk can't be read or written; check it",
}


class UnexpectedFailure(Exception):
    """An error that is not ours, in another process; its last argument is the traceback there."""

    def __init__(self, summary: str, report: str) -> None:
        super().__init__(summary, report)
        self.summary = summary
        self.report = report

    def __str__(self) -> str:
        return f"{self.summary}\n\n{self.report}"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of a worker as a value, which survives pickling."""

    error: AmbienceError | UnexpectedFailure

    @classmethod
    def of(cls, exc: Exception) -> Failure:
        """The failure that an exception is reported as; call it while the exception is handled."""
        known = expected_error(exc)
        return cls(known or UnexpectedFailure(summary_of(exc), traceback.format_exc()))


def expected_error(exc: BaseException) -> AmbienceError | None:
    """The error of ours that an exception is or was raised from, or a full or broken disk's.

    None for any other exception.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [exc]
    while left:
        one = left.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        # Ray's wrappers inherit from what they wrap, but their text is a traceback.
        cause = getattr(one, "cause", None)
        wrapped = cause if isinstance(cause, BaseException) else None
        if wrapped is None and isinstance(one, AmbienceError):
            return one
        if wrapped is None and isinstance(one, OSError) and one.errno in DISK_ERRORS:
            named = f"{one.filename}: " if one.filename else ""
            return AmbienceError(f"{named}{DISK_ERRORS[one.errno]}")
        left += [wrapped, one.__cause__]
    return None


def summary_of(exc: BaseException) -> str:
    """The class of an exception and the first line of its text."""
    if isinstance(exc, UnexpectedFailure):
        return exc.summary
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__


def keep_traceback(exc: Exception, data: Path) -> str:
    """Append the traceback to the job's log. Returns a sentence that says what failed and where
    its traceback is.

    Where the log can't be written, the traceback goes to standard error.
    """
    report = "".join(traceback.format_exception(exc))
    log = job_log(data)
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(report)
    except OSError:
        sys.stderr.write(report)
        return f"unexpected {summary_of(exc)}; {log} can't be written"
    return f"unexpected {summary_of(exc)}; the traceback is in {log}"
