"""Retrievers served in this process, by Serve's deployments and handles without its actors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from ray.serve._private import local_testing_mode
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve._private.replica import UserCallableWrapper
from ray.serve.context import _set_internal_replica_context
from ray.serve.handle import DeploymentHandle

import models.extractors
from deployments.app import build_retriever
from deployments.directory.entry import WORDS_ONLY, DirectoryEntry
from deployments.ingress.gateway import Gateway
from deployments.wire import Description, Kind
from models.types import View

FOLDER = str(Path(__file__).with_name("extractors"))
READY_SECONDS = 30.0
END_SECONDS = 60.0

_replicas: list[UserCallableWrapper] = []
"""Replicas that run in this process."""


@contextmanager
def with_test_extractors() -> Iterator[None]:
    """Make the extractors of `FOLDER` available beside the real ones."""
    models.extractors.__path__.append(FOLDER)
    try:
        yield
    finally:
        models.extractors.__path__.remove(FOLDER)


def write_matrix(path: Path) -> None:
    """Write the weights of `tint`."""
    matrix = np.array([[1, 0, 0, -60], [0, 1, 0, -60], [0, 0, 1, -60], [0, 0, 0, 40]], np.float32)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, matrix)
    partial.rename(path)


def serve_here(name: str, args: dict[str, Any]) -> DeploymentHandle[Any]:
    """Run a retriever's application in this process, on an event loop of its own."""
    return _deploy_here(name, build_retriever(args)._bound_deployment)


def shards_here(name: str, args: dict[str, Any]) -> list[DeploymentHandle[Any]]:
    """Run the shards of a retriever; return their handles in order."""
    root = build_retriever(args)._bound_deployment
    others = [one._bound_deployment for one in root.init_args[1:]]
    return [_deploy_here(name, deployment) for deployment in (root, *others)]


def _deploy_here(name: str, deployment: Any) -> DeploymentHandle[Any]:
    _set_internal_replica_context(
        replica_id=ReplicaID("local", DeploymentID(deployment.name, name)),
        servable_object=None,
        _deployment_config=deployment._deployment_config,
        rank=None,
        world_size=1,
    )
    with mock.patch.object(local_testing_mode, "UserCallableWrapper", _Replica):
        return local_testing_mode.make_local_deployment_handle(deployment, name)


class _Replica(UserCallableWrapper):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _replicas.append(self)


@contextmanager
def ended() -> Iterator[None]:
    """Stop on exit what was served within; Serve's local mode stops nothing by itself."""
    before = len(_replicas)
    try:
        yield
    finally:
        for replica in _replicas[before:]:
            _end(replica)
        del _replicas[before:]


def _end(replica: UserCallableWrapper) -> None:
    loop = replica._user_code_event_loop
    asyncio.run_coroutine_threadsafe(_closed(replica._callable), loop).result(END_SECONDS)
    loop.call_soon_threadsafe(loop.stop)
    replica._user_code_event_loop_thread.join(END_SECONDS)


async def _closed(served: Any) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for model in getattr(served, "models", (served,)):
        if model is not None and model._follower is not None:
            await asyncio.to_thread(model._follower.close)
        if model is not None:
            await asyncio.to_thread(model.store.close)


def description(name: str, kind: Kind = "retriever", view: View = "full") -> Description:
    """Return the description of an application that is ready."""
    return Description(
        name=name,
        kind=kind,
        state="ready",
        reason=None,
        extractor=name,
        options={},
        fingerprint="f",
        view=view,
        place="ingress" if kind == "retriever" else "replica",
        index="",
        count=0,
        bytes=0,
        applied_seq=0,
        verifying=False,
        explains=False,
    )


async def described(handle: DeploymentHandle[Any]) -> Description:
    """Return the application's current description."""
    answer: Description = await handle.describe.remote()
    return answer


async def until(
    handle: DeploymentHandle[Any], state: str, seconds: float = READY_SECONDS
) -> Description:
    """Wait until the application is in this state; return its description."""
    ends = time.monotonic() + seconds
    while (now := await described(handle)).state != state:
        assert time.monotonic() < ends, now
        await asyncio.sleep(0.02)
    return now


async def join(gateway: Gateway, name: str, handle: DeploymentHandle[Any]) -> None:
    """Enter a retriever in the gateway's directory, as if the gateway had followed the statuses."""
    entry = gateway.directory._entries.setdefault(name, DirectoryEntry(name))
    entry.handle = handle
    entry.of_pictures = handle.deployment_name != WORDS_ONLY
    await gateway.directory.describe(entry)


async def join_shards(gateway: Gateway, name: str, handles: list[DeploymentHandle[Any]]) -> None:
    """Enter the shards of a retriever in the gateway's directory."""
    entry = gateway.directory._entries.setdefault(name, DirectoryEntry(name))
    entry.update_from_status([handle.deployment_name for handle in handles], "RUNNING")
    for shard, handle in zip(entry.shards, handles, strict=True):
        shard.handle = handle
    await gateway.directory.describe(entry)
