"""A Ray of this process's own, on this machine.

Import it after `environment.prepare`: Ray reads its environment when it is imported.
"""

from __future__ import annotations

import contextlib
import logging
import os

import psutil
import ray

OBJECT_STORE_BYTES = 256 * 2**20
STOP_SECONDS = 5.0


def start_ray(folder: str, namespace: str | None = None) -> str:
    """Connected to it afterwards; its address.

    Tried twice if need be: Ray gives its own processes 30 s, too few on a host that is very busy.
    """
    try:
        _init(folder, namespace)
    except Exception as exc:
        # It is no class of its own.
        if "timed out during startup" not in str(exc):
            raise
        _init(folder, namespace)
    return str(ray.get_runtime_context().gcs_address)


def stop_ray() -> None:
    """Disconnect from it and end it; after an interrupted start, too, of which Ray forgets some."""
    started = psutil.Process().children(recursive=True)
    ray.shutdown()
    for process in started:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(started, timeout=STOP_SECONDS)


def _init(folder: str, namespace: str | None) -> None:
    ray.init(
        num_cpus=max(2, os.cpu_count() or 2),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace=namespace,
        _temp_dir=folder,
    )
