"""The root of the store's contract: how a store is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.store.base import Store


class OpeningContract:
    """Subclasses say how a new, empty store is opened; `cap` is its room for kept uploads."""

    def open(self, folder: Path, cap: int = 1 << 20) -> Store:
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = self.open(tmp_path / "store")
        yield store
        store.close()
