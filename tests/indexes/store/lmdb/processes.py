"""Functions that other processes run in the tests of the embedded store."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from indexes.store.lmdb.environment import LmdbOptions
from indexes.store.lmdb.store import LmdbStore
from models.errors import StoreUnavailable
from tests.indexes.pictures import PHASH, picture, row_of
from tests.indexes.store.forks import say


def opened(folder: str, map_size: int = 1 << 30) -> LmdbStore:
    return LmdbStore(Path(folder), LmdbOptions(map_size=map_size))


def add(folder: str, out: str, first: int, count: int, map_size: int, size: int) -> None:
    """Add images with previews of `size` bytes; report each id when it is acknowledged."""
    store = opened(folder, map_size)
    for n in range(first, first + count):
        store.put(picture(n, str(n), preview=bytes(size)))
        say(out, str(n))
    store.close()


def read(folder: str, out: str, map_size: int, seconds: float) -> None:
    """Read the whole log again and again; report wrong rows, and at the end the number of reads."""
    store = opened(folder, map_size)
    until = time.monotonic() + seconds
    looks = 0
    while time.monotonic() < until:
        changes = store.changes(PHASH, 0)
        assert changes is not None
        bad = [at for at, row in changes.rows.items() if row != row_of(str(at))]
        if bad:
            say(out, f"bad {bad}")
        looks += 1
    say(out, f"looks {looks}")
    store.close()


def hold(folder: str, out: str) -> None:
    """Open a scan and keep it open."""
    store = opened(folder)
    with store.scan(PHASH) as scan:
        say(out, f"scan at {scan.head}")
        time.sleep(600)


def write_without_room(folder: str, out: str) -> None:
    """Write under a limit on file size until the store refuses, then again without the limit."""
    store = opened(folder)
    size = os.stat(Path(folder) / "data.mdb").st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 65536, hard))
    try:
        store.put_many([picture(n, str(n), preview=bytes(50_000)) for n in range(100, 110)])
        say(out, "written")
    except StoreUnavailable as exc:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        say(out, f"refused: {exc}")
    say(out, f"count {store.count()}")
    store.put(picture(200, "200"))
    say(out, f"count {store.count()}")
    store.close()


def open_as_nobody(folder: str, out: str) -> None:
    """Open the store as a user who may only read the folder."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        opened(folder).close()
        say(out, "opened")
    except StoreUnavailable as exc:
        say(out, f"refused: {exc}")
