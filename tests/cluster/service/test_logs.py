"""The bound on Ray's logs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.service.data_folder import running_service
from cluster.service.logs import LIMIT, bound
from cluster.service.ray_folder import temp_dir
from tests.conftest import kill_service, start_service

KIB = 1024


def disk(files: list[Path]) -> int:
    return sum(path.stat().st_blocks * 512 for path in files if path.is_file())


def written(folder: Path, count: int) -> list[Path]:
    """Write files of 64 KiB, the first one the oldest."""
    files = [folder / f"{number}.log" for number in range(count)]
    for number, path in enumerate(files):
        path.write_bytes(b"x" * 64 * KIB)
        os.utime(path, (number, number))
    return files


def test_the_oldest_files_go_and_those_in_use_are_emptied(tmp_path: Path) -> None:
    files = written(tmp_path, 10)
    bound(files, 300 * KIB, lambda: {str(files[0])})
    assert [path.exists() for path in files] == [True, *[False] * 5, *[True] * 4]
    assert files[0].stat().st_size == 0
    assert disk(files) <= 300 * KIB


def test_nothing_goes_below_the_limit(tmp_path: Path) -> None:
    files = written(tmp_path, 3)
    bound(files, 300 * KIB, lambda: pytest.fail("nothing is too large"))
    assert disk(files) == 3 * 64 * KIB


@pytest.mark.soak
def test_a_service_keeps_its_logs_below_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, str(1024 * KIB))
    service = start_service(tmp_path / "data")
    logs = Path(temp_dir(running_service(service.data).ray_folder)) / "session_latest" / "logs"
    # A worker that writes without end, and what workers of the last weeks have left.
    keep = "import sys, time; f = open(sys.argv[1], 'a', 1); f.write('x' * 2**21); time.sleep(60)"
    environment = os.environ | {"AMBIENCE_SERVICE": str(service.data)}
    worker = subprocess.Popen(
        [sys.executable, "-c", keep, str(logs / "worker-busy.out")], env=environment
    )
    left = written(logs, 20)
    try:
        until = time.monotonic() + 60
        while disk([*logs.rglob("*")]) > 1024 * KIB or any(path.exists() for path in left):
            assert time.monotonic() < until
            time.sleep(0.5)
        assert (logs / "worker-busy.out").exists()
        with service.client() as client:
            assert client.get("/readyz").status_code == 200
    finally:
        worker.kill()
        worker.wait()
        kill_service(service)
