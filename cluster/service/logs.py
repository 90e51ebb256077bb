"""Bounds what Ray's logs take on disk: over weeks, each new worker and replica begins new files."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from cluster.service.data_folder import job_log, service_log, service_processes
from cluster.service.ray_folder import temp_dir

LIMIT = "AMBIENCE_LOG_BYTES"
"""Environment variable: bytes that all logs of Ray may take."""
DEFAULT_LIMIT = 256 * 2**20
LOOK_SECONDS = 10.0


def keep_bounded(data: Path, folder: str) -> None:
    """Bound the logs of the service over `data`, in a thread that ends with this process."""
    limit = int(os.environ.get(LIMIT, DEFAULT_LIMIT))

    def work() -> None:
        waiting = threading.Event()
        while not waiting.wait(LOOK_SECONDS):
            sessions = Path(temp_dir(folder)).glob("session_2*/logs")
            files = [path for session in sessions for path in session.rglob("*")]
            bound([*files, service_log(data), job_log(data)], limit, lambda: _open_files(data))

    threading.Thread(target=work, daemon=True, name="logs").start()


def bound(files: Iterable[Path], limit: int, open_files: Callable[[], set[str]]) -> None:
    """Remove the oldest of these files until the others take no more than `limit` bytes of disk.

    Those that a process has open are emptied instead.
    """
    found = []
    for path in files:
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_blocks * 512, path))
    excess = sum(size for _, size, _ in found) - limit
    if excess <= 0:
        return
    used = open_files()
    for _, size, path in sorted(found):
        if excess <= 0:
            return
        with contextlib.suppress(OSError):
            if str(path) in used:
                os.truncate(path, 0)
            else:
                path.unlink()
            excess -= size


def _open_files(data: Path) -> set[str]:
    """Paths of the files that the processes of the service have open."""
    found = set()
    for process in [*service_processes(data)]:
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found.add(str(handle.readlink()))
    return found
