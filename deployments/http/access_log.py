"""The access log: one line a request, in a file that all ingress replicas of a host share."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import logging.handlers
import time
from pathlib import Path
from typing import Any, Literal

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.http.answers import watched

Style = Literal["off", "text", "json"]
KEPT = 3
"""Files of earlier lines: `.1` is the latest."""
LEFT_OUT = frozenset({"/healthz", "/readyz", "/metrics"})
log = logging.getLogger("ambience.access")


class SharedRotatingFile(logging.handlers.WatchedFileHandler):
    """Appends to a file that other processes append to, and that any of them rotates."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__(path, delay=True, encoding="utf-8")
        self.path = path
        self.max_bytes = max_bytes

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line; errors of the disk cost the line only."""
        with contextlib.suppress(OSError):
            if self.path.exists() and self.path.stat().st_size >= self.max_bytes:
                self._rotate()
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk must not fail requests."""

    def _rotate(self) -> None:
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Another process may have rotated it while this one waited.
            if self.path.stat().st_size < self.max_bytes:
                return
            for number in range(KEPT, 0, -1):
                earlier = self.path if number == 1 else self._numbered(number - 1)
                if earlier.exists():
                    earlier.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


class AccessLog:
    """Middleware that writes method, path, status, milliseconds and the name of the key."""

    def __init__(self, app: ASGIApp, style: Style, path: Path, max_bytes: int) -> None:
        self.app = app
        self._write = _json if style == "json" else _text
        self._handler = SharedRotatingFile(path, max_bytes) if style != "off" else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._handler is None or scope["path"] in LEFT_OUT:
            await self.app(scope, receive, send)
            return
        handler, state = self._handler, scope.setdefault("state", {})

        def note(status: int, seconds: float) -> None:
            line = self._write(_entry(scope, state, status, seconds))
            handler.handle(logging.makeLogRecord({"name": log.name, "msg": line}))

        await watched(self.app, scope, receive, send, note)


def _entry(scope: Scope, state: dict[str, Any], status: int, spent: float) -> dict[str, Any]:
    now, (peer, *_) = time.time(), scope.get("client") or ("-",)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    # As it was sent, percent-encoded: it can't hold a line break.
    path = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
    entry = {
        "time": f"{moment}.{int(now % 1 * 1000):03d}Z",
        "client": state.get("client", peer),
        "method": scope["method"],
        "path": path.decode("ascii", "backslashreplace"),
        "status": status,
        "ms": round(1000 * spent, 1),
    }
    if "report" in state:
        seconds = state["report"].seconds
        entry["retrievers"] = {name: round(1000 * one, 1) for name, one in seconds.items()}
    if "key" in state:
        entry["key"] = state["key"]
    return entry


def _json(entry: dict[str, Any]) -> str:
    return orjson.dumps(entry).decode()


def _text(entry: dict[str, Any]) -> str:
    shown = "{time} {client} {method} {path} {status} {ms}ms".format(**entry)
    for name, spent in entry.get("retrievers", {}).items():
        shown += f" {name}={spent}"
    return f"{shown} key={entry['key']}" if "key" in entry else shown
