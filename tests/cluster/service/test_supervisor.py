"""The life cycle of a service with real processes: start, refusals, crashes and stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import yaml

from cluster.service.data_folder import is_alive, running_service, service_processes
from tests.conftest import (
    AMBIENCE,
    Service,
    light_config,
    start_service,
    stop_service,
    wait_all_ready,
)
from tests.drawing import jpeg


def ambience(*arguments: str, data: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an `ambience` command to its end."""
    return subprocess.run(
        [str(AMBIENCE), *arguments],
        env=os.environ | {"AMBIENCE_DATA": str(data), "COLUMNS": "400"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def snapshots(data: Path) -> dict[str, int]:
    """Wait for the snapshot files of all retrievers; return their inode numbers by file name."""
    until = time.monotonic() + 60
    while True:
        found = {path.name: path.stat().st_ino for path in data.glob("snapshots/*.snapshot")}
        if {name.partition("@")[0] for name in found} == {"phash", "color", "local"}:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.1)


def with_keys(folder: Path, **keys: list[str]) -> Path:
    """Write the light configuration with these API keys."""
    config = yaml.safe_load(light_config().read_text())
    for application in config["applications"]:
        if application["name"] == "ambience":
            application["args"] = application.get("args", {}) | keys
    path = folder / "keys.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def said_by(service: Service) -> str:
    """Wait until the service has said that it is ready; return all that it has printed."""
    until = time.monotonic() + 30
    while "ready at" not in service.log.read_text() and time.monotonic() < until:
        time.sleep(0.1)
    return service.log.read_text()


def test_a_taken_port_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = ambience("serve", data=tmp_path / "data", AMBIENCE_PORT=port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "AMBIENCE_PORT" in done.stderr


def test_an_unwritable_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = ambience("serve", data=tmp_path / "file" / "data")
    assert done.returncode == 1
    assert "can't write to the data folder" in done.stderr
    assert "AMBIENCE_DATA" in done.stderr


def test_a_missing_and_a_broken_config_are_refused(tmp_path: Path) -> None:
    missing = ambience("serve", "--config", str(tmp_path / "none.yaml"), data=tmp_path / "data")
    assert missing.returncode == 1
    assert "none.yaml" in missing.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text("applications: [")
    done = ambience("serve", "--config", str(broken), data=tmp_path / "data")
    assert done.returncode == 1
    assert "no YAML" in done.stderr


def test_after_a_kill_everything_is_found_again_and_after_a_stop_nothing_is_left(
    tmp_path: Path, temporary: str
) -> None:
    data = tmp_path / "data"
    service = start_service(data)
    abandoned = Path(running_service(data).ray_folder)
    with service.client() as client:
        for seed in range(3):
            client.put(f"/v1/images/{seed}", files={"image": jpeg(seed)}).raise_for_status()
        written = snapshots(data)
        client.delete("/v1/images/1").raise_for_status()
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait()

    assert abandoned.exists()
    again = start_service(data, "--config", str(with_keys(tmp_path, read_keys=["reader"])))
    again.headers = {"X-API-Key": "reader"}
    try:
        assert httpx.get(f"{again.url}/v1/retrievers").status_code == 401
        wait_all_ready(again)
        assert "ready at" in said_by(again)
        assert list(Path(temporary).iterdir()) == [Path(running_service(data).ray_folder)]
        assert not abandoned.exists()
        assert snapshots(data) == written, "an index did not begin from its snapshot"
        with again.client() as client:
            images = client.get("/v1/images").json()["images"]
            assert [image["image_id"] for image in images] == [0, 2]
            hits = client.post("/v1/search", files={"image": jpeg(2)}).json()["hits"]
            assert hits[0]["image_id"] == 2
        refused = ambience("status", data=data, AMBIENCE_API_KEY="wrong")
        assert "AMBIENCE_API_KEY" in refused.stderr
        for key in ("reader", ""):  # The service's owner needs none.
            shown = ambience("status", data=data, AMBIENCE_API_KEY=key)
            assert shown.returncode == 0, shown.stderr
        assert ambience("stop", data=data).returncode == 0
        assert again.process.wait(30) == 0
    finally:
        stop_service(again)
    assert service_processes(data) == []
    assert list(Path(temporary).iterdir()) == []
    assert not (data / "service.json").exists()
    assert ambience("status", data=data, AMBIENCE_PORT="1").returncode == 4


def test_a_zombie_process_counts_as_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    until = time.monotonic() + 60
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not is_alive(child.pid)
    child.wait()
    assert not is_alive(child.pid)
    assert is_alive(os.getpid())


def test_an_interrupt_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    environment = os.environ | {"AMBIENCE_DATA": str(data), "AMBIENCE_PORT": "0"}
    process = subprocess.Popen([str(AMBIENCE), "serve"], env=environment, start_new_session=True)
    until = time.monotonic() + 60
    while len(service_processes(data)) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert service_processes(data) == []


def under_make(folder: Path, seconds: float, *wrapper: str) -> subprocess.Popen[str]:
    """Run make with a child that watches for `seconds` whether make was interrupted."""
    script = (
        "import time\nfrom cluster.service.supervisor import make_was_interrupted\n"
        "print('up', flush=True)\n"
        f"until = time.monotonic() + {seconds}\n"
        "while not make_was_interrupted() and time.monotonic() < until: time.sleep(0.05)\n"
        "print('noticed' if make_was_interrupted() else 'missed', flush=True)\n"
    )
    (folder / "run.py").write_text(script)
    (folder / "Makefile").write_text(f"run:\n\t@exec {sys.executable} run.py\n")
    make = subprocess.Popen(
        [*wrapper, "make", "-C", str(folder), "run"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert make.stdout is not None
    lines = [make.stdout.readline()]
    while lines[-1] != "up\n":  # make prints its folder first.
        lines.append(make.stdout.readline())
    return make


def test_an_interrupt_sent_to_make_alone_is_noticed(tmp_path: Path) -> None:
    # The tests may themselves run as a background job of a script, with SIGINT ignored.
    heeding = (
        "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    make = under_make(tmp_path, 20, sys.executable, "-c", heeding)
    os.kill(make.pid, signal.SIGINT)
    assert make.stdout is not None
    assert "noticed" in make.stdout.read()
    make.wait(10)


def test_make_in_the_background_of_a_script_was_not_interrupted(tmp_path: Path) -> None:
    """Shells start such jobs with SIGINT ignored."""
    make = under_make(tmp_path, 1, "sh", "-c", 'trap "" INT; exec "$@"', "sh")
    assert make.stdout is not None
    assert "missed" in make.stdout.read()
    assert make.wait(10) == 0
