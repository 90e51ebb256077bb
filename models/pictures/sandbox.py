"""Decoding in a child process, which can be killed and whose crash fails only one request.

The child is `python -m models.pictures.sandbox`. Its standard input is a socket to the parent, so
the child ends when the parent is gone. A message has two parts, a JSON object and raw bytes, after
the lengths of both. Messages are not pickled, so a compromised child can't run code in the parent.

The protocol: the parent sends the file; the child answers with the cost in pixels; the parent sends
`go` once the budget allows it; the child answers with the picture.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import (
    BrokenPicture,
    InvalidInput,
    PictureTooLarge,
    Unavailable,
    UnsupportedPicture,
)
from models.pictures.decoding import Picture, read_header
from models.pictures.limits import DecodeLimits
from models.pictures.pixel_budget import PixelBudget
from models.types import FileFacts

_LENGTHS = struct.Struct("<II")
_ERRORS: dict[str, type[InvalidInput]] = {
    error.__name__: error for error in (BrokenPicture, UnsupportedPicture, PictureTooLarge)
}
_FIELD = "image"
_ABOUT = ("width", "height", "format", "truncated")
"""Fields of a Picture that the child sends with its pixels."""
_START_SECONDS = 60.0


class Sandbox:
    """The parent's side of one child, which starts when it is first needed. It is not thread-safe:
    one thread uses it at a time."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return self._process.pid if self._process else None

    def decode(self, data: bytes, budget: PixelBudget) -> Picture:
        """Decode in the child. Raises what `decoding.decode` raises.

        Also raises BrokenPicture when the child crashed or took longer than `child_seconds` (the
        next call then starts another child), and Unavailable when no child can be started.
        """
        if len(data) > self._limits.max_bytes:
            read_header(data, self._limits)
        # A child that is started in between would know nothing of the picture.
        connection = self._connected()
        cost: int = self._exchange(connection, {}, data)[0]["cost"]
        budget.acquire(cost).result()
        try:
            about, pixels = self._exchange(connection, {"go": True})
        finally:
            budget.release(cost)
        full = np.frombuffer(pixels, np.uint8).reshape(about["shape"])
        facts = FileFacts(**about["facts"])
        return Picture(full, **{name: about[name] for name in _ABOUT}, facts=facts)

    def close(self) -> None:
        """Kill the child, if there is one."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()
        if self._socket:
            self._socket.close()
            self._socket = None

    def _exchange(
        self, connection: socket.socket, about: dict[str, Any], payload: bytes = b""
    ) -> tuple[dict[str, Any], bytearray]:
        until = time.monotonic() + self._limits.child_seconds
        try:
            _send(connection, about, payload, until)
            reply = _receive(connection, until)
        except TimeoutError as exc:
            self.close()
            raise BrokenPicture(
                f"decoding took longer than the limit of {self._limits.child_seconds:g} s", _FIELD
            ) from exc
        except ConnectionError as exc:
            reason = self._reap()
            raise BrokenPicture(f"the decoder crashed on this picture ({reason})", _FIELD) from exc
        if "error" in reply[0]:
            raise _ERRORS[reply[0]["error"]](reply[0]["detail"], _FIELD)
        return reply

    def _connected(self) -> socket.socket:
        if self._process and self._process.poll() is not None:
            self.close()
        return self._socket or self._start()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, self._limits.model_dump_json()],
                cwd=Path(__file__).parents[2],
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
            )
        self._socket = ours
        try:
            _receive(ours, time.monotonic() + _START_SECONDS)
        except (TimeoutError, ConnectionError) as exc:
            reason = self._reap()
            raise Unavailable(f"the decoder's process did not start ({reason})") from exc
        return ours

    def _reap(self) -> str:
        process = self._process
        if process is None:
            return "it was closed"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        self.close()
        code = process.returncode
        return f"signal {-code}" if code < 0 else f"exit status {code}"


def _send(
    connection: socket.socket,
    about: dict[str, Any],
    payload: bytes = b"",
    until: float | None = None,
) -> None:
    head = json.dumps(about).encode()
    connection.settimeout(_remaining(until))
    connection.sendall(_LENGTHS.pack(len(head), len(payload)) + head)
    connection.settimeout(_remaining(until))
    connection.sendall(payload)


def _receive(
    connection: socket.socket, until: float | None = None
) -> tuple[dict[str, Any], bytearray]:
    sizes = _LENGTHS.unpack(_receive_exactly(connection, _LENGTHS.size, until))
    head, payload = (_receive_exactly(connection, size, until) for size in sizes)
    return json.loads(head), payload


def _receive_exactly(connection: socket.socket, size: int, until: float | None) -> bytearray:
    received = bytearray(size)
    rest = memoryview(received)
    while rest:
        connection.settimeout(_remaining(until))
        count = connection.recv_into(rest)
        if count == 0:
            raise ConnectionResetError("the other side is gone")
        rest = rest[count:]
    return received


def _remaining(until: float | None) -> float | None:
    return None if until is None else max(until - time.monotonic(), 1e-3)


def _serve(connection: socket.socket, limits: DecodeLimits) -> None:
    _send(connection, {"ready": True})
    while True:
        _, data = _receive(connection)
        try:
            with _alarm(limits):
                header = read_header(bytes(data), limits)
            _send(connection, {"cost": header.cost})
            _receive(connection)
            with _alarm(limits):
                picture = header.decode()
        except tuple(_ERRORS.values()) as exc:
            _send(connection, {"error": type(exc).__name__, "detail": exc.detail})
            continue
        about = {name: getattr(picture, name) for name in _ABOUT}
        about |= {"shape": picture.full.shape, "facts": asdict(header.facts)}
        _send(connection, about, picture.full.tobytes())


@contextlib.contextmanager
def _alarm(limits: DecodeLimits) -> Iterator[None]:
    """End this process if a codec hangs when no parent is left to kill it."""
    signal.setitimer(signal.ITIMER_REAL, 2 * limits.child_seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_memory(limits: DecodeLimits) -> None:
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (now + limits.child_bytes, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Entry point of the child: answer until the parent is gone."""
    # Ctrl-C reaches the whole process group; the parent decides when its children end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limits = DecodeLimits.model_validate_json(sys.argv[1])
    _limit_memory(limits)
    with socket.socket(fileno=0) as connection, contextlib.suppress(ConnectionError):
        _serve(connection, limits)


if __name__ == "__main__":
    main()
