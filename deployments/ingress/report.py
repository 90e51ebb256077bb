"""The report of a request: who answered, who did not and why, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.requests import Request


@dataclass(slots=True)
class Report:
    """Collected while a request is served, and shown in response headers."""

    answered: set[str] = field(default_factory=set)
    missing: dict[str, str] = field(default_factory=dict)
    """Missing retrievers → reason."""
    seconds: dict[str, float] = field(default_factory=dict)
    stale: bool = False
    truncated: bool = False
    """Whether an uploaded picture is cut short or damaged, and shows only a part."""

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time spent inside to `what`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self.seconds[what] = self.seconds.get(what, 0.0) + spent

    def note_truncated(self) -> dict[str, bool]:
        """The field `truncated` of an answer; none for a picture that is whole."""
        return {"truncated": True} if self.truncated else {}

    def headers(self) -> dict[str, str]:
        """`Server-Timing` (milliseconds), `X-Ambience-Answered`, `-Missing`, `-Stale` and
        `-Truncated`."""
        timing = ", ".join(f"{name};dur={1000 * spent:.1f}" for name, spent in self.seconds.items())
        shown = {"Server-Timing": timing}
        shown["X-Ambience-Answered"] = ",".join(sorted(self.answered - self.missing.keys()))
        if self.missing:
            shown["X-Ambience-Missing"] = ",".join(
                f'{name};reason="{_quoted(reason)}"'
                for name, reason in sorted(self.missing.items())
            )
        if self.stale:
            shown["X-Ambience-Stale"] = "true"
        if self.truncated:
            shown["X-Ambience-Truncated"] = "true"
        return {name: value for name, value in shown.items() if value}


def begin_report(request: Request) -> Report:
    """A request's report; metrics read it after the answer."""
    report = Report()
    request.state.report = report
    return report


def _quoted(reason: str) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in reason)
    plain = plain.encode("ascii", "replace").decode()
    return plain.replace("\\", "\\\\").replace('"', '\\"')
