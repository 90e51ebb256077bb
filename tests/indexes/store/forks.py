"""Processes for tests that kill them, forked from one that has imported everything already.

Run as a module, this file is that process: each line of its input is a JSON list of a function's
name and its arguments.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PR_SET_PDEATHSIG = 1


class Forks:
    """Forks processes that run functions of the test's worker module."""

    def __init__(self, module: str) -> None:
        command = [sys.executable, "-m", "tests.indexes.store.forks", module]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        self._pids: set[int] = set()

    def start(self, function: str, *args: Any) -> int:
        """Start a process and return its id; arguments must be JSON."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([function, args]) + "\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        self._pids.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        """Send SIGKILL and wait until the process is gone."""
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid))
        self._pids.discard(pid)

    def join(self, pid: int, seconds: float = 30) -> None:
        wait_for(lambda: not alive(pid), seconds)
        self._pids.discard(pid)

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        for pid in list(self._pids):
            self.kill(pid)
        self._server.communicate()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.002)


def lines(path: Path) -> list[str]:
    """Return the complete lines of a file that a process is still writing."""
    if not path.exists():
        return []
    return path.read_text().rpartition("\n")[0].splitlines()


def say(path: str, line: str) -> None:
    """Append one line with one write, so that it is complete and outlives a SIGKILL."""
    at = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(at, line.encode() + b"\n")
    os.close(at)


def _serve(module: str) -> None:
    functions = importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run(functions, *json.loads(line))
        print(pid, flush=True)


def _run(functions: Any, function: str, args: list[Any]) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        getattr(functions, function)(*args)
    except BaseException:  # noqa: BLE001 (the process ends here)
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
