"""Backfills with real Ray Data, beside a running service and alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from cluster.jobs.backfill import Kind, Worker, kinds_of, plan, spaces_of
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from tests.conftest import AMBIENCE, Service, light_config
from tests.deployments import served
from tests.drawing import jpeg
from tests.indexes.store.forks import wait_for


def fill(folder: Path, count: int, first: int = 0) -> None:
    """Small pictures named by id."""
    folder.mkdir(exist_ok=True)
    for seed in range(first, first + count):
        (folder / f"{seed}.jpg").write_bytes(jpeg(seed, 160, 120))


def backfill(data: Path, *arguments: str) -> dict[str, Any]:
    """Run it to its end; what it says as JSON."""
    done = subprocess.run(
        [str(AMBIENCE), "backfill", *arguments, "--config", str(light_config()), "--json"],
        env=os.environ | {"AMBIENCE_DATA": str(data)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def processes_over(data: Path) -> list[psutil.Process]:
    """Of all runs over this folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("AMBIENCE_DATA") == str(data):
                found.append(process)
    return found


def test_a_running_service_sees_the_new_pictures(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    fill(tmp_path / "pictures", 5, first=40)
    (tmp_path / "pictures" / "cat.jpg").write_bytes(jpeg(1))
    (tmp_path / "pictures" / "50.jpg").write_bytes(jpeg(50)[:500])
    said = backfill(service.data, str(tmp_path / "pictures"), "--ids", "filename")
    assert said["indexed"] == 5
    reasons = {Path(one["path"]).name: one["reason"] for one in said["bad"]}
    assert reasons.keys() == {"cat.jpg", "50.jpg"}
    assert "no image id" in reasons["cat.jpg"]
    listed = (service.data / "backfill-bad-files.tsv").read_text()
    assert "50.jpg\t" in listed
    hits = client.post("/v1/search", files={"image": jpeg(42, 160, 120)}).json()["hits"]
    assert hits[0]["image_id"] == 42
    assert set(hits[0]["retrievers"]) >= {"phash", "color"}
    assert client.get("/v1/images/42").json()["file_name"] == "42.jpg"
    again = backfill(service.data, str(tmp_path / "pictures"), "--ids", "filename")
    assert again["indexed"] == 0
    assert again["already"] == 5


def test_a_killed_run_goes_on_without_doing_work_twice(tmp_path: Path) -> None:
    count = 320
    fill(tmp_path / "pictures", count)
    data = tmp_path / "data"
    environment = os.environ | {"AMBIENCE_DATA": str(data)}
    command = [str(AMBIENCE), "backfill", str(tmp_path / "pictures"), "--workers", "1"]
    command += ["--config", str(light_config())]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    data.mkdir(exist_ok=True)
    store = LmdbStore(data / "store")
    until = time.monotonic() + 180
    while store.count() == 0 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Its workers end with it; one may still commit what it had read.
    wait_for(lambda: not processes_over(data), 120)
    first = store.count()
    assert 0 < first < count
    said = backfill(data, str(tmp_path / "pictures"))
    assert said["already"] == first
    assert said["indexed"] == count - first
    assert store.count() == count
    assert len(store.sources()) == count
    assert store.head() == count  # One log entry a picture: nothing was written twice.
    store.close()


def test_the_plan_leaves_out_only_pictures_that_lack_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 3)
    store = LmdbStore(tmp_path / "store")
    paths = [str(tmp_path / "pictures" / f"{number}.jpg") for number in range(3)]
    spaces = {"phash": Space("phash", "aa"), "color": Space("color", "bb")}
    for number, kinds in enumerate((("phash", "color"), ("phash",))):
        features = {spaces[kind]: b"x" for kind in kinds}
        store.put(
            ImageWrite(number, "0" * 64, 1, 1, frozenset(kinds), features, source=paths[number])
        )
    made = plan(str(tmp_path / "pictures"), "filename", store, spaces.values())
    assert made.todo == [(paths[1], 1), (paths[2], 2)]
    assert made.already == 1
    store.close()


def test_a_worker_gives_every_kind_its_features_and_names_what_is_bad(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 1)
    kinds = [Kind(name, name, {}) for name in ("phash", "color", "local")]
    worker = Worker(kinds, f"lmdb:{tmp_path / 'store'}")
    paths = [str(tmp_path / "pictures" / "0.jpg"), str(tmp_path / "gone.jpg")]
    rows = worker({"path": paths, "image_id": [-1, -1]})
    assert rows["reason"][0] == ""
    assert "can't be read" in rows["reason"][1]
    (image,) = worker.store.images()
    assert image.pending == frozenset()
    assert image.wanted == {"phash", "color", "local"}
    worker.store.close()


def test_what_can_not_be_extracted_yet_is_left_pending(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 1)
    builder = "deployments.app:build_retriever"
    options = {"path": str(tmp_path / "matrix.npy")}
    arguments = {
        "phash": {"extractor": "phash"},
        "tint": {"extractor": "tint", "options": options},
        "text": {"extractor": "words"},
    }
    config = {
        "applications": [
            {"name": name, "import_path": builder, "args": args} for name, args in arguments.items()
        ]
    }
    path = str(tmp_path / "pictures" / "0.jpg")
    batch = {"path": [path], "image_id": [0]}
    store = LmdbStore(tmp_path / "store")
    with served.of_the_tests():
        kinds = kinds_of(config)
        assert [kind.name for kind in kinds] == ["phash", "tint"]
        assert [space.kind for space in spaces_of(kinds)] == ["phash"]
        assert Worker(kinds, f"lmdb:{tmp_path / 'store'}")(batch)["reason"].tolist() == [""]
        image = store.image(0)
        assert image is not None
        assert (image.wanted, image.pending) == ({"phash", "tint"}, {"tint"})
        done = plan(str(tmp_path / "pictures"), "filename", store, spaces_of(kinds))
        served.write_matrix(tmp_path / "matrix.npy")
        again = plan(str(tmp_path / "pictures"), "filename", store, spaces_of(kinds))
    store.close()
    assert (done.todo, done.already) == ([], 1)
    assert again.todo == [(path, 0)]
