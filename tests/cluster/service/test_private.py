"""What other users of the machine can read and reach of a service, and where it runs at all."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cluster.service.data_folder import make_private, running_service
from cluster.service.environment import RAY_ENVIRONMENT
from cluster.service.ray_folder import temp_dir, token_file
from tests.cluster.jobs.test_backfill import backfill, fill
from tests.conftest import Service, kill_service, light_config, start_service
from tests.drawing import jpeg

JOIN = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
@ray.remote
def touch(path): open(path, "w").close()
ray.get(touch.remote(sys.argv[2]))
"""
NOBODY = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without HOME, with few open files, over an old folder with an odd name."""
    data = tmp_path_factory.mktemp("Fotos für alle · 写真") / "data"
    (data / "snapshots").mkdir(parents=True)
    data.chmod(0o755)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HOME", raising=False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limit[1]))
        try:
            service = start_service(data, "--config", str(light_config("phash")))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    with service.client() as client:
        client.put("/v1/images/1", files={"image": jpeg(1)}).raise_for_status()
    yield service
    kill_service(service)


def test_an_open_data_folder_is_tightened_with_a_line(service: Service) -> None:
    assert mode(service.data) == 0o700
    assert "was open to others (0755)" in service.log.read_text()


def test_nobody_else_can_open_a_file_of_the_service(service: Service, tmp_path: Path) -> None:
    fill(tmp_path, 2, first=10)
    assert backfill(tmp_path, service.data)["indexed"] == 2
    files = [path for path in service.data.rglob("*") if not path.is_symlink()]
    assert len(files) > 5
    assert {str(path): oct(mode(path)) for path in files if mode(path) & 0o077} == {}
    folder = Path(running_service(service.data).ray_folder)
    assert mode(folder) == 0o700
    assert mode(token_file(str(folder))) == 0o600
    assert (Path(temp_dir(str(folder))) / "session_latest" / "logs").is_dir()


def join(address: str, made: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code through the Ray at this address, as another user where that is possible."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    plain["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Else it would not look on loopback.
    other = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return subprocess.run(
        [*(other if os.getuid() == 0 else []), sys.executable, "-c", JOIN, address, str(made)],
        env=plain
        | {"HOME": "/nonexistent", "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
        | environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


WITHOUT_THE_TOKEN: tuple[dict[str, str], ...] = (
    {},
    {"RAY_AUTH_MODE": "disabled"},
    {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-guess-of-many-letters-0123456789"},
)


def test_who_lacks_the_token_runs_no_code(service: Service, tmp_path: Path) -> None:
    address, made = running_service(service.data).ray_address, tmp_path / "made"
    # Each waits for long until it gives up.
    with ThreadPoolExecutor() as threads:
        tries = threads.map(lambda given: join(address, made, **given), WITHOUT_THE_TOKEN)
    for refused in tries:
        assert refused.returncode != 0
        assert "oken" in refused.stderr or "Unauthenticated" in refused.stderr, refused.stderr
    assert not made.exists()


def test_the_owner_runs_code_with_the_token(service: Service, tmp_path: Path) -> None:
    running = running_service(service.data)
    environment = os.environ | RAY_ENVIRONMENT
    environment["RAY_AUTH_TOKEN_PATH"] = str(token_file(running.ray_folder))
    program = [sys.executable, "-c", JOIN, running.ray_address, str(tmp_path / "made")]
    subprocess.run(program, env=environment, check=True, timeout=120)
    assert (tmp_path / "made").exists()


def test_no_process_has_the_token_among_its_arguments(service: Service) -> None:
    token = token_file(running_service(service.data).ray_folder).read_text()
    assert len(token) == 64
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert token.encode() not in line.read_bytes(), line
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_it_answers_with_an_odd_path_few_files_and_no_home(service: Service) -> None:
    with service.client() as client:
        hits = client.post("/v1/search", files={"image": jpeg(1)}).json()["hits"]
        assert hits[0]["image_id"] == 1
    assert httpx.get(f"{service.url}/readyz").status_code == 200


def test_a_folder_that_is_not_ours_alone_is_left_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o1777)
    make_private(tmp_path)
    assert mode(tmp_path) == 0o1777
    assert "not yours alone" in capsys.readouterr().err


def test_only_our_own_files_of_a_folder_are_tightened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").mkdir()
    for name in ("store/data.mdb", "ray.log", "letter.txt"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o644)
    tmp_path.chmod(0o750)
    make_private(tmp_path)
    assert [mode(tmp_path / name) for name in ("store/data.mdb", "ray.log")] == [0o600] * 2
    assert mode(tmp_path / "letter.txt") == 0o644
    assert "(0750)" in capsys.readouterr().err
    make_private(tmp_path)
    assert capsys.readouterr().err == ""
