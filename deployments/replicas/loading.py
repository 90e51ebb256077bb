"""Load a method in the background of a replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from models.errors import AmbienceError
from models.method import Method

FIRST_RETRY, LAST_RETRY = 2.0, 60.0


async def load_until_it_works(
    method: Method,
    run: Callable[[Callable[[], Any]], Awaitable[Any]],
    note: Callable[[str | None], None],
) -> None:
    """Find the weights and load; `note` receives the reason why it is unavailable, None while
    loading.

    Weights are first looked for on this machine, which is quick, then fetched, with retries and
    back-off. Between retries it checks whether someone has put them here. The reason given is why
    they can't be fetched, which says more than that they are missing.
    """
    delay, fetch_at, tried = FIRST_RETRY, 0.0, False
    while True:
        fetch, found = tried and time.monotonic() >= fetch_at, False
        try:
            await run(partial(method.find, fetch))
            found = True
            note(None)
            await run(method.load)
            return
        except (AmbienceError, ImportError) as exc:
            if found or fetch or not tried:
                note(reason_of(exc))
            if fetch:
                fetch_at, delay = time.monotonic() + delay, min(2 * delay, LAST_RETRY)
            await asyncio.sleep(FIRST_RETRY if tried else 0)
            tried = True


def reason_of(exc: AmbienceError | ImportError) -> str:
    """The reason as a sentence that says what to do."""
    if isinstance(exc, ImportError):
        return f"{exc}: install the extra that brings it (`neural` or `ocr`)"
    return str(exc)
