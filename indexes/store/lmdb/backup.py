"""Backups of an LMDB store, taken beside its readers and writers."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lmdb

from indexes.store.lmdb.environment import TABLES, LmdbOptions, acquire, release
from indexes.store.lmdb.rows import BACKUP, Reader, number
from models.errors import InvalidInput, StoreUnavailable

FILE = "data.mdb"
STEP = 1000
"""Rows that are read back between two words of progress."""


@dataclass(frozen=True, slots=True)
class BackupState:
    """What a backup holds."""

    layout: int
    head: int
    """The newest seq."""
    images: int
    sha256: str
    """Of its file."""


def back_up(
    folder: Path, target: Path, progress: Callable[[int], None] = lambda _: None
) -> BackupState:
    """Copy the store in `folder` to the new folder `target`, and read the copy back.

    `progress` receives the number of images read back, and may raise to end. Raises InvalidInput
    where there is no store, or something in the way.
    """
    if not (folder / FILE).exists():
        raise InvalidInput(f"there is no store in {folder}")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise InvalidInput(f"{target} is not empty")
    environment = acquire(folder, LmdbOptions())
    try:
        environment.copy(target)
    finally:
        release(environment)
    with lmdb.open(str(target), max_dbs=len(TABLES), map_size=2**40, mode=0o600) as env:
        meta = env.open_db(b"meta", create=False)
        with env.begin(write=True) as txn:
            txn.put(BACKUP, number(1), db=meta)
    (target / "lock.mdb").unlink()
    return _read_back(target, progress)


def check(backup: Path, sha256: str) -> None:
    """Raises StoreUnavailable unless the backup's file is whole and as it was made.

    LMDB itself would crash on a damaged file.
    """
    try:
        found = _sha256(backup / FILE)
    except OSError as exc:
        raise StoreUnavailable(f"{backup} holds no backup: {exc.strerror}") from exc
    if found != sha256:
        raise StoreUnavailable(f"the backup in {backup} is damaged, or was changed")


def restore(backup: Path, folder: Path) -> None:
    """Put a backup in the place of the store in `folder`, which nobody may have open."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = folder / f"{FILE}.partial"
    with (backup / FILE).open("rb") as source, partial.open("wb") as file:
        shutil.copyfileobj(source, file, 2**20)
        file.flush()
        os.fsync(file.fileno())
    partial.chmod(0o600)
    (folder / "lock.mdb").unlink(missing_ok=True)
    partial.replace(folder / FILE)


def _read_back(folder: Path, progress: Callable[[int], None]) -> BackupState:
    """Read all of a backup that was just made."""
    images = 0
    with lmdb.open(str(folder), max_dbs=len(TABLES), readonly=True, lock=False) as env:
        tables = {name: env.open_db(name.encode(), create=False) for name in TABLES}
        with env.begin() as txn:
            for name in TABLES:
                for read, _ in enumerate(txn.cursor(db=tables[name]), 1):
                    if name == "images":
                        images = read
                    if read % STEP == 0:
                        progress(images)
            reader = Reader(txn, tables)
            layout, head = reader.meta(b"schema"), reader.meta(b"seq")
    return BackupState(layout, head, images, _sha256(folder / FILE))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
