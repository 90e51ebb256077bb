"""The shipped configuration over PostgreSQL, on a machine without weights and network."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image, ImageDraw, ImageFont

from cluster.cli.main import default_config
from cluster.service.data_folder import service_processes
from tests.cluster.cli.test_main import run
from tests.conftest import Service, kill_service, start_service
from tests.drawing import jpeg
from tests.postgres_server import PostgresServer

READY = {"phash", "color", "local", "text", "ocr"}
WITHOUT_WEIGHTS = {"global", "image_text", "copy", "caption", "places365", "vocabulary"}
PUBLISHED = WITHOUT_WEIGHTS - {"vocabulary"}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("shipped")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HOME", "TORCH_HOME"):
            patch.setenv(name, str(folder / "empty"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("http_proxy", "http://127.0.0.1:9")
        patch.setenv("https_proxy", "http://127.0.0.1:9")
        patch.setenv("no_proxy", "127.0.0.1")
        patch.setenv("AMBIENCE_STORE", postgres.new_database())
        made = start_service(folder / "data", "--config", str(default_config()))
    try:
        yield made
    finally:
        kill_service(made)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as made:
        yield made


def until(holds: Callable[[], bool], seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def states(client: httpx.Client) -> dict[str, dict[str, Any]]:
    rows = client.get("/v1/retrievers").raise_for_status().json()["retrievers"]
    return {row["name"]: row for row in rows}


def lettered(text: str) -> bytes:
    image = Image.new("RGB", (900, 200), "white")
    draw = ImageDraw.Draw(image)
    draw.text((30, 60), text, fill="black", font=ImageFont.load_default(64))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_what_needs_no_weights_serves_and_the_rest_says_what_it_lacks(client: httpx.Client) -> None:
    lacks = ("not on this machine", "can't be fetched", "no list of words")

    def settled() -> bool:
        now = states(client)
        ready = {name for name, row in now.items() if row["state"] == "ready"}
        lacking = {
            name
            for name, row in now.items()
            if row["state"] == "unavailable" and any(part in row["reason"] for part in lacks)
        }
        return (ready, lacking) == (READY, WITHOUT_WEIGHTS)

    until(settled)


def test_status_is_a_line_for_each_and_below_says_what_to_do_without_weights(
    service: Service, client: httpx.Client
) -> None:
    until(lambda: all("can't be" in (states(client)[name]["reason"] or "") for name in PUBLISHED))
    shown = run(service, "status", COLUMNS="80").stdout
    table, _, below = shown.partition("└")
    cells = [line.split("│")[1].strip() for line in table.splitlines() if line[:1] == "│"]
    assert sorted(cells) == sorted(READY | WITHOUT_WEIGHTS)
    reasons = dict(line.split(": ", 1) for line in below.splitlines()[1:])
    assert reasons.keys() == WITHOUT_WEIGHTS
    for name in PUBLISHED:
        assert "can't be fetched" in reasons[name]
        assert "run `ambience weights fetch --to FOLDER` on a machine with" in reasons[name]
        assert reasons[name].endswith(" in serve_config.yaml")
    assert reasons["vocabulary"].endswith("name its file in `words`")


def test_a_search_goes_on_without_those_that_lack_weights(client: httpx.Client) -> None:
    client.put("/v1/images/1", files={"image": jpeg(1)}).raise_for_status()
    answer = client.post("/v1/search", files={"image": jpeg(1)})
    assert answer.json()["hits"][0]["image_id"] == 1
    assert answer.headers["x-ambience-answered"] == "color,local,phash"
    missing = answer.headers["x-ambience-missing"]
    assert all(f"{name};reason=" in missing for name in ("global", "image_text", "copy"))
    row = client.get("/v1/images/1").json()
    assert row["retrievers"]["global"]["state"] == "pending"


def test_the_text_in_a_picture_is_found_by_its_words(
    service: Service, client: httpx.Client
) -> None:
    client.put("/v1/images/2", files={"image": lettered("Harbour festival")}).raise_for_status()

    def read() -> bool:
        return "text" in client.get("/v1/images/2").json()["annotations"].get("ocr", {})

    until(read)
    for words in ("harbour festival", "festval", "harber"):
        answer = client.post("/v1/search", json={"text": words})
        assert answer.status_code == 200, answer.text
        assert [hit["image_id"] for hit in answer.json()["hits"]] == [2], words
        matched = answer.json()["hits"][0]["retrievers"]["text"]["matched"]
        assert matched[0]["in"] == "ocr"
    shown = run(service, "search", "--text", "festval")
    assert shown.returncode == 0
    assert "fuzzy “festival”" in shown.stdout


def test_replicas_without_weights_do_not_import_torch(service: Service) -> None:
    mapped = [
        process.name()
        for process in service_processes(service.data)
        if any("libtorch" in one.path for one in _maps(process))
    ]
    assert mapped == []
    assert not (service.data / "store").exists()


def _maps(process: psutil.Process) -> list[Any]:
    try:
        return list(process.memory_maps())
    except psutil.Error:
        return []
