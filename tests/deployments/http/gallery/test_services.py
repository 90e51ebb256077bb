"""Every route of the old gateway, called as the gallery calls it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw, ImageOps

from tests.deployments.pictures import (
    field_part,
    ids,
    image_part,
    mirrored,
    picture,
    post_form,
    problem_of,
    put,
    resized,
)
from tests.drawing import encoded, scene

RESULT_KEYS = {
    "phash_res",
    "global_features_res",
    "local_features_res",
    "color_res",
    "image_text_res",
    "unified_res",
}
SERVICES = ["phash", "color", "local_features"]
ABSENT = ["global_features", "image_text_features"]
VERIFIED = {"k": 5, "use_smnn_matching": 1, "use_ransac": 1}
"""Parameters with which the inherited local route verifies hits; by default it counts votes."""
CALCULATE = {"phash": "phash", "color": "color", "local_features": "local"}


def find_duplicates(client: httpx.Client, data: bytes) -> httpx.Response:
    return post_form(client, "/reverse_search", field_part("find_duplicate", 1), image_part(data))


def reverse_search(client: httpx.Client, data: bytes) -> dict[str, Any]:
    answer = post_form(client, "/reverse_search", image_part(data))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def calculate_all(client: httpx.Client, image_id: object, data: bytes) -> httpx.Response:
    return post_form(
        client,
        "/calculate_all_image_features",
        image_part(data),
        field_part("image_id", image_id),
    )


def calculate(client: httpx.Client, service: str, image_id: int, data: bytes) -> httpx.Response:
    return post_form(
        client,
        f"/calculate_{CALCULATE[service]}_features",
        image_part(data),
        field_part("image_id", image_id),
    )


def similar(client: httpx.Client, service: str, data: bytes, **params: object) -> httpx.Response:
    fields = [field_part(name, value) for name, value in params.items()]
    return post_form(
        client, f"/{service}_get_similar_images_by_image_buffer", image_part(data), *fields
    )


def test_the_import_check_of_a_new_picture_answers_an_empty_object(client: httpx.Client) -> None:
    put(client, 1, picture(1))
    answer = find_duplicates(client, picture(2))
    assert answer.status_code == 200
    assert answer.json() == {}


def test_the_import_check_of_a_resized_copy_names_the_stored_picture(client: httpx.Client) -> None:
    put(client, 1, picture(1))
    duplicate = find_duplicates(client, resized(1)).json()["duplicate"]
    assert ids(duplicate) == [1]
    assert isinstance(duplicate[0]["distance"], int)
    assert 0 <= duplicate[0]["distance"] < 64


def test_the_import_check_finds_the_mirror_image(client: httpx.Client) -> None:
    put(client, 1, picture(1))
    assert ids(find_duplicates(client, mirrored(1)).json()["duplicate"]) == [1]


def test_a_reverse_search_puts_the_same_picture_first_in_every_list(client: httpx.Client) -> None:
    for image_id in range(1, 5):
        put(client, image_id, picture(image_id))
    found = reverse_search(client, resized(3))
    for key in ("phash_res", "color_res", "local_features_res", "unified_res"):
        assert ids(found[key])[0] == 3, key
    distances = [row["distance"] for row in found["color_res"]]
    assert distances == sorted(distances)
    scores = [row["score"] for row in found["unified_res"]]
    assert scores == sorted(scores, reverse=True)
    assert all(isinstance(score, float) for score in scores)


def test_the_fusion_of_a_reverse_search_is_that_of_the_old_gateway(client: httpx.Client) -> None:
    for image_id in range(1, 4):
        put(client, image_id, picture(image_id))
    found = reverse_search(client, picture(2))
    lists = [found[key] for key in ("phash_res", "color_res", "local_features_res")]
    shares: dict[int, list[float]] = {}
    for rows in lists:
        for rank, row in enumerate(rows):
            shares.setdefault(row["image_id"], []).append(1 / (rank + 1))
    expected = {key: sum(given) for key, given in shares.items() if len(given) > 1}
    assert {row["image_id"]: row["score"] for row in found["unified_res"]} == pytest.approx(
        expected
    )


def test_a_reverse_search_shows_at_most_twenty_rows_a_list(client: httpx.Client) -> None:
    for image_id in range(22):
        put(client, image_id, resized(image_id))
    found = reverse_search(client, resized(5))
    assert len(found["color_res"]) == 20
    assert all(len(found[key]) <= 20 for key in found.keys() - {"unified_res"})


def test_a_mirrored_picture_is_found_and_the_row_says_why(client: httpx.Client) -> None:
    put(client, 1, picture(1))
    put(client, 2, picture(2))
    found = reverse_search(client, mirrored(1))
    assert ids(found["phash_res"]) == [1]
    best = found["local_features_res"][0]
    assert best["image_id"] == 1
    assert best["why"].startswith("same, mirrored, ")
    assert best["why"].endswith(" inliers")


def test_calculate_all_answers_one_fulfilled_object_per_retriever(client: httpx.Client) -> None:
    answer = calculate_all(client, 123, picture(1))
    assert answer.status_code == 200
    rows = answer.json()
    assert {row["url"].rsplit("/", 1)[1] for row in rows} == {
        "calculate_phash_features",
        "calculate_color_features",
        "calculate_local_features",
    }
    assert all(row["status"] == "fulfilled" and row["value"] == "" for row in rows)


def test_delete_all_answers_the_same_kind_of_array(client: httpx.Client) -> None:
    calculate_all(client, 123, picture(1))
    answer = client.post("/delete_all_image_features", json={"image_id": 123})
    assert answer.status_code == 200
    assert {row["status"] for row in answer.json()} == {"fulfilled"}
    assert {row["url"].rsplit("/", 1)[1] for row in answer.json()} == {
        "delete_phash_features",
        "delete_color_features",
        "delete_local_features",
    }


def test_delete_all_of_an_unknown_id_succeeds(client: httpx.Client) -> None:
    answer = client.post("/delete_all_image_features", json={"image_id": 424242})
    assert answer.status_code == 200
    assert len(answer.json()) == 3


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_adds_finds_and_deletes_its_own_features(client: httpx.Client, name: str) -> None:
    added = calculate(client, name, 5, picture(5))
    assert (added.status_code, added.content) == (200, b"")
    found = similar(client, name, picture(5), k=10)
    assert found.status_code == 200, found.text
    assert ids(found.json()) == [5]
    deleted = client.post(f"/delete_{CALCULATE[name]}_features", json={"image_id": 5})
    assert deleted.status_code == 200
    assert similar(client, name, picture(5), k=10).json() == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_finds_by_id_the_image_itself_first(client: httpx.Client, name: str) -> None:
    for image_id in (1, 2, 3):
        put(client, image_id, picture(image_id))
    answer = client.post(f"/{name}_get_similar_images_by_id", json={"image_id": 2, "k": 100})
    assert answer.status_code == 200, answer.text
    assert ids(answer.json())[0] == 2


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_adds_no_other_services_features(client: httpx.Client, name: str) -> None:
    calculate(client, name, 5, picture(5))
    others = [other for other in SERVICES if other != name]
    assert all(similar(client, other, picture(5), k=10).json() == [] for other in others)
    assert list(client.get("/v1/images/5").json()["retrievers"]) == [CALCULATE[name]]


@pytest.mark.parametrize("name", SERVICES)
def test_an_id_that_has_the_features_answers_500_with_the_old_text(
    client: httpx.Client, name: str
) -> None:
    calculate(client, name, 5, picture(5))
    again = calculate(client, name, 5, picture(6))
    assert again.status_code == 500
    assert again.text == "Image with the same id is already in the db"


def test_the_services_together_fill_one_image(client: httpx.Client) -> None:
    for service in SERVICES:
        assert calculate(client, service, 5, picture(5)).status_code == 200
    states = client.get("/v1/images/5").json()["retrievers"]
    assert {name: row["state"] for name, row in states.items()} == dict.fromkeys(
        ("phash", "color", "local"), "indexed"
    )


def test_one_service_refuses_another_picture_under_an_id_in_use(client: httpx.Client) -> None:
    calculate(client, "phash", 5, picture(5))
    body = problem_of(calculate(client, "color", 5, picture(6)), 409)
    assert body["field"] == "image_id"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_deletes_an_unknown_id_without_complaint(client: httpx.Client, name: str) -> None:
    path = f"/delete_{CALCULATE[name]}_features"
    assert client.post(path, json={"image_id": 999}).status_code == 200
    assert client.post(path, json={"file_name": "999.online"}).status_code == 200


def test_an_image_added_over_http_is_deleted_by_its_online_name(client: httpx.Client) -> None:
    put(client, 5, picture(5))
    assert client.get("/v1/images/5").json()["file_name"] == "5.online"
    answer = client.post("/delete_local_features", json={"file_name": "5.online"})
    assert answer.status_code == 200
    assert similar(client, "local_features", picture(5), k=5).json() == []
    assert ids(similar(client, "phash", picture(5), k=5).json()) == [5]


def test_with_an_id_and_a_file_name_the_name_decides_as_in_the_old_services(
    client: httpx.Client,
) -> None:
    for image_id in (5, 6, 7):
        put(client, image_id, picture(image_id))
    for both in (
        {"image_id": 5, "file_name": "6.online"},
        {"image_id": None, "file_name": "7.online"},
    ):
        assert client.post("/delete_phash_features", json=both).status_code == 200
    left = [
        ids(similar(client, "phash", picture(at), distance_threshold=64).json()) for at in (5, 6, 7)
    ]
    assert left == [[5], [], []]


@pytest.mark.parametrize("name", ["phash", "color"])
@pytest.mark.parametrize("threshold", [0, -1, "0", "-64.0"])
def test_nothing_lies_below_a_threshold_of_zero(
    client: httpx.Client, name: str, threshold: object
) -> None:
    put(client, 1, picture(1))
    by_buffer = similar(client, name, picture(1), distance_threshold=threshold)
    assert (by_buffer.status_code, by_buffer.json()) == (200, [])
    path = f"/{name}_get_similar_images_by_id"
    by_id = client.post(path, json={"image_id": 1, "distance_threshold": threshold})
    assert (by_id.status_code, by_id.json()) == (200, [])
    unknown = client.post(path, json={"image_id": 7, "distance_threshold": threshold})
    assert problem_of(unknown, 404)["field"] == "image_id"
    broken = similar(client, name, b"no picture", distance_threshold=threshold)
    assert 400 <= broken.status_code < 500


def test_the_inherited_local_route_without_k_counts_every_image_with_a_match(
    client: httpx.Client,
) -> None:
    for image_id in range(25):
        put(client, image_id, picture(3))
    rows = similar(client, "local_features", picture(3), k_clusters=64).json()
    assert len(rows) == 25


def test_ransac_without_matching_changes_nothing(client: httpx.Client) -> None:
    for image_id in (1, 2):
        put(client, image_id, picture(image_id))
    votes = similar(client, "local_features", picture(1), k=5).json()
    assert similar(client, "local_features", picture(1), k=5, use_ransac=1).json() == votes


@pytest.mark.parametrize("name", SERVICES)
def test_a_k_above_every_limit_is_cut(client: httpx.Client, name: str) -> None:
    put(client, 1, picture(1))
    assert ids(similar(client, name, picture(1), k=10**6).json()) == [1]


@pytest.mark.parametrize("image_id", [44, 44.0, "44", "44.0"])
def test_a_whole_number_may_be_written_as_a_float(client: httpx.Client, image_id: object) -> None:
    put(client, 44, picture(5))
    rows = client.post("/color_get_similar_images_by_id", json={"image_id": image_id, "k": "1.0"})
    assert ids(rows.json()) == [44]
    assert client.post("/delete_color_features", json={"image_id": image_id}).status_code == 200
    assert "color" not in client.get("/v1/images/44").json()["retrievers"]


def test_the_inherited_phash_route_finds_the_mirror_image_as_the_old_one_did(
    client: httpx.Client,
) -> None:
    put(client, 5, picture(5))
    (row,) = similar(client, "phash", mirrored(5), distance_threshold=64).json()
    assert row["image_id"] == 5
    assert row["distance"] < 10


def test_a_very_long_file_name_deletes_nothing(client: httpx.Client) -> None:
    put(client, 5, picture(5))
    answer = client.post("/delete_phash_features", json={"file_name": "x" * 5000})
    assert answer.status_code == 200
    assert client.get("/v1/images/5").status_code == 200


def test_local_rows_carry_file_name_and_matches_best_first(client: httpx.Client) -> None:
    for image_id in (1, 2, 3):
        put(client, image_id, picture(image_id))
    parameters = {
        "k": 3,
        "k_clusters": 10,
        "knn_min_matches": 1,
        "matching_threshold": 0.8,
        "use_smnn_matching": 1,
        "smnn_match_threshold": 0.8,
        "use_ransac": 1,
    }
    rows = similar(client, "local_features", picture(2), **parameters).json()
    assert rows[0]["image_id"] == 2
    assert rows[0]["file_name"] == "2.online"
    matches = [row["matches"] for row in rows]
    assert all(isinstance(count, int) for count in matches)
    assert matches == sorted(matches, reverse=True)


def test_the_inherited_local_route_does_not_look_for_mirror_images(client: httpx.Client) -> None:
    put(client, 1, picture(1))
    plain = similar(client, "local_features", picture(1), **VERIFIED).json()
    mirror = similar(client, "local_features", mirrored(1), **VERIFIED).json()
    assert ids(plain) == [1]
    assert mirror == [] or mirror[0]["matches"] < plain[0]["matches"] / 4


def test_color_rows_ascend_by_distance_from_the_image_itself(client: httpx.Client) -> None:
    for image_id in (1, 2, 3):
        put(client, image_id, picture(image_id))
    answer = client.post("/color_get_similar_images_by_id", json={"image_id": "3", "k": "100"})
    rows = answer.json()
    assert rows[0] == {"image_id": 3, "distance": 0}
    distances = [row["distance"] for row in rows]
    assert distances == sorted(distances)
    assert sorted(ids(rows)) == [1, 2, 3]


def test_a_distance_threshold_is_strict(client: httpx.Client) -> None:
    put(client, 1, picture(1))
    (row,) = similar(client, "phash", picture(2), k=1).json()
    assert row["distance"] > 64
    at = similar(client, "phash", picture(2), distance_threshold=row["distance"])
    above = similar(client, "phash", picture(2), distance_threshold=row["distance"] + 1)
    assert at.json() == []
    assert above.json() == [row]


@pytest.mark.parametrize("name", ["phash", "color"])
def test_exactly_one_of_k_and_distance_threshold_must_be_given(
    client: httpx.Client, name: str
) -> None:
    neither = similar(client, name, picture(1))
    both = similar(client, name, picture(1), k=3, distance_threshold=10)
    empty = similar(client, name, picture(1), k="")
    for answer in (neither, both, empty):
        assert problem_of(answer, 400)["field"] == "k"


@pytest.mark.parametrize("name", ["phash", "color"])
def test_an_empty_k_counts_as_absent(client: httpx.Client, name: str) -> None:
    put(client, 1, picture(1))
    form = similar(client, name, picture(1), k="", distance_threshold=10)
    assert ids(form.json()) == [1]
    body = {"image_id": 1, "k": "", "distance_threshold": 10}
    by_id = client.post(f"/{name}_get_similar_images_by_id", json=body)
    assert ids(by_id.json()) == [1]


@pytest.mark.parametrize("name", SERVICES)
def test_searching_by_an_unknown_id_is_not_found(client: httpx.Client, name: str) -> None:
    answer = client.post(f"/{name}_get_similar_images_by_id", json={"image_id": 77, "k": 5})
    assert problem_of(answer, 404)["field"] == "image_id"


@pytest.mark.parametrize(
    "path",
    [
        "/color_get_similar_images_by_id",
        "/phash_get_similar_images_by_id",
        "/delete_all_image_features",
        "/delete_phash_features",
        "/delete_local_features",
    ],
)
def test_an_id_of_null_is_refused_as_invalid(client: httpx.Client, path: str) -> None:
    body = problem_of(client.post(path, json={"image_id": None, "k": 100}), 400)
    assert body["field"] == "image_id"


@pytest.mark.parametrize("image_id", ["null", "NaN", "", "-1", "1.5", 2**47, "9" * 5000])
def test_an_id_that_is_no_id_is_refused_by_the_add(client: httpx.Client, image_id: object) -> None:
    assert problem_of(calculate_all(client, image_id, picture(1)), 400)["field"] == "image_id"


def test_an_add_without_an_id_is_refused(client: httpx.Client) -> None:
    answer = post_form(client, "/calculate_all_image_features", image_part(picture(1)))
    assert problem_of(answer, 400)["field"] == "image_id"


@pytest.mark.parametrize("path", ["/get_image_tags", "/get_image_caption"])
def test_annotators_that_are_not_deployed_answer_503(client: httpx.Client, path: str) -> None:
    problem_of(post_form(client, path, image_part(picture(1))), 503)
    assert problem_of(post_form(client, path, field_part("x", 1)), 400)["field"] == "image"


@pytest.mark.parametrize("name", ABSENT)
def test_services_that_are_not_deployed_answer_503(client: httpx.Client, name: str) -> None:
    features = {"global_features": "global"}.get(name, "image_text")
    image, image_id = image_part(picture(1)), field_part("image_id", 1)
    answers = [
        post_form(client, f"/calculate_{features}_features", image, image_id),
        client.post(f"/delete_{features}_features", json={"image_id": 1}),
        similar(client, name, picture(1), k=5),
        client.post(f"/{name}_get_similar_images_by_id", json={"image_id": 1, "k": 100}),
    ]
    for answer in answers:
        assert features in problem_of(answer, 503)["detail"]


def test_a_search_by_words_without_its_service_answers_503(client: httpx.Client) -> None:
    answer = client.post(
        "/image_text_features_get_similar_images_by_text", json={"text": "a cat", "k": 100}
    )
    problem_of(answer, 503)


def drawn(*rows: str) -> bytes:
    """Return a form that is filled in with these rows."""
    image = Image.new("RGB", (600, 700), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 30, 570, 80), fill="navy")
    for number, text in enumerate(rows):
        draw.line((30, 164 + 56 * number, 570, 164 + 56 * number), fill="gray")
        draw.text((40, 124 + 56 * number), text, fill="black", font_size=26)
    return encoded(image)


def test_the_import_check_takes_the_same_form_with_other_entries(client: httpx.Client) -> None:
    put(client, 1, drawn("rgmtpa 3917", "wovel kuzh 20", "abbot 7.55", "quixy lendu", "tiv 88120"))
    other = drawn("ehxw 5540", "pindar 6", "zzubo trel 91", "kim 3", "fallow deg")
    assert find_duplicates(client, other).json() == {}
    again = drawn("rgmtpa 3917", "wovel kuzh 20", "abbot 7.55", "quixy lendu", "tiv 88120")
    (found,) = find_duplicates(client, again).json()["duplicate"]
    assert (found["image_id"], found["why"]) == (1, "same")


def test_the_import_check_compares_plain_pictures_by_their_colour(client: httpx.Client) -> None:
    put(client, 1, encoded(Image.new("RGB", (300, 200), (200, 30, 40))))
    put(client, 2, encoded(Image.new("RGB", (300, 200), (30, 60, 200))))
    (found,) = find_duplicates(client, encoded(Image.new("RGB", (400, 400), (30, 60, 200)))).json()[
        "duplicate"
    ]
    assert found["image_id"] == 2
    assert find_duplicates(client, encoded(Image.new("RGB", (300, 200), "green"))).json() == {}


def test_the_import_check_names_a_copy_with_borders(client: httpx.Client) -> None:
    put(client, 1, picture(1))
    framed = encoded(ImageOps.expand(scene(1), (60, 90), "black"))
    (found,) = find_duplicates(client, framed).json()["duplicate"]
    assert found["image_id"] == 1
