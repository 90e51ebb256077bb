"""A new replica beside others is asked only once it can answer; meanwhile they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ray import serve

from deployments.layout import shard_of
from deployments.settings import all_deployed
from deployments.statuses import applications
from deployments.wire import State

LOOK_SECONDS = 0.05
JOINING_SECONDS = 600.0
"""A replica that then still loads says so itself."""


async def wait_beside_others(state: Callable[[], State]) -> None:
    """Beside another replica of its deployment: until this one no longer loads. Beside those of
    another layout, which end when this one has started: until it is ready.

    Serve takes a replica as started when its first health check returns. One that is alone doesn't
    wait, nor any while the service starts: its state tells of it.
    """
    if not all_deployed():
        return
    context = serve.get_replica_context()
    running = await asyncio.to_thread(_running, context.app_name)
    others = any(shard_of(name).of != shard_of(context.deployment).of for name in running)
    if not others and context.deployment not in running:
        return
    enough = {"ready"} if others else {"ready", "unavailable"}
    until = time.monotonic() + JOINING_SECONDS
    while True:
        if state() in enough or time.monotonic() > until:
            return
        await asyncio.sleep(LOOK_SECONDS)


def _running(application: str) -> set[str]:
    """The deployments of an application of which a replica serves."""
    found = applications().get(application, {})
    return {
        name
        for name, deployment in found.get("deployments", {}).items()
        if any(replica["state"] == "RUNNING" for replica in deployment["replicas"])
    }
