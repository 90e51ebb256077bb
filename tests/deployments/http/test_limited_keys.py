"""A key that is limited to a tag gets the answers of a service that holds only those pictures."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from PIL import Image

from deployments.http.admission.keys import _only_reads
from deployments.http.application import make_app
from deployments.http.examples import EXAMPLES
from deployments.ingress.gateway import Gateway
from deployments.keys import KeyArgs
from deployments.settings import IngressArgs
from tests.conftest import LIGHT_LOCAL
from tests.deployments import served
from tests.deployments.pictures import image_part, problem_of
from tests.drawing import jpeg
from tests.indexes.pictures import picture as stored_picture
from tests.indexes.store.forks import wait_for

ROOT = Path(__file__).parents[3]
RETRIEVERS = ("phash", "color", "local", "text")
REFUSED = {
    "list_changes",
    "keep_changes",
    *("list_duplicates", "decide_duplicates", "list_decisions", "undo_decision"),
    *("list_rules", "edit_best", "edit_rule"),
    *("list_jobs", "cancel_job", "get_usage"),
}
"""Operations on all images, which a limited key may not send."""
OF_TIME = re.compile(
    r'"(seq|generation|applied_seq|created)": ?[\d.e+]+|"created": ?"[^"]*"|"bytes": ?\d+,"index"'
)
"""Parts of answers that tell of times and of the number of writes; and the memory of an index,
which depends on how many images it got at once."""


@cache
def drawn(seed: int) -> bytes:
    """Return a small picture, always with the same bytes. It has a date, because the services add
    it at different times."""
    exif, file = Image.Exif(), io.BytesIO()
    exif.get_ifd(0x8769)[0x9003] = f"2020:01:{seed:02} 12:00:00"
    Image.open(io.BytesIO(jpeg(seed, 240, 180))).save(file, "JPEG", exif=exif)
    return file.getvalue()


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


KEYS = tuple(
    KeyArgs(name=name, sha256=sha256_of(name.encode()), role="write", tag=tag)
    for name, tag in (("owner", None), ("ours", "ours"), ("theirs", "theirs"))
)


@dataclass
class Communities:
    """A service that two communities share, and one that holds only the pictures of `ours`."""

    shared: TestClient
    alone: TestClient
    gateway: Gateway

    def compare(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Compare the answers to the limited key and to the other service's owner; of a write to
        that of the same limited key, which gives a picture the tag."""
        got = self.shared.request(method, path, headers={"X-API-Key": "ours"}, **request)
        key = "owner" if _only_reads(method, path) else "ours"
        wanted = self.alone.request(method, path, headers={"X-API-Key": key}, **request)
        assert shown(got) == shown(wanted), f"{method} {path}"
        return got

    def owner(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self.shared.request(method, path, headers={"X-API-Key": "owner"}, **request)

    def put(self, image_id: int, seed: int, tags: list[str]) -> None:
        """Add a picture as the owner of the shared service and, if it is ours, to the other."""
        form = [image_part(drawn(seed)), ("metadata", (None, json.dumps({"tags": tags})))]
        path = f"/v1/images/{image_id}"
        assert self.owner("PUT", path, files=form).status_code in (200, 201)
        if "ours" in tags:
            self.alone.put(path, files=form, headers={"X-API-Key": "owner"})
        else:
            self.alone.delete(path, headers={"X-API-Key": "owner"})


@contextmanager
def service(folder: Path) -> Iterator[tuple[TestClient, Gateway]]:
    store = f"lmdb:{folder / 'store'}"
    args = IngressArgs(store=store, listen=False, keys=KEYS, access_log="off")
    gateway = Gateway(args, "ambience")
    gateway.directory.complete = True

    async def meet() -> None:
        for name in RETRIEVERS:
            options = {"options": LIGHT_LOCAL} if name == "local" else {}
            handle = served.serve_here(name, {"extractor": name, "store": store, **options})
            await served.until(handle, "ready")
            await served.join(gateway, name, handle)

    asyncio.run(meet())
    try:
        yield TestClient(make_app(gateway), "http://localhost"), gateway
    finally:
        gateway.close()


@pytest.fixture(scope="module")
def communities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Communities]:
    folder = tmp_path_factory.mktemp("communities")
    with (
        served.ended(),
        service(folder / "shared") as (shared, gateway),
        service(folder / "alone") as (alone, other),
    ):
        for one in (gateway, other):
            one.store.reserve_ids(1000)
        yield Communities(shared, alone, gateway)


def shown(answer: httpx.Response) -> tuple[int, Any, dict[str, str]]:
    """What an answer says, without times and seqs."""
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name.startswith("x-") or name == "content-type"
    }
    return answer.status_code, OF_TIME.sub("", answer.text), headers


TAGGED = {1: ["ours"], 2: ["theirs"], 3: ["ours", "theirs"], 4: [], 5: ["ours", "x"], 6: ["theirs"]}
OTHERWISE = {"healthz", "readyz", "metrics", "list_retrievers"}
"""Operations that tell who has no key nothing of pictures, and those with tests of their own."""


@pytest.fixture
def held(communities: Communities) -> Communities:
    """The services, with pictures 1 to 6."""
    for image_id, tags in TAGGED.items():
        communities.put(image_id, image_id, tags)
    return communities


def operations(app: Any) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Name, method, path and types of bodies of each operation of the application."""
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            kinds = operation.get("requestBody", {}).get("content", {})
            yield operation["operationId"], method.upper(), path, kinds


def request_of(
    name: str, path: str, kinds: dict[str, Any], image_id: int
) -> tuple[str, dict[str, Any]]:
    """The path and the rest of the operation's example, but about this image."""
    example = EXAMPLES.get(name)
    parameters = dict(example.parameters) if example else {}
    body = dict(example.body or {}) if example else {}
    for given in (parameters, body):
        given.pop("remember", None)  # Another test.
        given.pop("note", None)
        if "image_id" in given:
            given["image_id"] = image_id
        if "ids" in given:
            given["ids"] = [image_id]
        if "image_ids" in given:
            given["image_ids"] = [image_id, 1][: len(given["image_ids"])]
    for key in re.findall(r"{(\w+)}", path):
        path = path.replace(f"{{{key}}}", str(parameters.pop(key)))
    request: dict[str, Any] = {"params": parameters} if parameters else {}
    if "application/json" in kinds:
        request["json"] = body
    elif kinds:
        fields = [(key, (None, str(value))) for key, value in body.items()]
        request["files"] = [image_part(drawn(image_id)), *fields]
    return path, request


@pytest.mark.parametrize("image_id", [1, 2, 4, 99])
def test_each_operation_answers_as_if_no_other_picture_existed(
    held: Communities, image_id: int
) -> None:
    """About an image of ours, one of theirs, one without a tag, and one that never was."""
    met = set()
    for name, method, path, kinds in operations(held.shared.app):
        met.add(name)
        url, request = request_of(name, path, kinds, image_id)
        if name in REFUSED:
            got = held.shared.request(method, url, headers={"X-API-Key": "ours"}, **request)
            assert "limited to a tag" in problem_of(got, 403)["detail"]
        elif name not in OTHERWISE:
            held.compare(method, url, **request)
    assert met >= REFUSED


def states(client: TestClient, key: str) -> list[dict[str, Any]]:
    """Return the states of the retrievers, without what depends on the order of writes."""
    rows = client.get("/v1/retrievers", headers={"X-API-Key": key}).json()["retrievers"]
    return [
        {name: row[name] for name in row.keys() - {"bytes", "applied_seq", "tagged"}}
        for row in rows
    ]


def test_states_count_the_pictures_of_the_tag_alone(held: Communities) -> None:
    wait_for(lambda: states(held.shared, "ours") == states(held.alone, "owner"), 20)
    rows = held.owner("GET", "/v1/retrievers").json()["retrievers"]
    own = {row["name"]: row["tagged"]["ours"] for row in rows}
    for row in held.shared.get("/v1/retrievers", headers={"X-API-Key": "ours"}).json()[
        "retrievers"
    ]:
        assert own[row["name"]]["count"] == row["count"]
        assert "tagged" not in row


IDS = st.integers(1, 4)
SEEDS = st.integers(1, 4)
TAGS = st.lists(st.sampled_from(["ours", "theirs", "x"]), unique=True)


class SharedByCommunities(RuleBasedStateMachine):
    """Three keys write to the shared service; every answer to ours is that of the other one.

    Both services go on from the state of the example before.
    """

    services: Communities

    @rule(image_id=IDS, seed=SEEDS, tags=TAGS)
    def the_owner_puts(self, image_id: int, seed: int, tags: list[str]) -> None:
        self.services.put(image_id, seed, tags)

    @rule(image_id=IDS, tags=TAGS)
    def the_owner_tags(self, image_id: int, tags: list[str]) -> None:
        path, edit = f"/v1/images/{image_id}", {"metadata": {"tags": tags}}
        found = self.services.owner("GET", path)
        if found.status_code == 404:
            return
        assert self.services.owner("PATCH", path, json=edit).status_code == 200
        alone = {"headers": {"X-API-Key": "owner"}}
        if "ours" not in tags:
            self.services.alone.delete(path, **alone)
        elif self.services.alone.patch(path, json=edit, **alone).status_code == 404:
            data, metadata = self.stored(found.json()), json.dumps({"tags": tags})
            form = [image_part(data), ("metadata", (None, metadata))]
            assert self.services.alone.put(path, files=form, **alone).status_code == 201

    def stored(self, row: dict[str, Any]) -> bytes:
        known = {sha256_of(data): data for data in map(drawn, range(1, 5))}
        return known[row["sha256"]]

    @rule(image_id=IDS)
    def the_owner_deletes(self, image_id: int) -> None:
        self.services.owner("DELETE", f"/v1/images/{image_id}")
        self.services.alone.delete(f"/v1/images/{image_id}", headers={"X-API-Key": "owner"})

    @rule(image_id=IDS, remember=st.booleans())
    def another_key_deletes_what_it_sees(self, image_id: int, remember: bool) -> None:
        path = f"/v1/images/{image_id}"
        theirs = {"headers": {"X-API-Key": "theirs"}, "params": {"remember": remember}}
        seen = self.services.shared.get(path, headers=theirs["headers"]).status_code == 200
        assert self.services.shared.delete(path, **theirs).status_code == 204
        if seen:
            self.services.alone.delete(path, headers={"X-API-Key": "owner"})

    @rule(image_id=IDS, seed=SEEDS)
    def ours_replaces_what_it_sees(self, image_id: int, seed: int) -> None:
        self.services.compare("PUT", f"/v1/images/{image_id}", files=[image_part(drawn(seed))])

    @rule(seed=SEEDS)
    def ours_adds_unless_there_is_a_copy(self, seed: int) -> None:
        params = {"unless": "same"}
        files = [image_part(drawn(seed))]
        got = self.services.compare("POST", "/v1/images", params=params, files=files)
        if got.status_code == 201:
            self.services.compare("DELETE", f"/v1/images/{got.json()['image_id']}")

    @rule(image_id=IDS, text=st.sampled_from(["a boat", "ours"]))
    def ours_edits(self, image_id: int, text: str) -> None:
        edit = {"annotations": {"caption": {"text": text, "tags": [text]}}, "metadata": {"a": 1}}
        self.services.compare("PATCH", f"/v1/images/{image_id}", json=edit)

    @rule(image_id=IDS)
    def ours_deletes(self, image_id: int) -> None:
        self.services.compare("DELETE", f"/v1/images/{image_id}")

    @rule(image_id=IDS, seed=SEEDS, data=st.data())
    def ours_reads(self, image_id: int, seed: int, data: st.DataObject) -> None:
        form = {"files": [image_part(drawn(seed))]}
        tag = data.draw(st.sampled_from(["ours", "theirs", "x", "a boat"]))
        asked = {"image_id": image_id, "k": 2}
        for method, path, request in (
            ("GET", f"/v1/images/{image_id}", {}),
            ("GET", f"/v1/images/{image_id}/thumbnail", {}),
            ("GET", "/v1/images", {"params": {"limit": 1}}),
            ("GET", "/v1/images", {"params": {"cursor": "1", "limit": 2}}),
            ("GET", "/v1/images", {"params": {"tag": tag}}),
            ("GET", "/v1/images", {"params": {"sha256": sha256_of(drawn(seed))}}),
            ("GET", "/v1/images", {"params": {"added_after": "2020-01-01"}}),
            ("POST", "/v1/search", form),
            ("POST", "/v1/search", {"json": {"image_ids": [image_id], "min_confidence": 0}}),
            ("POST", "/v1/search", {"json": {"text": "boat", "k": 1}}),
            ("POST", "/v1/search", {"json": {"composed": f"~{image_id} -#{tag}"}}),
            ("POST", "/v1/search", {"json": {"image_ids": [1], "filter": {"tags": [tag]}}}),
            ("POST", "/v1/search", {"json": {"image_ids": [image_id], "sort": "newest"}}),
            *(
                ("POST", f"/v1/retrievers/{name}/search", {"json": asked})
                for name in ("phash", "color", "local")
            ),
            ("POST", "/v1/retrievers/color/search", {"files": [image_part(drawn(seed))]}),
            ("POST", "/v1/check", form),
            ("POST", "/v1/compare", {"json": {"image_ids": [image_id, 1]}}),
            ("POST", "/reverse_search", form),
            ("POST", "/reverse_search", {**form, "data": {"find_duplicate": "1"}}),
        ):
            self.services.compare(method, path, **request)


def test_of_several_communities_each_sees_its_own_alone(communities: Communities) -> None:
    SharedByCommunities.services = communities
    run_state_machine_as_test(
        SharedByCommunities,
        settings=settings(
            max_examples=5,
            stateful_step_count=12,
            deadline=None,
            phases=[Phase.generate],  # Both services go on, so an example can't be shrunk.
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_what_a_key_remembers_is_recognised_for_it_alone(communities: Communities) -> None:
    one, theirs = communities, {"headers": {"X-API-Key": "theirs"}}
    one.put(6, 9, ["theirs"])
    one.shared.delete("/v1/images/6", params={"remember": True, "note": "SECRET"}, **theirs)
    tombstones = one.shared.get("/v1/tombstones", **theirs).json()["tombstones"]
    (banned,) = [row["tombstone_id"] for row in tombstones if row["note"] == "SECRET"]
    path, form = f"/v1/tombstones/{banned}", {"files": [image_part(drawn(9))]}
    for key, outcome in (("theirs", "banned"), ("ours", "new"), ("owner", "new")):
        headers = {"X-API-Key": key}
        checked = one.shared.post("/v1/check", headers=headers, **form)
        assert checked.json()["results"][0]["outcome"] == outcome
        listed = one.shared.get("/v1/tombstones", headers=headers)
        thumbnail = one.shared.get(f"{path}/thumbnail", headers=headers)
        assert ("SECRET" in listed.text, thumbnail.status_code) == (
            (True, 200) if key == "theirs" else (False, 404)
        )
    assert one.shared.delete(path, headers={"X-API-Key": "ours"}).status_code == 404
    assert one.shared.delete(path, **theirs).status_code == 204


def test_an_idempotency_key_is_the_own_of_each_key(communities: Communities) -> None:
    added = [
        communities.shared.post(
            "/v1/images",
            headers={"X-API-Key": key, "Idempotency-Key": "once"},
            files=[image_part(drawn(8))],
        )
        for key in ("ours", "theirs", "owner", "ours", "theirs")
    ]
    ids = [answer.json()["image_id"] for answer in added]
    assert [answer.status_code for answer in added] == [201, 201, 201, 200, 200]
    assert (len(set(ids)), ids[:2]) == (3, ids[3:])
    communities.owner("POST", "/v1/images:delete", json={"ids": ids})


def test_a_trusted_client_is_limited_by_the_key_that_it_sends(tmp_path: Path) -> None:
    args = IngressArgs(
        store=f"lmdb:{tmp_path / 'store'}",
        listen=False,
        keys=KEYS,
        access_log="off",
        trusted_clients=("127.0.0.0/8",),
    )
    gateway = Gateway(args, "ambience")
    client = TestClient(make_app(gateway), "http://localhost", client=("127.0.0.1", 1))
    try:
        gateway.store.put(stored_picture(7, metadata={"tags": ["theirs"]}))
        totals = [
            client.get("/v1/images", headers=headers).json()["total"]
            for headers in ({}, {"X-API-Key": "owner"}, {"X-API-Key": "ours"})
        ]
        assert totals == [1, 1, 0]
    finally:
        gateway.close()


def test_metrics_count_all_pictures_and_need_an_admin_key(communities: Communities) -> None:
    for headers in ({}, {"X-API-Key": "ours"}, {"X-API-Key": "owner"}):
        assert communities.shared.get("/metrics", headers=headers).status_code == 401


def test_only_the_gateway_of_the_request_reaches_the_store() -> None:
    """So that a route that is written tomorrow is limited, too."""
    for path in (ROOT / "deployments").rglob("*.py"):
        if path.name not in ("application.py", "gateway.py"):
            assert "app.state" not in path.read_text(), path
