"""Model changes under load, while replicas or the whole service are killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image

from cluster.service.data_folder import end_leftovers
from deployments.layout import deployments_of
from indexes.store.lmdb.store import LmdbStore
from models.registry import make_extractor
from tests.cluster.service import test_upgrades
from tests.cluster.service.test_upgrades import replicas
from tests.conftest import AMBIENCE, ROOT, Service, free_port, start_service, stop_service
from tests.deployments import served

pytestmark = pytest.mark.soak

SECONDS = 240.0
STARTUP = ROOT / "tests" / "deployments" / "startup"
OWN, NEXT = 0, 400
COLOURS = [(220, 20, 20), (20, 20, 220), (220, 120, 20), (200, 20, 140), (20, 140, 220)]
COLOURS += [(90, 30, 220), (20, 220, 20), (220, 220, 60), (120, 120, 120), (60, 200, 160)]


def solid(number: int) -> bytes:
    """Return a PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), COLOURS[number]).save(file, "PNG")
    return file.getvalue()


def config(folder: Path, shards: int, own: int, following: int | None) -> Path:
    """Write a configuration of the ingress and `stamp`, in two replicas or in several shards."""
    args: dict[str, Any] = {"extractor": "stamp", "options": {"mark": own}}
    args |= {"completion_interval": 0.2, "shards": shards}
    if following is not None:
        args["next"] = {"extractor": "stamp", "options": {"mark": following}}
    applications = [
        {
            "name": "ambience",
            "import_path": "deployments.app:build_ingress",
            "route_prefix": "/",
            "args": {"required": ["stamp"]},
            "deployments": [{"name": "Ingress", "max_surge_percent": 100}],
        },
        {
            "name": "stamp",
            "import_path": "deployments.app:build_retriever",
            "route_prefix": None,
            "args": args,
            "deployments": [
                {"name": name, "num_replicas": 2 if shards == 1 else 1, "max_surge_percent": 100}
                for name in deployments_of("Retriever", shards)
            ],
        },
    ]
    path = folder / f"{own}-{following}.yaml"
    path.write_text(yaml.safe_dump({"proxy_location": "Disabled", "applications": applications}))
    return path


def distances(mark: int) -> list[dict[int, float]]:
    """Return a model's distances from each of the two query pictures to all other images."""
    vectors = [np.array([*colour, mark], float) for colour in COLOURS]
    unit = [vector / np.linalg.norm(vector) for vector in vectors]
    return [{at: 1 - float(unit[of] @ unit[at]) for at in range(2, len(unit))} for of in (0, 1)]


EXPECTED = {mark: distances(mark) for mark in (OWN, NEXT)}


def models_of(answer: dict[str, Any]) -> set[int]:
    """Return the models whose distances are those of the answer's hits."""
    found = set()
    for hit in answer["hits"]:
        if hit["image_id"] >= 2:
            gap = hit["retrievers"]["stamp"]["distance"]
            near = {
                mark: min(abs(one[hit["image_id"]] - gap) for one in lists)
                for mark, lists in EXPECTED.items()
            }
            found.add(min(near, key=lambda mark: near[mark]))
    return found


class Load(test_upgrades.Load):
    """Queries of two pictures; each answer records when it was asked and which models answered."""

    def ask(self, client: httpx.Client) -> tuple[int, str, float, set[int]]:
        query = {"k": 20, "min_confidence": 0, "mirrored": False}
        images = [("image", (f"{number}.png", solid(number))) for number in (0, 1)]
        began = time.monotonic()
        try:
            answer = client.post("/v1/search", files=images, data={"query": json.dumps(query)})
            missing = answer.headers.get("X-Ambience-Missing", "")
            marks = models_of(answer.json()) if answer.status_code == 200 else set()
            return answer.status_code, missing, began, marks
        except httpx.HTTPError as exc:
            return 0, repr(exc), began, set()

    def more(self, count: int = 20) -> None:
        """Wait for `count` more answers."""
        self.wait_for(len(self.answers) + count)

    def since(self, began: float) -> set[int]:
        """Return the models that answered the queries asked after that time."""
        return {mark for _, _, asked, marks in self.answers if asked > began for mark in marks}


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def other_model(service: Service, which: str) -> dict[str, Any]:
    with service.client() as client:
        (row,) = client.get("/v1/retrievers").json()["retrievers"]
    other: dict[str, Any] = row.get(which) or {}
    return other


def command(
    service: Service, *arguments: str, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    given = ["--config", str(path)] if path is not None else []
    return subprocess.run(
        [str(AMBIENCE), *arguments, *given],
        env=service.environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(params=[1, 2], ids=["whole", "split"])
def shards(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def stamped(tmp_path: Path, shards: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service with one model that holds all test images."""
    path = os.pathsep.join([str(STARTUP), str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    service = start_service(tmp_path / "data", "--config", str(config(tmp_path, shards, OWN, None)))
    try:
        with service.client() as client:
            for number in range(len(COLOURS)):
                put = client.put(f"/v1/images/{number}", files={"image": solid(number)})
                put.raise_for_status()
        yield service
    finally:
        stop_service(service)
        end_leftovers(service.data)


@pytest.mark.timeout(900)
def test_a_model_is_changed_and_changed_back_and_no_request_fails_or_mixes_models(
    stamped: Service, tmp_path: Path, shards: int
) -> None:
    both = config(tmp_path, shards, OWN, NEXT)
    with Load(stamped) as load:
        load.more()
        deployed = command(stamped, "deploy", path=both)
        assert deployed.returncode == 0, deployed.stderr
        # The replica that holds the lease computes the missing features from the previews.
        wait_for(lambda: other_model(stamped, "next").get("count") == len(COLOURS))
        wait_for(lambda: other_model(stamped, "next").get("state") == "ready")
        assert load.since(0) == {OWN}
        status = command(stamped, "status").stdout
        assert "next model" in status
        compared = command(stamped, "model", "compare", "stamp", "--json", path=both)
        assert json.loads(compared.stdout)["pictures"] == len(COLOURS)
        switched = command(stamped, "model", "switch", "stamp", path=both)
        assert switched.returncode == 0, switched.stderr
        began = time.monotonic()
        load.more(60)
        assert load.since(began) == {NEXT}
        back = command(stamped, "model", "switch", "stamp", "--back", path=both)
        assert back.returncode == 0, back.stderr
        began = time.monotonic()
        load.more(60)
        assert load.since(began) == {OWN}
        assert command(stamped, "model", "switch", "stamp", path=both).returncode == 0
        # The next model becomes the retriever's own, and the old features are dropped.
        after = config(tmp_path, shards, NEXT, None)
        began = time.monotonic()
        deployed = command(stamped, "deploy", path=after)
        assert deployed.returncode == 0, deployed.stderr
        dropped = command(stamped, "model", "drop", "stamp", path=after)
        assert f"of {len(COLOURS)} pictures" in dropped.stdout, dropped.stderr
        load.more(60)
        assert load.since(began) == {NEXT}
    print(f"{len(load.answers)} answers")
    assert [answer for answer in load.answers if answer[0] != 200 or answer[1]] == []
    assert [answer for answer in load.answers if len(answer[3]) != 1] == []


@pytest.mark.timeout(900)
def test_what_is_killed_in_the_middle_of_a_switch_leaves_the_old_model_or_the_new_one(
    stamped: Service, tmp_path: Path, shards: int
) -> None:
    both = config(tmp_path, shards, OWN, NEXT)
    assert command(stamped, "deploy", path=both).returncode == 0
    wait_for(lambda: other_model(stamped, "next").get("count") == len(COLOURS))
    wait_for(lambda: other_model(stamped, "next").get("state") == "ready")
    with Load(stamped) as load:
        load.more()
        next(iter(replicas(stamped, "stamp").values())).kill()
        # The switch is refused while Serve lists a replica that can't answer with that model.
        wait_for(lambda: command(stamped, "model", "switch", "stamp", path=both).returncode == 0)
        began = time.monotonic()
        load.more(60)
        assert load.since(began) == {NEXT}
    assert load.failed == []
    assert [answer for answer in load.answers if len(answer[3]) > 1] == []
    switching = subprocess.Popen(
        [str(AMBIENCE), "model", "switch", "stamp", "--back", "--config", str(both)],
        env=stamped.environment(),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    time.sleep(1.5)  # An arbitrary moment: the outcome must be consistent.
    switching.kill()
    switching.wait()
    os.killpg(stamped.process.pid, signal.SIGKILL)
    stamped.process.wait()
    end_leftovers(stamped.data)
    store = LmdbStore(stamped.data / "store")
    active = store.active()["stamp"]
    store.close()
    with served.with_test_extractors():
        marks = {make_extractor("stamp", {"mark": mark}).fingerprint: mark for mark in EXPECTED}
    again = start_service(stamped.data, "--config", str(both), port=free_port())
    try:
        with again.client() as client:
            assert [Load(again).ask(client)[3] for _ in range(10)] == [{marks[active]}] * 10
    finally:
        stop_service(again)
