"""Pictures that were deleted to stay away: remembered, recognised, listed, exported, forgotten."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from tests.conftest import AMBIENCE, Service
from tests.deployments.pictures import (
    field_part,
    image_part,
    mirrored,
    picture,
    post_form,
    problem_of,
    put,
    resized,
)
from tests.drawing import encoded, scene


@pytest.fixture
def client(client: httpx.Client) -> Iterator[httpx.Client]:
    """A client of the shared service, without images and tombstones."""
    forget_all(client)
    yield client
    forget_all(client)


def forget_all(client: httpx.Client) -> None:
    for one in client.get("/v1/tombstones").json()["tombstones"]:
        client.delete(f"/v1/tombstones/{one['tombstone_id']}").raise_for_status()


def checked(client: httpx.Client, data: bytes) -> dict[str, Any]:
    """Return the result of one picture."""
    answer = post_form(client, "/v1/check", image_part(data))
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    return dict(result)


def banned(client: httpx.Client, seed: int, note: str = "") -> str:
    """Add a scene, delete it to stay away, and return its tombstone's id."""
    put(client, 900 + seed, picture(seed))
    params = {"remember": "true", "note": note}
    assert client.delete(f"/v1/images/{900 + seed}", params=params).status_code == 204
    found = client.get("/v1/tombstones").json()["tombstones"]
    (one,) = [one for one in found if one["image_id"] == 900 + seed]
    return str(one["tombstone_id"])


def command(service: Service, *arguments: object) -> str:
    """Run `ambience tombstones …` over the service's data folder."""
    return subprocess.run(
        [str(AMBIENCE), "tombstones", *map(str, arguments)],
        env=service.environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def bordered(seed: int) -> bytes:
    return encoded(ImageOps.expand(scene(seed), 60, fill=(0, 0, 0)))


def edited(seed: int) -> bytes:
    image = scene(seed)
    ImageDraw.Draw(image).rectangle((300, 200, 420, 300), fill=(250, 250, 250))
    return encoded(image)


def turned(seed: int) -> bytes:
    return encoded(scene(seed).transpose(Image.Transpose.ROTATE_90))


def cropped(seed: int) -> bytes:
    return encoded(scene(seed).crop((120, 80, 560, 420)))


def test_a_remembered_picture_is_recognised_however_it_is_altered(client: httpx.Client) -> None:
    tombstone_id = banned(client, 3, "not mine")
    for data, relation in (
        (picture(3), "same"),
        (resized(3), "same"),
        (mirrored(3), "same"),
        (turned(3), "same"),
        (bordered(3), None),
        (edited(3), "edited"),
        (cropped(3), "part"),
    ):
        found = checked(client, data)
        assert found["outcome"] == "banned", (relation, found)
        assert relation in (None, found["relation"]), found
        assert (found["tombstone_id"], found["note"]) == (tombstone_id, "not mine")
        assert "image_id" not in found
    assert checked(client, picture(4))["outcome"] == "new"


def test_an_old_gallery_is_refused_without_an_image(client: httpx.Client) -> None:
    banned(client, 3)
    duplicate = field_part("find_duplicate", 1)
    for data in (picture(3), resized(3), cropped(3)):
        answer = post_form(client, "/reverse_search", duplicate, image_part(data))
        assert answer.json() == {"duplicate": []}
    assert post_form(client, "/reverse_search", duplicate, image_part(picture(5))).json() == {}
    assert post_form(client, "/reverse_search", image_part(picture(3))).json() == {}


def test_an_add_unless_same_refuses_what_is_banned_and_a_plain_add_takes_it(
    client: httpx.Client,
) -> None:
    banned(client, 3, "not mine")
    refused = client.post("/v1/images?unless=same", files=[image_part(mirrored(3))])
    problem = problem_of(refused, 409)
    assert problem["type"].endswith("banned-picture")
    assert "not mine" in problem["detail"]
    assert client.post("/v1/images", files=[image_part(mirrored(3))]).status_code == 201


def test_deleting_the_same_file_again_remembers_it_once(client: httpx.Client) -> None:
    first = banned(client, 3, "first")
    assert banned(client, 3, "second") == first
    (one,) = client.get("/v1/tombstones").json()["tombstones"]
    assert one["note"] == "second"
    assert (one["width"], one["height"]) == (640, 480)


def test_the_preview_of_a_tombstone_is_shown(client: httpx.Client) -> None:
    tombstone_id = banned(client, 3)
    answer = client.get(f"/v1/tombstones/{tombstone_id}/thumbnail")
    assert answer.headers["content-type"] == "image/jpeg"
    shown = Image.open(io.BytesIO(answer.content)).convert("RGB").resize((32, 24))
    apart = np.asarray(shown, float) - np.asarray(scene(3).resize((32, 24)), float)
    assert abs(apart).mean() < 12
    problem_of(client.get("/v1/tombstones/none/thumbnail"), 404)


def test_many_are_deleted_and_remembered_at_once(client: httpx.Client) -> None:
    for seed in (1, 2):
        put(client, seed, picture(seed))
    body = {"ids": [1, 2, 3], "remember": True, "note": "spam"}
    answer = client.post("/v1/images:delete", json=body).json()
    assert answer == {"deleted": [1, 2], "unknown": [3]}
    page = client.get("/v1/tombstones?limit=1").json()
    rest = client.get("/v1/tombstones", params={"cursor": page["next_cursor"]}).json()
    listed = page["tombstones"] + rest["tombstones"]
    assert [one["note"] for one in listed] == ["spam", "spam"]
    assert checked(client, resized(2))["outcome"] == "banned"
    for cursor in ("none", page["tombstones"][0]["tombstone_id"]):
        answer = client.get("/v1/tombstones", params={"cursor": cursor})
        assert problem_of(answer, 400)["field"] == "cursor"


def test_a_delete_of_another_version_remembers_nothing(client: httpx.Client) -> None:
    put(client, 7, picture(3))
    old = client.get("/v1/images/7").headers["ETag"]
    put(client, 7, picture(4))
    params = {"remember": "true"}
    answer = client.delete("/v1/images/7", params=params, headers={"If-Match": old})
    problem_of(answer, 412)
    assert client.get("/v1/tombstones").json()["tombstones"] == []
    assert client.delete("/v1/images/99", params=params).status_code == 204


def test_what_is_forgotten_may_come_back(client: httpx.Client) -> None:
    tombstone_id = banned(client, 3)
    assert client.delete(f"/v1/tombstones/{tombstone_id}").status_code == 204
    assert checked(client, picture(3))["outcome"] == "new"
    problem_of(client.delete(f"/v1/tombstones/{tombstone_id}"), 404)


def test_an_export_is_brought_in_again_exactly(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    for seed in (3, 4):
        banned(client, seed, f"scene {seed}")
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    command(service, "export", first)
    forget_all(client)
    assert checked(client, resized(3))["outcome"] == "new"
    command(service, "import", first)
    command(service, "export", second)
    assert first.read_bytes() == second.read_bytes()
    assert checked(client, resized(3))["note"] == "scene 3"
    assert checked(client, cropped(4))["note"] == "scene 4"
    listed = json.loads(command(service, "--json"))["tombstones"]
    assert listed == client.get("/v1/tombstones").json()["tombstones"]


def test_a_list_of_pdq_hashes_bans_and_is_written(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    tombstone_id = banned(client, 3, "spam")
    path = tmp_path / "list.pdq"
    command(service, "export", path, "--pdq")
    given, quality, note = path.read_text().strip().split(",")
    assert (len(given), note) == (64, "spam")
    assert int(quality) >= 50
    client.delete(f"/v1/tombstones/{tombstone_id}").raise_for_status()
    command(service, "import", path, "--pdq")
    for data in (picture(3), resized(3), mirrored(3), turned(3)):
        found = checked(client, data)
        assert (found["outcome"], found["note"]) == ("banned", "spam"), found
        assert found["pdq_distance"] <= 31
    assert checked(client, picture(4))["outcome"] == "new"


def test_a_picture_without_edges_is_recognised_by_its_colours(client: httpx.Client) -> None:
    def sky(blue: int) -> bytes:
        ramp = np.linspace(90, 200, 480)[:, None, None] * np.ones((1, 640, 1))
        pixels = np.concatenate([ramp * 0.5, ramp, np.full_like(ramp, blue)], axis=2)
        return encoded(Image.fromarray(pixels.astype(np.uint8)), quality=95)

    put(client, 5, sky(220))
    client.delete("/v1/images/5", params={"remember": "true"}).raise_for_status()
    assert checked(client, sky(221))["outcome"] == "banned"
    assert checked(client, sky(90))["outcome"] == "new"
