"""The data folder: one service at a time, and a file that says where that service is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from cluster.service.environment import MARK, PRIVATE
from models.errors import AmbienceError

LEFTOVER_SECONDS = 10.0
OURS = (
    *("store", "snapshots", "trained", "whitening", "compiled", "lock", "service.json"),
    *("ray.log", "ray-job.log", "access.log"),
    *("backfill-bad-files.tsv", "fsck-findings.tsv"),
)
"""What lies in the data folder."""


class CannotStart(AmbienceError):
    """The service can't start; the message says why and what to do."""


class NotRunning(AmbienceError):
    """No service runs over this data folder."""


@dataclass(frozen=True, slots=True)
class Running:
    """The contents of `DATA/service.json`."""

    pid: int
    host: str
    port: int
    ray_address: str
    ray_folder: str

    @property
    def url(self) -> str:
        return http_url(self.host, self.port)


def http_url(host: str, port: int) -> str:
    """The URL for requests; a wildcard host is reached on loopback."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{shown}:{port}"


def make_private(data: Path) -> None:
    """Make the data folder, or tighten an existing one, so that only its owner reads it.

    Says so on standard error where it changes something, or can't. Raises OSError when the folder
    can't be made.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = data.stat()
    if not found.st_mode & PRIVATE:
        return
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    if found.st_uid != os.getuid() or found.st_mode & stat.S_ISVTX:
        # A volume of a container, or a temporary directory.
        said = f"others may open the data folder {data} ({mode}), which is not yours alone"
    else:
        data.chmod(stat.S_IMODE(found.st_mode) & ~PRIVATE)
        ours = [path for name in OURS for path in (data / name, *(data / name).rglob("*"))]
        for path in ours:
            with contextlib.suppress(OSError):
                path.chmod(path.stat().st_mode & ~PRIVATE)
        said = f"the data folder {data} was open to others ({mode}); now only its owner may open it"
    print(f"ambience: {said}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(data: Path, host: str, port: int) -> Iterator[None]:
    """Hold the data folder. Raises CannotStart when it can't be written or another service holds
    it."""
    try:
        make_private(data)
        handle = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise CannotStart(
            f"can't write to the data folder {data} ({exc.strerror}); "
            "choose another with AMBIENCE_DATA, or mend its permissions"
        ) from exc
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise CannotStart(_held_by(data)) from exc
        end_leftovers(data)
        check_port(host, port)
        yield
        (data / "service.json").unlink(missing_ok=True)
    finally:
        os.close(handle)


def service_log(data: Path) -> Path:
    """Ray's output in the service's driver since its last start."""
    return data / "ray.log"


def job_log(data: Path) -> Path:
    """Ray's output in the last job or deployment that was started by hand."""
    return data / "ray-job.log"


def write_running(data: Path, running: Running) -> None:
    """Write where the service is."""
    partial = data / "service.json.partial"
    partial.write_text(json.dumps(asdict(running)))
    partial.rename(data / "service.json")


def running_service(data: Path) -> Running:
    """Where the service over this folder is. Raises NotRunning."""
    try:
        running = Running(**json.loads((data / "service.json").read_text()))
    except (OSError, ValueError, TypeError) as exc:
        raise NotRunning(f"no service runs over {data}; start one with `ambience serve`") from exc
    if not is_alive(running.pid):
        raise NotRunning(f"the service over {data} has ended; start it with `ambience serve`")
    return running


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie, whose parent has not reaped it, does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def has_service(data: Path) -> bool:
    """Whether a service runs over this folder."""
    try:
        running_service(data)
    except NotRunning:
        return False
    return True


def check_port(host: str, port: int) -> None:
    """Raises CannotStart when the port can't be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except (OSError, OverflowError) as exc:
            raise CannotStart(
                f"can't listen on {host}:{port} ({exc}); another program may have it: "
                "choose another port with AMBIENCE_PORT"
            ) from exc


def service_processes(data: Path) -> list[psutil.Process]:
    """Processes of a service over this folder, except this process and its parents."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in mine and process.environ().get(MARK) == str(data):
                found.append(process)
    return found


def end_leftovers(data: Path, patience: float = 0.0) -> int:
    """End what an earlier service over this folder left running. Returns the number of killed
    processes."""
    until = time.monotonic() + patience
    while service_processes(data) and time.monotonic() < until:
        time.sleep(0.05)
    killed = 0
    until = time.monotonic() + LEFTOVER_SECONDS
    while left := service_processes(data):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed += 1
        psutil.wait_procs(left, timeout=1)
        if time.monotonic() > until:
            pids = ", ".join(str(process.pid) for process in left)
            raise CannotStart(f"processes {pids} of an earlier run don't end; end them by hand")
    return killed


def _held_by(data: Path) -> str:
    try:
        running = running_service(data)
    except NotRunning:
        return f"the data folder {data} is in use by another service that is starting or stopping"
    return (
        f"the data folder {data} is in use by the service at {running.url} (pid {running.pid}); "
        "stop it with `ambience stop`, or choose another folder with AMBIENCE_DATA"
    )
