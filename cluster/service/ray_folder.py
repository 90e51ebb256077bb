"""The folder of our Ray, with its token, sockets and logs, in the system's temporary directory.

It is its owner's alone, and holds the folder that Ray makes open to everybody.
Its owner holds a lock on it until the process ends, in whatever way. A folder of our name without a
holder was left by a killed run, and the next start removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
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
    """File descriptor of the locked folder. A process that inherits it also holds the folder."""

    @property
    def token(self) -> Path:
        """The file with the word without which our Ray takes no connection."""
        return token_file(self.path)


def token_file(folder: str) -> Path:
    """The token of the Ray in this folder."""
    return Path(folder) / "token"


def temp_dir(folder: str) -> str:
    """The temporary directory of the Ray in this folder, with its logs."""
    return f"{folder}/r"


@contextlib.contextmanager
def ray_folder() -> Iterator[RayFolder]:
    """Make a folder and remove it at the end. Folders that killed runs left are removed first."""
    parent = short_tmp()
    remove_abandoned(parent)
    folder = _made(parent)
    try:
        yield folder
    finally:
        _remove(Path(folder.path))
        os.close(folder.handle)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of our name in `parent` that belong to this user and that no process
    holds."""
    for path in parent.glob(f"{PREFIX}*"):
        if NAME.fullmatch(path.name) and (handle := _held(path, wait=False)) is not None:
            if os.fstat(handle).st_uid == os.getuid():
                _remove(path)
            os.close(handle)


def short_tmp() -> Path:
    """The temporary directory if its name is short: Ray's socket names must stay under 107
    bytes."""
    usual = tempfile.gettempdir()
    return Path(usual if len(usual) <= LONGEST_PARENT else "/tmp")


def _made(parent: Path) -> RayFolder:
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        # Another start may have locked and removed it before we could lock it.
        if (handle := _held(Path(path), wait=True)) is None:
            continue
        if os.path.exists(path):
            made = RayFolder(path, handle)
            made.token.touch(0o600)
            made.token.write_text(secrets.token_hex(32))
            return made
        os.close(handle)


def _held(path: Path, wait: bool) -> int | None:
    """A file descriptor of the locked folder; None where it is no folder, gone, or held by another
    process."""
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
    """Remove a folder, and retry for a while: Ray's processes may still be writing their last
    lines."""
    until = time.monotonic() + REMOVAL_SECONDS
    shutil.rmtree(path, ignore_errors=True)
    while path.exists() and time.monotonic() < until:
        time.sleep(0.1)
        shutil.rmtree(path, ignore_errors=True)
