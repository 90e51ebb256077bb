"""The defaults of fused searches."""

from __future__ import annotations

import pytest

from deployments.ingress import defaults
from deployments.ingress.defaults import (
    DefaultsReader,
    FusedDefaults,
    read_defaults,
    write_defaults,
)
from indexes.store.memory.store import MemoryStore
from tests.indexes.store.faults import FailingStore

pytestmark = pytest.mark.anyio


async def test_defaults_are_read_again_and_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "LOOK_SECONDS", 0)
    store = MemoryStore()
    reader = DefaultsReader(store)
    assert await reader.current() == FusedDefaults()
    chosen = FusedDefaults(min_confidence=0.3, weights={"color": 0.25})
    write_defaults(store, chosen)
    assert await reader.current() == chosen
    write_defaults(store, None)
    assert await reader.current() == FusedDefaults()
    assert read_defaults(store) == FusedDefaults()


async def test_a_store_that_cant_be_read_leaves_them_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(defaults, "LOOK_SECONDS", 0)
    store = FailingStore(MemoryStore())
    store.failing = False
    reader, chosen = DefaultsReader(store), FusedDefaults(min_confidence=0.3)
    write_defaults(store, chosen)
    assert await reader.current() == chosen
    store.failing = True
    assert await reader.current() == chosen
