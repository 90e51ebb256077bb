"""Annotators in a real service: on request, by completion, and while weights are missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from models.pictures.decoding import decode
from tests.annotators.brightness import Brightness, BrightnessOptions
from tests.conftest import kill_service, python_path_with_annotators, start_service
from tests.deployments.pictures import (
    field_part,
    ids,
    image_part,
    picture,
    post_form,
    problem_of,
    put,
)

SECONDS = 60.0


def application(name: str, builder: str, **args: Any) -> dict[str, Any]:
    """Return the configuration block of an application."""
    route = "/" if builder == "build_ingress" else None
    path = f"deployments.app:{builder}"
    return {"name": name, "import_path": path, "route_prefix": route, "args": args}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the weights of the annotator `late`, which don't exist yet."""
    return tmp_path_factory.mktemp("weights") / "words"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, words: Path) -> Iterator[httpx.Client]:
    """A client of a service with pHash and three annotators, one of which has no weights."""
    folder = tmp_path_factory.mktemp("annotators")
    late = {"words": str(words)}
    every = {"annotator": "brightness", "completion_interval": 0.2}
    applications = [
        application("ambience", "build_ingress"),
        application("phash", "build_retriever", extractor="phash"),
        application("caption", "build_annotator", **every),
        application("places365", "build_annotator", **every),
        application("late", "build_annotator", **every, options=late),
    ]
    config = folder / "config.yaml"
    config.write_text(yaml.dump({"proxy_location": "Disabled", "applications": applications}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", python_path_with_annotators())
        service = start_service(folder / "data", "--config", str(config))
    try:
        with service.client() as made:
            until(lambda: state_of(made, "caption") == state_of(made, "places365") == "ready")
            until(lambda: state_of(made, "late") == "unavailable")
            yield made
    finally:
        kill_service(service)


def until(holds: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def row_of(client: httpx.Client, name: str) -> dict[str, Any]:
    rows = client.get("/v1/retrievers").json()["retrievers"]
    return next((row for row in rows if row["name"] == name), {})


def state_of(client: httpx.Client, name: str) -> str:
    return str(row_of(client, name).get("state"))


def said_of(client: httpx.Client, image_id: int) -> dict[str, Any]:
    annotations: dict[str, Any] = client.get(f"/v1/images/{image_id}").json()["annotations"]
    return annotations


def expected(seed: int) -> dict[str, Any]:
    """Return the annotation that the annotator makes of the upload itself."""
    return Brightness(BrightnessOptions()).annotate(decode(picture(seed)).preview).row()


def test_annotators_are_listed_with_their_state(client: httpx.Client) -> None:
    rows = client.get("/v1/retrievers").json()["retrievers"]
    assert [(row["name"], row["kind"]) for row in rows] == [
        ("phash", "retriever"),
        ("caption", "annotator"),
        ("late", "annotator"),
        ("places365", "annotator"),
    ]
    assert row_of(client, "caption")["extractor"] == "brightness"
    assert len(row_of(client, "caption")["fingerprint"]) == 16
    assert "no file" in row_of(client, "late")["reason"]


def test_an_upload_is_annotated_by_those_that_are_ready(client: httpx.Client) -> None:
    answer = post_form(client, "/v1/annotate", image_part(picture(1)))
    fingerprint = row_of(client, "caption")["fingerprint"]
    whole = expected(1) | {"fingerprint": fingerprint}
    assert answer.json() == {"caption": whole, "places365": whole}
    assert answer.headers["X-Ambience-Answered"] == "caption,places365"
    assert answer.headers["X-Ambience-Missing"].startswith("late;reason=")
    one = post_form(
        client, "/v1/annotate", image_part(picture(1)), field_part("annotators", "caption")
    )
    assert one.json() == {"caption": whole}
    assert "X-Ambience-Missing" not in one.headers
    assert client.get("/v1/images").json()["images"] == []


def test_many_uploads_at_once_get_each_their_own_annotation(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(
            lambda seed: post_form(client, "/v1/annotate", image_part(picture(seed))).json(),
            range(8),
        )
        said = [answer["caption"]["mean"] for answer in answers]
    assert said == [expected(seed)["mean"] for seed in range(8)]


def test_the_gallery_gets_tags_and_a_caption(client: httpx.Client) -> None:
    tags = post_form(client, "/get_image_tags", image_part(picture(1)))
    caption = post_form(client, "/get_image_caption", image_part(picture(1)))
    assert tags.json() == expected(1)["tags"]
    assert caption.json() == expected(1)["text"]
    broken = post_form(client, "/get_image_caption", image_part(picture(1)[:300]))
    assert problem_of(broken, 400)["field"] == "image"


def test_added_pictures_are_annotated_afterwards_and_no_add_waits(client: httpx.Client) -> None:
    added = put(client, 7, picture(1))
    assert added["retrievers"] == {"phash": {"state": "indexed"}}
    until(lambda: "mean" in said_of(client, 7)["caption"])
    until(lambda: "mean" in said_of(client, 7)["places365"])
    said = said_of(client, 7)
    assert said["caption"]["by"] == "machine"
    # The stored preview is a JPEG, so the mean differs slightly.
    assert said["caption"]["mean"] == pytest.approx(expected(1)["mean"], abs=1)
    assert said["late"]["state"] == "pending"
    assert "no file" in said["late"]["reason"]
    parts = [image_part(picture(2)), field_part("image_id", 8)]
    settled = post_form(client, "/calculate_all_image_features", *parts).json()
    assert [row["status"] for row in settled] == ["fulfilled"]


def test_pictures_are_found_by_their_annotations_tags(client: httpx.Client) -> None:
    put(client, 7, picture(1))
    put(client, 8, picture(2))
    until(lambda: all("tags" in said_of(client, at)["places365"] for at in (7, 8)))
    edit = {"annotations": {"places365": {"tags": ["beach"]}}}
    seq = client.patch("/v1/images/7", json=edit).json()["seq"]
    found = client.post(
        "/v1/search", json={"image_ids": [8], "filter": {"tags": ["beach"]}, "min_seq": seq}
    )
    assert set(ids(found.json()["hits"])) <= {7}
    unknown = client.post("/v1/search", json={"image_ids": [8], "filter": {"tags": ["moon"]}})
    assert problem_of(unknown, 400)["field"] == "filter.tags"


def test_when_its_weights_appear_an_annotator_catches_up(client: httpx.Client, words: Path) -> None:
    put(client, 9, picture(3))
    assert said_of(client, 9)["late"]["state"] == "pending"
    words.write_text("radiant")
    until(lambda: state_of(client, "late") == "ready")
    until(lambda: "mean" in said_of(client, 9)["late"])
    said = said_of(client, 9)["late"]
    assert said["tags"][0] in ("radiant", "dark")
    assert said["fingerprint"] != said_of(client, 9)["caption"]["fingerprint"]
