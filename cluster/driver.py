"""The driver of a service: Ray on loopback, the applications, until standard input ends.

    python -m cluster.driver CONFIG RAY_FOLDER

Started by `cluster.service`, in whose environment it runs.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve

from cluster.applications import apply, read_config
from cluster.datafolder import CannotStart, Running, http_url, note
from deployments.settings import address, data_folder
from indexes.registry import index_class, index_names
from models.errors import AmbienceError

START_SECONDS = 300.0
LOOK_SECONDS = 2.0
OBJECT_STORE_BYTES = 256 * 2**20


def run(config_path: Path, folder: str, stop: threading.Event) -> None:
    """Raises CannotStart when an application fails or nothing is ready in time."""
    began = time.monotonic()
    config = read_config(config_path)
    # Ray's own processes take seconds to start; what `apply` needs is imported meanwhile.
    threading.Thread(target=_import_applications, args=(config,), daemon=True).start()
    ray_address = _start_ray(folder)
    host, port = address()
    note(data_folder(), Running(os.getppid(), host, port, ray_address, folder))
    try:
        apply(config)
        _wait_ready(config, http_url(host, port), stop)
        if not stop.is_set():
            print(_welcome(http_url(host, port), time.monotonic() - began), flush=True)
        stop.wait()
        print("Stopping …", flush=True)
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def redeploy(config: dict[str, Any], ray_address: str) -> None:
    """Bring a running service to the state of this config; raises CannotStart when it can't be."""
    ray.init(
        address=ray_address, namespace="serve", log_to_driver=False, logging_level=logging.ERROR
    )
    try:
        apply(config)
        until = time.monotonic() + START_SECONDS
        while not _all_run(config):
            if time.monotonic() > until:
                raise CannotStart(f"not everything runs after {START_SECONDS:g} s")
            time.sleep(0.2)
    finally:
        ray.shutdown()


def _import_applications(config: dict[str, Any]) -> None:
    for application in config["applications"]:
        with contextlib.suppress(ImportError, KeyError):  # `apply` says what is wrong.
            importlib.import_module(str(application["import_path"]).partition(":")[0])
    for name in index_names():
        index_class(name)


def _start_ray(folder: str) -> str:
    ray.init(
        num_cpus=max(2, os.cpu_count() or 2),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="serve",
        _temp_dir=folder,
    )
    return str(ray.get_runtime_context().gcs_address)


def _all_run(config: dict[str, Any]) -> bool:
    """Whether every application runs; raises CannotStart with the message of one that failed."""
    applications = serve.status().applications
    for name, application in applications.items():
        if application.status == "DEPLOY_FAILED":
            raise CannotStart(f"application {name} failed: {_last_line(application.message)}")
    names = {application["name"] for application in config["applications"]}
    return all(name in applications and applications[name].status == "RUNNING" for name in names)


def _wait_ready(config: dict[str, Any], url: str, stop: threading.Event) -> None:
    """Until /readyz says so. A retriever without weights does not hold this up."""
    until = time.monotonic() + START_SECONDS
    look = time.monotonic() + LOOK_SECONDS
    detail = "no answer"
    with httpx.Client(timeout=5) as client:
        while time.monotonic() < until and not stop.wait(0.2):
            try:
                answer = client.get(f"{url}/readyz")
                if answer.status_code == 200:
                    return
                detail = answer.json()["detail"]
            except httpx.HTTPError as exc:
                detail = str(exc)
            if time.monotonic() > look:
                _all_run(config)
                look = time.monotonic() + LOOK_SECONDS
    if not stop.is_set():
        raise CannotStart(f"the service is not ready after {START_SECONDS:g} s: {detail}")


def _welcome(url: str, seconds: float) -> str:
    return f"""
ambience is ready at {url}  ({seconds:.0f} s)

  Open {url} in a browser and choose a picture, or
  index a folder:   .venv/bin/ambience backfill ~/Pictures
  search:           .venv/bin/ambience search some.jpg
  the whole API:    {url}/docs

Ctrl-C stops it.
"""


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _stop_at_end_of_input(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


def main() -> None:
    """Entry point of the driver's process."""
    stop = threading.Event()
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    try:
        run(Path(sys.argv[1]), sys.argv[2], stop)
    except AmbienceError as exc:
        print(f"ambience: {exc}", file=sys.stderr, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
