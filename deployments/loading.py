"""Loading a method in the background of a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from models.errors import AmbienceError, RetrieverUnavailable
from models.method import Method

FIRST_RETRY, LAST_RETRY = 2.0, 60.0


async def load_for_ever(
    method: Method,
    run: Callable[[Callable[[], Any]], Awaitable[Any]],
    note: Callable[[str], None],
) -> None:
    """Load, again and again with back-off, until it works; `note` is told why it does not.

    Weights are first looked for on this machine, which takes no time: that they are not here is
    said before fetching them is tried.
    """
    try:
        await run(method.find)
    except RetrieverUnavailable as exc:
        note(str(exc))
    delay = FIRST_RETRY
    while True:
        try:
            await run(method.load)
            return
        except AmbienceError as exc:
            note(str(exc))
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY)
