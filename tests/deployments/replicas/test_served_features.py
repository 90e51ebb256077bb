"""`vocabulary` in a real service: the words' features come from `image_text`, also in jobs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from cluster.service.data_folder import service_processes
from models.pictures.decoding import decode
from tests.conftest import AMBIENCE, Service, kill_service, start_service, stop_service
from tests.deployments.pictures import image_part, picture, post_form, put
from tests.deployments.replicas.test_annotator import (
    application,
    row_of,
    said_of,
    state_of,
    until,
)
from tests.models.extractors.test_clip import loaded, tiny  # noqa: F401

WORDS = ["cat", "dog", "red balloon"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("words")
    words = folder / "words.txt"
    words.write_text("\n".join(WORDS))
    clip = {"extractor": "clip", "options": {"model": str(tiny), "precision": "float32"}}
    vocabulary: dict[str, Any] = {
        "annotator": "vocabulary",
        "options": {"words": str(words), "min_probability": 0},
        "completion_interval": 0.2,
    }
    applications = [
        application("ambience", "build_ingress"),
        application("phash", "build_retriever", extractor="phash"),
        application("image_text", "build_retriever", **clip),
        application("vocabulary", "build_annotator", **vocabulary),
    ]
    path = folder / "config.yaml"
    path.write_text(yaml.dump({"proxy_location": "Disabled", "applications": applications}))
    return path


@pytest.fixture(scope="module")
def service(config: Path) -> Iterator[Service]:
    made = start_service(config.parent / "data", "--config", str(config))
    try:
        yield made
    finally:
        kill_service(made)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as made:
        end = time.monotonic() + 180
        while state_of(made, "vocabulary") != "ready":
            assert time.monotonic() < end, row_of(made, "vocabulary")
            time.sleep(0.2)
        yield made


def annotate(data: Path, config: Path) -> dict[str, Any]:
    """Run `ambience annotate` and return what it says."""
    ran = subprocess.run(
        [str(AMBIENCE), "annotate", "--config", str(config), "--json"],
        env=os.environ | {"AMBIENCE_DATA": str(data)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def test_an_upload_and_a_stored_image_have_the_tags_of_their_features(
    client: httpx.Client,
    tiny: Path,  # noqa: F811
) -> None:
    put(client, 7, picture(1))
    until(lambda: "tags" in said_of(client, 7).get("vocabulary", {}))
    stored = said_of(client, 7)["vocabulary"]
    assert set(stored["tags"]) == set(WORDS)
    assert stored["fingerprint"] == row_of(client, "vocabulary")["fingerprint"]
    answer = post_form(client, "/v1/annotate", image_part(picture(1))).json()["vocabulary"]
    clip = loaded(tiny)
    shown = clip.extract(decode(picture(1)).preview)
    prompts = [f"a photo of a {word}" for word in WORDS]
    cosines = clip.text_features(prompts).vectors @ shown
    assert answer["tags"] == [WORDS[at] for at in (-cosines).argsort()]


def test_no_second_text_tower_is_loaded(service: Service, client: httpx.Client) -> None:
    with_torch = [
        process.name() for process in service_processes(service.data) if _maps_torch(process)
    ]
    assert state_of(client, "image_text") == "ready"
    assert len(with_torch) == 1, with_torch


@pytest.mark.soak
def test_a_job_asks_the_running_service_and_another_loads_the_model_itself(
    service: Service, client: httpx.Client, config: Path
) -> None:
    put(client, 8, picture(2))
    until(lambda: "tags" in said_of(client, 8).get("vocabulary", {}))
    machine = said_of(client, 8)["vocabulary"]
    Path(config.parent / "words.txt").write_text("\n".join([*WORDS, "fox"]))
    assert annotate(service.data, config)["annotated"] >= 1
    during = said_of(client, 8)["vocabulary"]
    assert set(during["tags"]) == {*WORDS, "fox"}
    assert during["fingerprint"] != machine["fingerprint"]
    stop_service(service)
    done = annotate(service.data, config)
    assert (done["annotated"], done["unavailable"]) == (0, {}), "the features are the same"


def _maps_torch(process: psutil.Process) -> bool:
    try:
        return any("libtorch" in one.path for one in process.memory_maps())
    except psutil.Error:
        return False
