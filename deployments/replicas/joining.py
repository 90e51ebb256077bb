"""A new replica beside others gets calls only once it can answer; until then the others do."""

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
"""A replica that is still loading then answers with its own state."""


async def wait_beside_others(state: Callable[[], State]) -> None:
    """Wait until this replica can take over.

    Beside other replicas of its deployment, it waits until it no longer loads; beside those of
    another layout, which end when this one has started, until it is ready. Serve takes a replica as
    started when its first health check returns. A replica that is alone does not wait, nor does any
    while the service starts, because its state says that it loads.
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
    """Deployments of an application with a running replica."""
    found = applications().get(application, {})
    return {
        name
        for name, deployment in found.get("deployments", {}).items()
        if any(replica["state"] == "RUNNING" for replica in deployment["replicas"])
    }
