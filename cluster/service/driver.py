"""The driver of a service: Ray on loopback, the applications, until standard input ends.

    python -m cluster.service.driver CONFIG RAY_FOLDER

Started by `cluster.service.supervisor`, in whose environment it runs.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TextIO

import httpx
import ray

from cluster.service.applications import (
    ANNOTATOR,
    INGRESS,
    Deployments,
    apply,
    built_by,
    configured_extractors,
    read_config,
    replaced_shards,
    required_retrievers,
    weightless_retrievers,
)
from cluster.service.data_folder import CannotStart, Running, http_url, service_log, write_running
from cluster.service.local_ray import shared_memory_warning, start_ray
from cluster.service.ray_folder import token_file
from cluster.service.sizing import usual_settings
from cluster.service.terminal import output_in
from deployments.settings import (
    STARTING,
    PlannedApplication,
    PlannedApplications,
    address,
    data_folder,
)
from indexes.registry import index_class
from models.errors import AmbienceError

Reached = Callable[[httpx.Client], str | None]
"""Checks how far the service has come: None when the state is reached, else what is missing."""

START_SECONDS = 300.0
LOOK_SECONDS = 2.0


def run(config_path: Path, folder: str, stop: threading.Event, out: TextIO) -> None:
    """Run the service; prints on `out` when it is ready and when it stops.

    Raises CannotStart when an application fails or nothing is ready in time.
    """
    began = time.monotonic()
    config = read_config(config_path)
    # Ray's own processes take seconds to start; the modules that `apply` needs, with Serve, are
    # imported meanwhile.
    threading.Thread(target=_import_applications, args=(config,), daemon=True).start()
    starting = Path(folder) / "starting"
    starting.write_bytes(PlannedApplications.dump_json(_planned(config)))
    os.environ[STARTING] = str(starting)
    if too_small := shared_memory_warning():
        print(too_small, file=out)
    ray_address = start_ray(folder, namespace="serve")
    host, port = address()
    write_running(data_folder(), Running(os.getppid(), host, port, ray_address, folder))
    try:
        usual = _usual_settings(config)
        # The processes of a replica take seconds of CPU to start. So first come those without
        # which nothing is answered, then those that need no weights, then all.
        for names in _stages(config):
            if not stop.is_set():
                apply(config, names | built_by(INGRESS, config).keys(), usual=usual)
                _wait(_subset(config, names), _all_ready(names), _client(folder), stop)
        if not stop.is_set():
            apply(config, usual=usual)
        starting.unlink()
        _wait(config, _is_ready, _client(folder), stop)
        if not stop.is_set():
            print(_welcome(http_url(host, port), time.monotonic() - began), file=out)
        stop.wait()
        print("Stopping …", file=out)
    finally:
        from ray import serve

        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def redeploy(config: dict[str, Any], ray_address: str) -> None:
    """Apply this config to a running service. Raises CannotStart on failure."""
    ray.init(
        address=ray_address, namespace="serve", log_to_driver=False, logging_level=logging.ERROR
    )
    try:
        usual = _usual_settings(config)
        if old := replaced_shards(config):
            # Serve ends at once what a config no longer names. So both layouts are
            # deployed first, and the new one alone once all new shards are ready
            # (deployments.replicas.joining).
            apply(config, beside=old, usual=usual)
            _until(lambda: _all_run(config), "not everything runs")
        apply(config, usual=usual)
        _until(lambda: _all_run(config), "not everything runs")
    finally:
        ray.shutdown()


def _usual_settings(config: Mapping[str, Any]) -> Deployments:
    """Settings by the size of the Ray that is connected."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return usual_settings(config, resources.get("CPU", 1), resources.get("GPU", 0))


def _until(reached: Callable[[], bool], otherwise: str) -> None:
    """Wait for a condition. Raises CannotStart with the message `otherwise` after START_SECONDS."""
    until = time.monotonic() + START_SECONDS
    while not reached():
        if time.monotonic() > until:
            raise CannotStart(f"{otherwise} after {START_SECONDS:g} s")
        time.sleep(0.2)


def _planned(config: Mapping[str, Any]) -> dict[str, PlannedApplication]:
    """The retrievers and annotators of the config. Raises CannotStart for an unknown one."""
    of_pictures = {name: one.of_pictures for name, one in configured_extractors(config).items()}
    annotators = dict.fromkeys(built_by(ANNOTATOR, config), PlannedApplication(kind="annotator"))
    return annotators | {
        name: PlannedApplication(kind="retriever", of_pictures=pictures)
        for name, pictures in of_pictures.items()
    }


def _stages(config: Mapping[str, Any]) -> list[set[str]]:
    """Retrievers that start before all others, some before the rest."""
    weightless = set(weightless_retrievers(config))
    required = weightless & set(required_retrievers(config))
    return [required, weightless] if required else [weightless]


def _subset(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    chosen = [one for one in config["applications"] if one["name"] in names]
    return config | {"applications": chosen}


def _import_applications(config: dict[str, Any]) -> None:
    for application in config["applications"]:
        with contextlib.suppress(ImportError, KeyError):  # `apply` says what is wrong.
            importlib.import_module(str(application["import_path"]).partition(":")[0])
    with contextlib.suppress(AmbienceError):
        for extractor in weightless_retrievers(config).values():
            index_class(extractor.index)


def _all_run(config: dict[str, Any]) -> bool:
    """Whether every application runs. Raises CannotStart with the message of an application that
    failed."""
    from ray import serve

    applications = serve.status().applications
    for name, application in applications.items():
        if application.status == "DEPLOY_FAILED":
            raise CannotStart(f"application {name} failed: {_last_line(application.message)}")
    names = {application["name"] for application in config["applications"]}
    return all(name in applications and applications[name].status == "RUNNING" for name in names)


def _client(folder: str) -> httpx.Client:
    """A client of the service, with the key of this instance's own commands."""
    headers = {"X-API-Key": token_file(folder).read_text()}
    return httpx.Client(base_url=http_url(*address()), headers=headers, timeout=5)


def _wait(
    config: dict[str, Any], reached: Reached, client: httpx.Client, stop: threading.Event
) -> None:
    """Wait until the state is reached. Raises CannotStart when an application fails or it takes too
    long.

    A retriever without weights does not delay this.
    """
    until = time.monotonic() + START_SECONDS
    look = time.monotonic() + LOOK_SECONDS
    detail = "no answer"
    with client:
        while time.monotonic() < until and not stop.wait(0.2):
            try:
                reason = reached(client)
            except httpx.HTTPError as exc:
                reason = str(exc)
            if reason is None:
                return
            detail = reason
            if time.monotonic() > look:
                _all_run(config)
                look = time.monotonic() + LOOK_SECONDS
    if not stop.is_set():
        raise CannotStart(f"the service is not ready after {START_SECONDS:g} s: {detail}")


def _all_ready(names: Collection[str]) -> Reached:
    """A check that these of the retrievers are ready."""

    def reached(client: httpx.Client) -> str | None:
        rows = client.get("/v1/retrievers").raise_for_status().json()["retrievers"]
        waiting = set(names) - {row["name"] for row in rows if row["state"] == "ready"}
        return f"{', '.join(sorted(waiting))} not ready" if waiting else None

    return reached


def _is_ready(client: httpx.Client) -> str | None:
    answer = client.get("/readyz")
    return None if answer.status_code == 200 else str(answer.json()["detail"])


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
        with output_in(service_log(data_folder())) as terminal:
            run(Path(sys.argv[1]), sys.argv[2], stop, terminal.out)
    except AmbienceError as exc:
        print(f"ambience: {exc}", file=sys.stderr, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
