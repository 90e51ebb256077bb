"""The store in plain dicts fulfils the contract."""

from __future__ import annotations

from pathlib import Path

from indexes.store.base import Store
from indexes.store.memory.store import MemoryStore
from tests.indexes.store.contract import StoreContract


class TestMemoryStore(StoreContract):
    def open(self, folder: Path, cap: int = 1 << 20) -> Store:  # noqa: ARG002
        return MemoryStore(originals_bytes=cap)
