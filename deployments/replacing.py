"""A replica that takes another's place answers nothing until it can answer as well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ray import serve
from ray.serve._private.common import ReplicaState

from deployments.settings import all_deployed

LOOK_SECONDS = 0.05
WAIT_SECONDS = 120.0
"""Longer than models take to load and indexes to be built; what is fetched may take for ever."""


async def wait_if_replacing(starting: Callable[[], bool]) -> None:
    """While `starting`, if other replicas answer meanwhile: to be awaited before Serve sends calls.

    At a cold start nobody waits: the state tells of the start.
    """
    until = time.monotonic() + WAIT_SECONDS
    waits = all_deployed() and await asyncio.to_thread(_others_answer)
    while waits:
        await asyncio.sleep(LOOK_SECONDS)
        waits = starting() and time.monotonic() < until


def _others_answer() -> bool:
    own = serve.get_replica_context()
    application = serve.status().applications.get(own.app_name)
    deployment = application and application.deployments.get(own.deployment)
    return bool(deployment and deployment.replica_states.get(ReplicaState.RUNNING))
