"""/v1/images: add, replace, get, list and delete; and uploads that are not pictures."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from tests.deployments.pictures import (
    Part,
    field_part,
    ids,
    image_part,
    mirrored,
    picture,
    post_form,
    problem_of,
    put,
)
from tests.drawing import encoded, scene

ENABLED = ["color", "local", "phash"]
UPLOADS = [
    ("PUT", "/v1/images/7"),
    ("POST", "/v1/images"),
    ("POST", "/v1/search"),
    ("POST", "/v1/retrievers/phash/search"),
    ("POST", "/reverse_search"),
]


def by_color(client: httpx.Client, data: bytes) -> list[dict[str, object]]:
    parts = [image_part(data), field_part("k", 10)]
    rows = post_form(client, "/v1/retrievers/color/search", *parts).json()["hits"]
    return [{"image_id": row["image_id"], "distance": row["distance"]} for row in rows]


def test_a_new_picture_is_created_in_every_retriever(client: httpx.Client) -> None:
    answer = client.put("/v1/images/7", files=[image_part(picture(1))])
    assert answer.status_code == 201
    body = answer.json()
    assert body["image_id"] == 7
    assert body["seq"] > 0
    assert body["retrievers"] == {name: {"state": "indexed"} for name in ENABLED}


def test_the_same_picture_again_changes_nothing(client: httpx.Client) -> None:
    first = put(client, 7, picture(1))
    answer = client.put("/v1/images/7", files=[image_part(picture(1))])
    assert answer.status_code == 200
    assert answer.json() == first
    assert put(client, 8, picture(2))["seq"] == first["seq"] + 1


def test_a_picture_that_is_cut_short_is_taken_and_said_to_be_truncated(
    client: httpx.Client,
) -> None:
    cut = picture(1)[: len(picture(1)) * 4 // 5]
    answer = client.put("/v1/images/7", files=[image_part(cut)])
    assert answer.status_code == 201
    assert answer.json()["truncated"] is True
    assert answer.headers["X-Ambience-Truncated"] == "true"
    assert "truncated" not in put(client, 8, picture(1))
    for path in ("/v1/search", "/v1/retrievers/phash/search"):
        k = field_part("k", 5)
        assert post_form(client, path, image_part(cut), k).json()["truncated"] is True
        assert "truncated" not in post_form(client, path, image_part(picture(1)), k).json()
    assert client.put("/v1/images/9", files=[image_part(cut[: len(cut) // 3])]).status_code == 400


def test_files_that_are_no_pictures_are_refused_by_what_they_are(client: httpx.Client) -> None:
    for data, named in (
        (b"%PDF-1.7", "a PDF document.*send its pages"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing.*as PNG"),
        (b"\0\0\0\x18ftypmp42" + bytes(99), "a video.*one of its frames"),
    ):
        answer = client.put("/v1/images/7", files=[image_part(data)])
        assert re.search(named, problem_of(answer, 415)["detail"])


def test_another_picture_under_the_id_replaces_it(client: httpx.Client) -> None:
    first = put(client, 7, picture(1), '{"a": 1}')
    answer = client.put("/v1/images/7", files=[image_part(picture(2))])
    assert answer.status_code == 200
    assert answer.json()["seq"] > first["seq"]
    image = client.get("/v1/images/7").json()
    assert image["sha256"] == hashlib.sha256(picture(2)).hexdigest()
    assert image["metadata"] == {}
    assert by_color(client, picture(2)) == [{"image_id": 7, "distance": 0}]


def test_metadata_is_kept_and_can_be_changed_alone(client: httpx.Client) -> None:
    first = put(client, 7, picture(1), '{"title": "größer", "tags": ["a", "b"]}')
    image = client.get("/v1/images/7").json()
    assert image["metadata"] == {"title": "größer", "tags": ["a", "b"]}
    parts = [image_part(picture(1)), field_part("metadata", '{"title": "other"}')]
    answer = client.put("/v1/images/7", files=parts)
    assert answer.status_code == 200
    assert answer.json()["seq"] > first["seq"]
    changed = client.get("/v1/images/7").json()
    assert changed["metadata"] == {"title": "other"}
    assert changed["generation"] == image["generation"]


@pytest.mark.parametrize("metadata", ["{", "[1]", "1", "null", '"x"', '{"a": 1e999}'])
def test_metadata_that_is_no_json_object_is_refused(client: httpx.Client, metadata: str) -> None:
    parts = [image_part(picture(1)), field_part("metadata", metadata)]
    assert problem_of(client.put("/v1/images/7", files=parts), 400)["field"] == "metadata"
    assert client.get("/v1/images/7").status_code == 404


def test_a_post_gives_ids_that_were_never_used(client: httpx.Client) -> None:
    answers = [client.post("/v1/images", files=[image_part(picture(seed))]) for seed in (1, 2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    first, second = (answer.json()["image_id"] for answer in answers)
    assert second > first
    client.delete(f"/v1/images/{second}")
    third = client.post("/v1/images", files=[image_part(picture(3))]).json()["image_id"]
    assert third > second


def test_what_is_known_of_a_picture(client: httpx.Client) -> None:
    seq = put(client, 7, picture(1))["seq"]
    image = client.get("/v1/images/7").json()
    created = image.pop("created")
    assert created > 1.7e9
    assert image == {
        "image_id": 7,
        "generation": seq,
        "file_name": "7.online",
        "source": "online",
        "upload_name": "document",
        "width": 640,
        "height": 480,
        "format": "JPEG",
        "bytes": len(picture(1)),
        "exif_tags": 0,
        "quality": 90,
        "sha256": hashlib.sha256(picture(1)).hexdigest(),
        "metadata": {},
        "retrievers": {name: {"state": "indexed"} for name in ENABLED},
        "annotations": {},
        "has_thumbnail": True,
    }


def test_an_unknown_picture_is_not_found(client: httpx.Client) -> None:
    for path in ("/v1/images/999", "/v1/images/999/thumbnail"):
        assert problem_of(client.get(path), 404)["field"] == "image_id"


@pytest.mark.parametrize("image_id", ["-1", "x", "1.5", str(2**47), "9" * 400])
def test_a_path_that_is_no_id_is_refused(client: httpx.Client, image_id: str) -> None:
    path = f"/v1/images/{image_id}"
    answers = [client.get(path), client.delete(path), client.get(f"{path}/thumbnail")]
    answers.append(client.put(path, files=[image_part(picture(1))]))
    for answer in answers:
        assert problem_of(answer, 400)["field"] == "image_id"


def test_the_largest_id_works_and_the_service_still_gives_ids(client: httpx.Client) -> None:
    put(client, 2**47 - 1, picture(1))
    assert by_color(client, picture(1)) == [{"image_id": 2**47 - 1, "distance": 0}]
    client.delete(f"/v1/images/{2**47 - 1}").raise_for_status()
    assert client.post("/v1/images", files=[image_part(picture(1))]).status_code == 201


def test_a_thumbnail_is_a_small_jpeg(client: httpx.Client) -> None:
    put(client, 7, encoded(scene(1, 1600, 1200)))
    answer = client.get("/v1/images/7/thumbnail")
    assert answer.headers["content-type"] == "image/jpeg"
    thumbnail = Image.open(io.BytesIO(answer.content))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (512, 384))


def test_a_delete_is_complete_and_idempotent(client: httpx.Client) -> None:
    put(client, 7, picture(1))
    for _ in range(2):
        answer = client.delete("/v1/images/7")
        assert (answer.status_code, answer.content) == (204, b"")
    assert client.get("/v1/images/7").status_code == 404
    assert client.get("/v1/images/7/thumbnail").status_code == 404
    assert by_color(client, picture(1)) == []


def test_pictures_are_listed_by_id_page_by_page(client: httpx.Client) -> None:
    for image_id in (9, 2, 5, 30, 7):
        put(client, image_id, picture(image_id % 4))
    first = client.get("/v1/images", params={"limit": 2}).json()
    assert ids(first["images"]) == [2, 5]
    pages, cursor = [ids(first["images"])], first["next_cursor"]
    while cursor is not None:
        assert isinstance(cursor, str)
        page = client.get("/v1/images", params={"limit": 2, "cursor": cursor}).json()
        pages.append(ids(page["images"]))
        cursor = page["next_cursor"]
    assert [image_id for page in pages for image_id in page] == [2, 5, 7, 9, 30]
    assert first["images"][0] == client.get("/v1/images/2").json()


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", 0), ("limit", 1001), ("limit", "x"), ("cursor", "x"), ("cursor", 2**47)],
)
def test_a_list_parameter_out_of_range_is_named(
    client: httpx.Client, name: str, value: object
) -> None:
    assert problem_of(client.get("/v1/images", params={name: value}), 400)["field"] == name


def no_pictures() -> dict[str, tuple[bytes, int]]:
    """Return uploads that must be refused, each with its status."""
    whole = picture(1)
    return {
        "empty": (b"", 400),
        "one byte": (b"\xff", 415),
        "text": (b"this is no picture at all", 415),
        "html": (b"<!doctype html><html></html>", 415),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415),
        "pdf": (b"%PDF-1.7\n" + bytes(200), 415),
        "truncated": (whole[: len(whole) // 2], 400),
        "only a header": (whole[:20], 400),
        "too many pixels": (_huge_png(), 413),
    }


def _huge_png() -> bytes:
    """Return a PNG whose header declares 40,000 × 40,000 pixels."""
    data = bytearray(encoded(Image.new("L", (8, 8)), "PNG"))
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("name", no_pictures())
@pytest.mark.parametrize(("method", "path"), UPLOADS)
def test_an_upload_that_is_no_picture_is_refused_everywhere(
    shared_service_client: httpx.Client, method: str, path: str, name: str
) -> None:
    data, status = no_pictures()[name]
    answer = shared_service_client.request(method, path, files=[image_part(data)])
    assert problem_of(answer, status)["field"] == "image"


@pytest.mark.parametrize(("method", "path"), UPLOADS)
def test_an_upload_over_the_limit_is_refused(
    shared_service_client: httpx.Client, method: str, path: str
) -> None:
    part = image_part(bytes(65 * 2**20 + 2**19))
    answer = shared_service_client.request(method, path, files=[part])
    assert "64 MiB" in problem_of(answer, 413)["detail"]


@pytest.mark.parametrize("parts", [[field_part("metadata", "{}")], [image_part(b"a")] * 2])
def test_an_add_takes_exactly_one_picture(client: httpx.Client, parts: list[Part]) -> None:
    answer = client.put("/v1/images/7", files=parts)
    assert problem_of(answer, 400)["field"] == "image"


def test_every_promised_format_is_indexed(client: httpx.Client) -> None:
    kinds = ("PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "AVIF")
    for image_id, kind in enumerate(kinds):
        answer = put(client, image_id, encoded(scene(1, 320, 240), kind))
        assert answer["retrievers"]["phash"] == {"state": "indexed"}, kind
    hits = post_form(
        client,
        "/v1/retrievers/phash/search",
        image_part(encoded(scene(1, 320, 240))),
        field_part("distance_threshold", 64),
    ).json()["hits"]
    assert sorted(ids(hits)) == list(range(len(kinds)))


def test_many_at_once_are_all_answered_and_all_visible(client: httpx.Client) -> None:
    for seed in range(4):
        put(client, 1000 + seed, picture(seed))

    def add_and_find(image_id: int) -> bool:
        put(client, image_id, mirrored(image_id % 4))
        found = by_color(client, mirrored(image_id % 4))
        return image_id in [row["image_id"] for row in found if row["distance"] == 0]

    with ThreadPoolExecutor(12) as threads:
        assert all(threads.map(add_and_find, range(24)))
    assert len(client.get("/v1/images").json()["images"]) == 28


def test_concurrent_writes_of_one_id_leave_one_of_the_pictures(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda seed: put(client, 7, picture(seed % 4)), range(16)))
    last = client.get("/v1/images/7").json()["sha256"]
    (seed,) = [n for n in range(4) if hashlib.sha256(picture(n)).hexdigest() == last]
    assert by_color(client, picture(seed)) == [{"image_id": 7, "distance": 0}]


def test_metadata_with_every_kind_of_value_comes_back(client: httpx.Client) -> None:
    metadata = {"a": [1, 2.5, None, True], "b": {"c": "d"}, "": "empty", "ключ": "日本"}
    put(client, 7, picture(1), json.dumps(metadata))
    assert client.get("/v1/images/7").json()["metadata"] == metadata


def test_an_image_is_looked_up_by_its_file(client: httpx.Client) -> None:
    for image_id, seed in ((3, 1), (5, 2), (9, 1)):
        put(client, image_id, picture(seed))
    digest = hashlib.sha256(picture(1)).hexdigest()
    for given in (digest, digest.upper()):
        found = client.get("/v1/images", params={"sha256": given}).json()
        assert (ids(found["images"]), found["total"]) == ([3, 9], 2)
    odd = client.get("/v1/images", params={"sha256": "abc"})
    assert problem_of(odd, 400)["field"] == "sha256"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("sea at night.jpg", "sea at night.jpg"),
        ("/home/me/größe.jpg", "größe.jpg"),
        ("x" * 400, "x" * 255),
    ],
)
def test_the_name_of_an_uploaded_file_is_kept_beside_it(
    client: httpx.Client, sent: str, kept: str
) -> None:
    client.put("/v1/images/7", files={"image": (sent, picture(1))}).raise_for_status()
    image = client.get("/v1/images/7").json()
    assert (image["upload_name"], image["file_name"]) == (kept, "7.online")
