"""A service in the foreground: this process holds the data folder, starts the driver and ends
everything.

The driver (`cluster.service.driver`) runs Ray, which takes over signals and can die half-way. This
process imports nothing of Ray, so whatever happens to Ray, it can end the whole service.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from cluster.service import environment
from cluster.service.applications import check_keys, check_spaces, read_config
from cluster.service.data_folder import (
    CannotStart,
    end_leftovers,
    job_log,
    locked,
    running_service,
    service_log,
)
from cluster.service.logs import keep_bounded
from cluster.service.ray_folder import RayFolder, ray_folder, temp_dir, token_file
from cluster.service.terminal import output_in

STOP_SECONDS = 20.0
LOOK_SECONDS = 0.2


@dataclass(slots=True)
class Stop:
    """Set by signal handlers. An Event would not do: the interrupted code may hold its lock."""

    requested: bool = False


def serve(
    config_path: Path, data: Path, host: str, port: int, reindex: bool, no_keys: bool = False
) -> None:
    """Run until SIGINT or SIGTERM. Raises CannotStart with a sentence that says what to do."""
    config = read_config(config_path)
    check_keys(config, _published(host), no_keys)
    stop = Stop()

    def on_signal(_: int, __: FrameType | None) -> None:
        stop.requested = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    with locked(data, host, port):
        environment.prepare(data, host, port)
        check_spaces(config, reindex)
        with ray_folder() as folder:
            environment.use_token(folder.token)
            logs = f"{temp_dir(folder.path)}/session_latest/logs"
            print(f"Starting over {data} (Ray's logs: {logs}) …", flush=True)
            keep_bounded(data, folder.path)
            try:
                _supervise(config_path, folder, stop, service_log(data))
            finally:
                end_leftovers(data)
    print("Stopped.", flush=True)


def deploy(config_path: Path, data: Path, reindex: bool, no_keys: bool = False) -> None:
    """Apply an edited config to the running service; only what changed restarts."""
    running = running_service(data)
    environment.prepare(data, running.host, running.port)
    environment.use_token(token_file(running.ray_folder))
    from cluster.service import driver  # It imports Ray, which reads the environment then.

    config = read_config(config_path)
    check_keys(config, _published(running.host), no_keys)
    check_spaces(config, reindex)
    with output_in(job_log(data)):
        driver.redeploy(config, running.ray_address)


def _published(host: str) -> str:
    """The address at which others reach the service: of a container, that of the published port."""
    return os.environ.get("AMBIENCE_PUBLISHED") or host


def make_was_interrupted() -> bool:
    """Whether `make serve` got a SIGINT that was sent to make alone.

    GNU make then resets its handler and waits for its children without telling them. A make that
    was started with SIGINT ignored, like a script's background job, was not interrupted.
    """
    parent = Path("/proc") / str(os.getppid())
    try:
        if (parent / "comm").read_text().strip() != "make":
            return False
        status = dict(line.split(":\t") for line in (parent / "status").read_text().splitlines())
    except (OSError, ValueError):
        return False
    heeded = int(status["SigCgt"], 16) | int(status["SigIgn"], 16)
    return not heeded & 1 << (signal.SIGINT - 1)


def _supervise(config_path: Path, folder: RayFolder, stop: Stop, log: Path) -> None:
    """Run the driver until it ends or a stop is requested; closing its standard input stops it."""
    log.write_bytes(b"")
    driver = subprocess.Popen(
        [sys.executable, "-m", "cluster.service.driver", str(config_path), folder.path],
        stdin=subprocess.PIPE,
        start_new_session=True,
        pass_fds=[folder.handle],
    )
    while not (stop.requested or make_was_interrupted()):
        time.sleep(LOOK_SECONDS)
        if driver.poll() is not None:
            raise CannotStart(
                f"the service has ended by itself; the lines above, or else {log}, say why"
            )
    assert driver.stdin is not None
    driver.stdin.close()
    try:
        driver.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        driver.kill()
