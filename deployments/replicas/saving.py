"""Snapshots of a replica's index, written beside its searches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from indexes.replica.follower import Follower
from indexes.replica.saving import keep_snapshot
from models.errors import AmbienceError

logger = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
RETRY_SECONDS = 60.0


async def keep_saving(following: Callable[[], Follower]) -> None:
    """Look again and again whether a snapshot of the follower of now is due.

    What can't be written now, on a full disk for instance, is tried again: searches need none.
    """
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        follower = following()
        try:
            await asyncio.to_thread(keep_snapshot, follower)
        except (AmbienceError, OSError) as exc:
            logger.warning("no snapshot of %s was written: %s", follower.space.kind, exc)
            await asyncio.sleep(RETRY_SECONDS)
