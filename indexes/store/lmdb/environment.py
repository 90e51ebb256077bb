"""LMDB environments, one per process and folder; only this module handles LMDB's errors.

It guards against three pitfalls of LMDB: the map must not change while a transaction of this
process is open; an environment that is opened twice in one process loses its locks; a killed reader
keeps old pages from being reused.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import lmdb
from pydantic import Field

from models.errors import StoreUnavailable
from models.types import Options

T = TypeVar("T")

TABLES = (
    *("meta", "images", "features", "spaces", "log", "originals"),
    *("previews", "metadata", "terms", "names", "pending", "leases", "marks", "claims", "contents"),
    "records",
)
READER_CHECK_SECONDS = 10.0
ATTEMPTS = 64


class LmdbOptions(Options):
    map_size: int = Field(default=256 << 30, ge=1 << 16, multiple_of=4096)
    """Map size in bytes. It reserves address space, not disk: the file grows with its contents."""
    max_map_size: int = Field(default=64 << 40, ge=1 << 16)
    """Maximum map size in bytes; a full map is doubled up to this size."""
    max_readers: int = Field(default=1024, ge=1)
    originals_bytes: int = Field(default=2 << 30, ge=0)
    """Maximum total bytes of originals kept for completion; the oldest are removed first."""
    patience: float = Field(default=30.0, gt=0)
    """Maximum seconds that a change of the map waits for open transactions."""


class Gate:
    """Admits many transactions, or one change of the map while no transaction is open.

    A waiting change blocks new transactions, except while a scan is open: the consumer of that scan
    may need other transactions to finish it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._open_transactions = 0
        self._scans = 0
        self._waiting = 0
        self._exclusive = False

    def enter(self, scan: bool = False) -> None:
        with self._lock:
            while self._exclusive or (self._waiting and not self._scans):
                self._changed.wait()
            self._open_transactions += 1
            self._scans += scan

    def leave(self, scan: bool = False) -> None:
        with self._lock:
            self._open_transactions -= 1
            self._scans -= scan
            if self._waiting:
                self._changed.notify_all()

    @contextmanager
    def exclusive(self, seconds: float) -> Iterator[None]:
        """Hold the gate alone. Raises StoreUnavailable if transactions are open for `seconds`."""
        with self._changed:
            self._waiting += 1
            try:
                if not self._changed.wait_for(
                    lambda: not (self._open_transactions or self._exclusive), seconds
                ):
                    raise StoreUnavailable(
                        f"the store must grow its file, but a scan was open for {seconds:g} s; "
                        "try again when it has ended"
                    )
                self._exclusive = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._exclusive = False
                self._changed.notify_all()


class Environment:
    """Runs transactions, and grows, adopts or reopens the map when LMDB requires it."""

    def __init__(self, folder: Path, options: LmdbOptions) -> None:
        self.folder = folder
        self.options = options
        self.pid = os.getpid()
        self.users = 0
        self.tables: dict[str, lmdb._Database] = {}
        self._gate = Gate()
        self._next_check = 0.0
        self._size = 0
        with self.translated():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._env = self._open()
            self._open_tables()

    def read(self, work: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        """Run `work` in one read transaction; `work` may be called more than once."""
        return self._run(work, write=False)

    def write(self, work: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        """Run `work` in one transaction, which is on disk when this returns; `work` may be called
        more than once."""
        if time.monotonic() >= self._next_check:
            self.free_dead_readers()
        done = self._run(work, write=True)
        if self._file_identity() != self._opened_file:
            # LMDB goes on writing to a removed file, whose contents are lost when it is closed.
            raise StoreUnavailable(
                f"the store {self.folder} was removed or replaced while it was open; this write is "
                "lost: put its folder back and start again"
            )
        return done

    def snapshot(self) -> tuple[lmdb.Transaction[bytes], Callable[[], None]]:
        """Begin a read transaction, which stays open until the returned function is called."""
        txn = self._retried(self._begin_scan)
        ended = threading.Event()

        def close() -> None:
            if not ended.is_set():
                ended.set()
                txn.abort()
                self._gate.leave(scan=True)

        return txn, close

    def copy(self, folder: Path) -> None:
        """Copy the environment as it is now, compactly, to an empty folder, beside its writers."""
        self._gate.enter(scan=True)
        try:
            with self.translated():
                self._env.copy(str(folder), compact=True)
        finally:
            self._gate.leave(scan=True)

    def free_dead_readers(self) -> int:
        """Free the reader slots of dead processes, which keep old pages from being reused.

        Returns the number of freed slots.
        """
        self._next_check = time.monotonic() + READER_CHECK_SECONDS
        return self._retried(self._reader_check)

    def check_process(self) -> None:
        """Raise StoreUnavailable in a forked child.

        A child can neither use nor close the environment: closing it frees the parent's reader
        slots, whose pages are then overwritten while the parent reads them.
        """
        if os.getpid() != self.pid:
            raise StoreUnavailable(
                f"the store {self.folder} was open when this process was forked; start processes "
                "with spawn, or open the store after the fork"
            )

    def close(self) -> None:
        with self._gate.exclusive(self.options.patience):
            self._env.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Translate LMDB's errors to StoreUnavailable with advice."""
        try:
            yield
        except (lmdb.Error, OSError) as exc:
            raise StoreUnavailable(f"the store {self.folder}: {_advice(exc)} ({exc})") from exc

    def _run(self, work: Callable[[lmdb.Transaction[bytes]], T], write: bool) -> T:
        def attempt() -> T:
            self._gate.enter()
            try:
                with self._env.begin(write=write) as txn:
                    return work(txn)
            finally:
                self._gate.leave()

        return self._retried(attempt)

    def _retried(self, attempt: Callable[[], T]) -> T:
        self.check_process()
        for _ in range(ATTEMPTS):
            size = self._size
            try:
                return attempt()
            except lmdb.Error as exc:
                with self.translated():
                    self._recover(exc, size)
        with self.translated():
            return attempt()

    def _recover(self, exc: lmdb.Error, size: int) -> None:
        """Do what LMDB requires before the transaction is retried, or raise the error."""
        if isinstance(exc, lmdb.MapFullError):
            self._grow(size)
        elif isinstance(exc, lmdb.MapResizedError):
            self._adopt()
        elif isinstance(exc, lmdb.PanicError):
            self._reopen()
        elif not (isinstance(exc, lmdb.ReadersFullError) and self._reader_check()):
            raise exc

    def _begin_scan(self) -> lmdb.Transaction[bytes]:
        self._gate.enter(scan=True)
        try:
            return self._env.begin()
        except BaseException:
            self._gate.leave(scan=True)
            raise

    def _reader_check(self) -> int:
        self._gate.enter()
        try:
            return self._env.reader_check()
        finally:
            self._gate.leave()

    def _grow(self, full: int) -> None:
        with self._gate.exclusive(self.options.patience):
            if self._size != full:
                return  # Another thread has already grown it.
            bigger = min(full * 2, self.options.max_map_size)
            if bigger <= full:
                raise StoreUnavailable(
                    f"the store {self.folder} is full at {full} bytes: raise max_map_size"
                )
            self._env.set_mapsize(bigger)
            self._size = bigger

    def _adopt(self) -> None:
        """Adopt the map size that another process has set."""
        with self._gate.exclusive(self.options.patience):
            self._env.set_mapsize(0)
            self._size = self._env.info()["map_size"]

    def _reopen(self) -> None:
        """Reopen the environment, because LMDB refuses all work after a failed write of its meta
        page."""
        with self._gate.exclusive(self.options.patience):
            self._env.close()
            self._env = self._open()
        self._open_tables()

    def _open(self) -> lmdb.Environment:
        env = lmdb.open(
            str(self.folder),
            map_size=self.options.map_size,
            max_readers=self.options.max_readers,
            max_dbs=len(TABLES),
            mode=0o600,
            # Images are read in random order, so read-ahead would only evict
            # other pages.
            readahead=False,
        )
        self._size = env.info()["map_size"]
        self._opened_file = self._file_identity()
        env.reader_check()
        return env

    def file_bytes(self) -> int:
        """What the store's file takes on disk, in bytes."""
        with self.translated():
            return 512 * os.stat(self.folder / "data.mdb").st_blocks

    def _file_identity(self) -> tuple[int, int] | None:
        """Device and inode of the store's file; None if it is gone."""
        try:
            found = os.stat(self.folder / "data.mdb")
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _open_tables(self) -> None:
        def work(txn: lmdb.Transaction[bytes]) -> dict[str, lmdb._Database]:
            return {name: self._env.open_db(name.encode(), txn=txn) for name in TABLES}

        self.tables = self._run(work, write=True)


_OPEN: dict[Path, Environment] = {}
_OPEN_LOCK = threading.Lock()


def acquire(folder: Path, options: LmdbOptions) -> Environment:
    """Return the environment of this folder, which all stores of this process share."""
    path = folder.expanduser().resolve()
    with _OPEN_LOCK:
        found = _OPEN.get(path)
        if found is not None:
            found.check_process()
        else:
            found = _OPEN[path] = Environment(path, options)
        found.users += 1
        return found


def release(environment: Environment) -> None:
    """Release the environment; the release by its last user closes it."""
    with _OPEN_LOCK:
        environment.users -= 1
        if environment.users == 0 and environment.pid == os.getpid():
            del _OPEN[environment.folder]
            environment.close()


def _advice(exc: Exception) -> str:
    advice: dict[type[Exception], str] = {
        lmdb.DiskError: "the disk is full or broken; free space, nothing was written",
        lmdb.ReadonlyError: "no permission to write; check the folder's owner and mount",
        lmdb.LockError: "its lock can't be acquired; the folder must be on a local disk",
        lmdb.MemoryError: "too little address space; lower map_size or raise `ulimit -v`",
        lmdb.ReadersFullError: "too many readers at once; raise max_readers",
        lmdb.TxnFullError: "too much in one write; use smaller batches",
        lmdb.CorruptedError: "the file is damaged; restore a backup",
        lmdb.InvalidError: "data.mdb is not an LMDB file; restore a backup",
        lmdb.VersionMismatchError: "data.mdb was written by another LMDB; use that version",
        PermissionError: "no permission; check the folder's owner",
    }
    known = (text for kind, text in advice.items() if isinstance(exc, kind))
    # A disk that fills up during a write is reported as an input/output error.
    return next(known, "it can't be read or written; is the disk full? nothing was written")
