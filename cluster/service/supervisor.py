"""A service in the foreground. This process holds the data folder, starts the driver and ends all.

The driver (`cluster.service.driver`) runs Ray, which takes over signals and can die half-way. This
process imports nothing of Ray, so whatever happens to Ray, it can end the whole service.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from cluster.service import environment
from cluster.service.applications import check_spaces, read_config
from cluster.service.data_folder import CannotStart, end_leftovers, locked, running_service

STOP_SECONDS = 20.0
LOOK_SECONDS = 0.2


@dataclass(slots=True)
class Stop:
    """Set by signal handlers: an Event's lock may be held by the very code that they interrupt."""

    asked: bool = False


def serve(config_path: Path, data: Path, host: str, port: int, reindex: bool) -> None:
    """Run until SIGINT or SIGTERM. Raises CannotStart with a sentence that says what to do."""
    config = read_config(config_path)
    stop = Stop()

    def on_signal(_: int, __: FrameType | None) -> None:
        stop.asked = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    with locked(data, host, port):
        environment.prepare(data, host, port)
        check_spaces(config, reindex)
        folder = tempfile.mkdtemp(prefix="ambience-", dir=_short_tmp())
        print(f"Starting over {data} (Ray's logs: {folder}) …", flush=True)
        try:
            _supervise(config_path, folder, stop)
        finally:
            end_leftovers(data)
            shutil.rmtree(folder, ignore_errors=True)
    print("Stopped.", flush=True)


def deploy(config_path: Path, data: Path, reindex: bool) -> None:
    """Bring the running service to the state of an edited config; only what changed restarts."""
    running = running_service(data)
    environment.prepare(data, running.host, running.port)
    from cluster.service import driver  # It imports Ray, which reads the environment then.

    config = read_config(config_path)
    check_spaces(config, reindex)
    driver.redeploy(config, running.ray_address)


def make_was_interrupted() -> bool:
    """Whether `make serve` got a SIGINT that was sent to make alone.

    GNU make then resets its handler and waits for its children without telling them. One that
    was begun with SIGINT ignored, as a script's background jobs are, was not interrupted.
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


def _supervise(config_path: Path, folder: str, stop: Stop) -> None:
    """Run the driver until it ends or a stop is asked for; the end of its input stops it."""
    driver = subprocess.Popen(
        [sys.executable, "-m", "cluster.service.driver", str(config_path), folder],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    while not (stop.asked or make_was_interrupted()):
        time.sleep(LOOK_SECONDS)
        if driver.poll() is not None:
            raise CannotStart("the service has ended by itself; the lines above say why")
    assert driver.stdin is not None
    driver.stdin.close()
    try:
        driver.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        driver.kill()


def _short_tmp() -> str:
    """Ray's socket names must stay under 107 bytes."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 20 else "/tmp"
