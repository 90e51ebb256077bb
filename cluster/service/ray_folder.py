"""The folder of a Ray of ours: its sockets and logs, in the system's temporary directory.

Whoever makes one holds a lock on it until its process ends, however that ends. So a folder of our
name that nobody holds is what a killed run has left, and the next start removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PREFIX = "ambience-ray-"
NAME = re.compile(re.escape(PREFIX) + r"\w{8}")
LONGEST_PARENT = 16
REMOVAL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RayFolder:
    path: str
    handle: int
    """Of the folder, locked. A process that inherits it holds the folder, too."""


@contextlib.contextmanager
def ray_folder() -> Iterator[RayFolder]:
    """A new one, removed at the end; those that killed runs have left are removed first."""
    parent = short_tmp()
    remove_abandoned(parent)
    folder = _made(parent)
    try:
        yield folder
    finally:
        _remove(Path(folder.path))
        os.close(folder.handle)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of our name in `parent`, made by this user, that no process holds."""
    for path in parent.glob(f"{PREFIX}*"):
        if NAME.fullmatch(path.name) and (handle := _held(path, wait=False)) is not None:
            if os.fstat(handle).st_uid == os.getuid():
                _remove(path)
            os.close(handle)


def short_tmp() -> Path:
    """The temporary directory, if short: the names of Ray's sockets must stay under 107 bytes."""
    usual = tempfile.gettempdir()
    return Path(usual if len(usual) <= LONGEST_PARENT else "/tmp")


def _made(parent: Path) -> RayFolder:
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        # Another start may have held and removed it before we could lock it.
        if (handle := _held(Path(path), wait=True)) is None:
            continue
        if os.path.exists(path):
            return RayFolder(path, handle)
        os.close(handle)


def _held(path: Path, wait: bool) -> int | None:
    """A handle of the folder with its lock; None where it is no folder, gone, or another's."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle


def _remove(path: Path) -> None:
    """Again and again for a while: Ray's processes may still be writing their last lines."""
    until = time.monotonic() + REMOVAL_SECONDS
    shutil.rmtree(path, ignore_errors=True)
    while path.exists() and time.monotonic() < until:
        time.sleep(0.1)
        shutil.rmtree(path, ignore_errors=True)
