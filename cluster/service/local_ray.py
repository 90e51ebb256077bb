"""A Ray on this machine that belongs to this process.

Import it after `environment.prepare`, because Ray reads its environment when it is imported.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private.node import Node

from cluster.service.ray_folder import temp_dir
from models.machine import cores

OBJECT_STORE_PER_CORE, LEAST_OBJECT_STORE, MOST_OBJECT_STORE = 128 * 2**20, 256 * 2**20, 4 * 2**30
"""Bytes of shared memory for what processes pass to each other: the pictures of a job's stages."""
SHARED_MEMORY = Path("/dev/shm")
STOP_SECONDS = 5.0


class LeanNode(Node):
    """A node without three of Ray's processes, each of which takes a second of CPU to start and
    then memory, and none of which a service on one host uses.

    Ray has settings for them in `ray start` at most.
    """

    def start_monitor(self) -> None:
        """Start no autoscaler: it adds hosts."""

    def start_log_monitor(self) -> None:
        """Start no reader of log files: it sends the lines to a driver that wants them."""

    def start_api_server(self, **_: object) -> None:
        """Start no server of the dashboard. Without its pages it would only report usage."""


def start_ray(folder: str, namespace: str | None = None) -> str:
    """Start Ray and connect to it. Returns its address.

    A start that times out is retried once: Ray gives its own processes 30 s, which is too little on
    a very busy host.
    """
    try:
        _init(folder, namespace)
    except Exception as exc:
        # Ray has no exception class of its own for this.
        if "timed out during startup" not in str(exc):
            raise
        _init(folder, namespace)
    return str(ray.get_runtime_context().gcs_address)


def shared_memory_warning() -> str | None:
    """A sentence about shared memory that is too small, which Ray replaces by a file."""
    if not SHARED_MEMORY.is_dir():
        return None
    free, wanted = shutil.disk_usage(SHARED_MEMORY).free, LEAST_OBJECT_STORE
    if free >= wanted:
        return None
    return (
        f"{SHARED_MEMORY} has {free >> 20} MiB free, less than the {wanted >> 20} MiB of Ray's "
        "object store, which lies in a file instead and is slower; give a container "
        "`--shm-size 512m`"
    )


def object_store_bytes() -> int:
    """Size of the object store: by the number of cores, but at most half of what is free.

    Ray touches its pages only as they are used.
    """
    wanted = min(MOST_OBJECT_STORE, max(LEAST_OBJECT_STORE, OBJECT_STORE_PER_CORE * cores()))
    free = psutil.virtual_memory().available
    if SHARED_MEMORY.is_dir():
        free = min(free, shutil.disk_usage(SHARED_MEMORY).free)
    return max(LEAST_OBJECT_STORE, min(wanted, free // 2))


def stop_ray() -> None:
    """Disconnect from Ray and end it, including processes that Ray forgets after an interrupted
    start."""
    started = psutil.Process().children(recursive=True)
    ray.shutdown()
    for process in started:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(started, timeout=STOP_SECONDS)


def _init(folder: str, namespace: str | None) -> None:
    with _lean_nodes():
        ray.init(
            num_cpus=max(2, cores()),
            include_dashboard=False,
            object_store_memory=object_store_bytes(),
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace=namespace,
            _temp_dir=temp_dir(folder),
        )


@contextlib.contextmanager
def _lean_nodes() -> Iterator[None]:
    """Let `ray.init` make lean nodes."""
    module: Any = ray._private.node
    module.Node = LeanNode
    try:
        yield
    finally:
        module.Node = Node
