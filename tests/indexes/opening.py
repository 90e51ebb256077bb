"""The root of the store contract tests: how a store is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.store.base import Store


class OpeningContract:
    """Subclasses define how a new, empty store is opened; `cap` bounds kept uploads in bytes."""

    def open(self, folder: Path, cap: int = 1 << 20) -> Store:
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = self.open(tmp_path / "store")
        yield store
        store.close()
