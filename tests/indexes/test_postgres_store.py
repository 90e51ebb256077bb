"""The store for clusters keeps the contract, on a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from indexes.postgres_connections import PostgresOptions
from indexes.postgres_store import PostgresStore
from indexes.store import Store
from tests.indexes.store_contract import StoreContract


class TestPostgresStore(StoreContract):
    @pytest.fixture(autouse=True)
    def databases(self, new_database: Callable[[], str]) -> None:
        self.new_database = new_database

    def open(self, folder: Path, cap: int = 1 << 20) -> Store:  # noqa: ARG002
        return PostgresStore(self.new_database(), PostgresOptions(originals_bytes=cap))
