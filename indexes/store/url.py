"""Open a store by its URL."""

from __future__ import annotations

from pathlib import Path

from indexes.store.base import Store
from models.errors import InvalidInput

KNOWN = (
    "known are lmdb:FOLDER (a folder of this host), postgresql://USER:PASSWORD@HOST/DATABASE "
    "and memory: (gone with the process)"
)


def open_store(url: str) -> Store:
    """Open `lmdb:FOLDER`, `postgresql://…` or `memory:`. Raises InvalidInput for any other URL."""
    scheme, _, rest = url.partition(":")
    if scheme == "lmdb" and rest:
        from indexes.store.lmdb.store import LmdbStore

        return LmdbStore(Path(rest))
    if scheme in ("postgresql", "postgres") and rest.startswith("//"):
        from indexes.store.postgres.store import PostgresStore

        return PostgresStore(url)
    if scheme == "memory" and not rest:
        from indexes.store.memory.store import MemoryStore

        return MemoryStore()
    # The rest of the URL is not shown, because it may contain a password.
    raise InvalidInput(f"no store {scheme}:…; {KNOWN}", "store")
