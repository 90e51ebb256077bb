"""The defaults of fused searches: as shipped, or as `ambience evaluate --apply` chose them for this
collection."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Annotated

from pydantic import Field, ValidationError

from indexes.store.base import Store
from indexes.store.records import RecordKey
from models.errors import AmbienceError
from models.types import Options

RECORD = RecordKey("settings", "fused search")
LOOK_SECONDS = 1.0
log = logging.getLogger(__name__)


class FusedDefaults(Options):
    """What a fused search does where its query does not say."""

    min_confidence: float = Field(0.5, ge=0, le=1)
    weights: dict[str, Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    """By retriever; 1 for those that are left out."""


class DefaultsReader:
    """Reads the defaults from the store, at most once in LOOK_SECONDS."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read = FusedDefaults()
        self._next_look = 0.0

    async def current(self) -> FusedDefaults:
        """The defaults; those read last where the store can't be read."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            try:
                self._read = await asyncio.to_thread(read_defaults, self._store)
            except (AmbienceError, ValidationError) as exc:
                log.warning("the defaults of searches stay as they were: %s", exc)
        return self._read


def read_defaults(store: Store) -> FusedDefaults:
    """The stored defaults, or those as shipped."""
    row = store.record(*RECORD)
    return FusedDefaults() if row is None else FusedDefaults.model_validate_json(row)


def write_defaults(store: Store, defaults: FusedDefaults | None) -> None:
    """Store defaults; None goes back to those as shipped."""
    store.write_records({RECORD: None if defaults is None else defaults.model_dump_json().encode()})
