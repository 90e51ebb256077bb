"""Save snapshots of a replica's index while it answers searches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from indexes.replica.follower import Follower
from indexes.replica.saving import save_if_due
from models.errors import AmbienceError

logger = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
RETRY_SECONDS = 60.0


async def keep_saving(following: Callable[[], Follower]) -> None:
    """Check again and again whether a snapshot is due.

    A snapshot that can't be written now, on a full disk for instance, is retried; searches do not
    need it.
    """
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        follower = following()
        try:
            await asyncio.to_thread(save_if_due, follower)
        except (AmbienceError, OSError) as exc:
            logger.warning("no snapshot of %s was written: %s", follower.space.kind, exc)
            await asyncio.sleep(RETRY_SECONDS)
