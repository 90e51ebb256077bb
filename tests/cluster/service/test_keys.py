"""API keys of a running service: where it refuses to listen without, and where they never show."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from cluster.service.applications import check_keys
from cluster.service.data_folder import CannotStart, running_service
from tests.cluster.service.test_supervisor import ambience, with_keys
from tests.conftest import Service, kill_service, light_config, start_service
from tests.deployments.pictures import image_part, picture
from tests.indexes.store.forks import wait_for

WORD = "a-secret-of-the-tests-0123456789"


def made(name: str, role: str, folder: Path, *options: str) -> tuple[str, str]:
    """Make a key; return it and its entry."""
    done = ambience("key", name, "--role", role, "--rate", "5000", *options, data=folder)
    return done.stderr.rsplit(" ", 1)[1].strip(), done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[tuple[Service, str]]:
    """A service on all addresses, with a key in a file and one in its configuration."""
    key, entry = made("gallery", "write", folder)
    (folder / "by-name.yaml").write_text(entry)
    config = with_keys(folder, read_keys=[WORD])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMBIENCE_HOST", "0.0.0.0")
        patch.setenv("AMBIENCE_KEYS_FILE", str(folder / "by-name.yaml"))
        service = start_service(folder / "data", "--config", str(config))
        yield service, key
        kill_service(service)


def test_a_network_without_keys_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::"):
        done = ambience("serve", data=tmp_path / "data", AMBIENCE_HOST=host)
        assert done.returncode == 1
        assert "ambience key NAME" in done.stderr
        assert "--no-keys" in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "nas.home", "::ffff:10.0.0.1"])
def test_only_loopback_needs_no_keys(host: str, tmp_path: Path) -> None:
    config = yaml.safe_load(light_config().read_text())
    with pytest.raises(CannotStart):
        check_keys(config, host, no_keys=False)
    check_keys(config, host, no_keys=True)
    keyed = yaml.safe_load(with_keys(tmp_path, write_keys=[WORD]).read_text())
    check_keys(keyed, host, no_keys=False)
    for loopback in ("127.0.0.1", "localhost", "::1", "127.3.2.1"):
        check_keys(config, loopback, no_keys=False)


def test_a_key_opens_what_its_role_may(service: tuple[Service, str]) -> None:
    served, key = service
    with served.client() as http:
        assert http.get("/v1/images").status_code == 401
        assert http.get("/v1/images", headers={"X-API-Key": WORD}).status_code == 200
        delete = {"json": {"image_id": 1}}
        path = "/delete_all_image_features"
        assert http.post(path, headers={"X-API-Key": WORD}, **delete).status_code == 401
        assert http.post(path, headers={"X-API-Key": key}, **delete).status_code == 200
    log, by = served.data / "access.log", time.monotonic() + 10
    # A line is written after its answer has gone out.
    while "key=gallery" not in log.read_text():
        assert time.monotonic() < by
        time.sleep(0.05)
    assert "key=read-1" in log.read_text()


def test_a_key_with_a_tag_is_limited_to_its_images(
    service: tuple[Service, str], folder: Path
) -> None:
    served, key = service
    limited, entry = made("hikers", "write", folder, "--tag", "hikers")
    with (folder / "by-name.yaml").open("a") as file:
        file.write(entry)
    with served.client() as http:
        owner, hikers = {"X-API-Key": key}, {"X-API-Key": limited}
        # The file is read again within a second.
        wait_for(lambda: http.get("/v1/images", headers=hikers).status_code == 200, 20)
        for image_id in (1, 2):
            form = {"files": [image_part(picture(image_id))]}
            assert http.put(f"/v1/images/{image_id}", headers=owner, **form).status_code == 201
        form = {"files": [image_part(picture(1))]}
        assert http.put("/v1/images/1", headers=hikers, **form).status_code == 403
        added = http.post("/v1/images", headers=hikers, **form).json()["image_id"]
        assert http.get("/v1/images/1", headers=hikers).status_code == 404
        assert http.get("/v1/images", headers=hikers).json()["total"] == 1
        found = http.post("/v1/search", headers=hikers, **form)
        assert [hit["image_id"] for hit in found.json()["hits"]] == [added]
        assert "phash" in found.headers["X-Ambience-Answered"]
        found = http.post("/v1/search", headers=owner, **form)
        assert {hit["image_id"] for hit in found.json()["hits"]} == {1, added}
        states = http.get("/v1/retrievers", headers=owner).json()["retrievers"]
        (phash,) = [row for row in states if row["name"] == "phash"]
        assert (phash["count"], phash["tagged"]["hikers"]["count"]) == (3, 1)


def test_its_owner_needs_no_key_on_the_command_line(service: tuple[Service, str]) -> None:
    served, _ = service
    assert ambience("status", data=served.data).returncode == 0
    other = ambience("status", data=served.data.parent, AMBIENCE_PORT=served.url[-5:].strip(":"))
    assert other.returncode == 1
    assert "AMBIENCE_API_KEY" in other.stderr


def test_no_key_shows_in_logs_arguments_or_errors(service: tuple[Service, str]) -> None:
    served, key = service
    secrets = [WORD.encode(), key.encode()]
    with served.client() as http:
        http.post("/v1/search", headers={"X-API-Key": key}, content=b"{")
        http.get(f"/v1/images/{WORD}", headers={"X-API-Key": WORD})
    ray = Path(running_service(served.data).ray_folder)
    files = [*served.data.glob("*.log"), served.log, *ray.rglob("*.log"), *ray.rglob("*.out")]
    files += [*ray.rglob("*.err"), *Path("/proc").glob("[0-9]*/cmdline")]
    assert len(files) > 20
    for path in files:
        try:
            text = path.read_bytes()
        except OSError:
            continue
        # The client itself put it into a path.
        text = text.replace(f"/v1/images/{WORD}".encode(), b"")
        assert not any(secret in text for secret in secrets), path
    assert httpx.get(f"{served.url}/readyz").status_code == 200
    assert os.stat(served.data).st_mode & 0o077 == 0
