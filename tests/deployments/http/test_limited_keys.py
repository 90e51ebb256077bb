"""A key that is limited to a tag gets the answers of a service that holds only those pictures."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from deployments.http.application import make_app
from deployments.http.examples import EXAMPLES
from deployments.ingress.gateway import Gateway
from deployments.keys import KeyArgs
from deployments.settings import IngressArgs
from tests.conftest import LIGHT_LOCAL
from tests.deployments import served
from tests.deployments.pictures import image_part, mirrored, picture, problem_of, resized

RETRIEVERS = ("phash", "color", "local", "text")
REFUSED = {
    "list_changes",
    "keep_changes",
    *("list_duplicates", "decide_duplicates", "list_decisions", "undo_decision"),
    *("list_rules", "edit_best", "edit_rule"),
    *("list_jobs", "cancel_job"),
}
"""Operations on all images, which a limited key may not send."""
CHANGING_TIMES = re.compile(
    r'"(seq|generation|applied_seq|created|head|made)":\s*-?[\d.e+]+|"created": ?"[^"]*"'
)
"""Parts of answers that tell of time and of the number of writes."""


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


KEYS = tuple(
    KeyArgs(name=name, sha256=sha256(name), role="write", tag=tag)
    for name, tag in (("owner", None), ("ours", "ours"), ("theirs", "theirs"))
)


@dataclass
class Communities:
    """A service that two communities share, and one that holds only the pictures of `ours`."""

    shared: TestClient
    alone: TestClient
    gateway: Gateway

    def ask(self, method: str, path: str, **request: Any) -> list[httpx.Response]:
        """Send a request with the limited key to both services."""
        return [
            client.request(method, path, headers={"X-API-Key": key}, **request)
            for client, key in ((self.shared, "ours"), (self.alone, "owner"))
        ]

    def owner(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self.shared.request(method, path, headers={"X-API-Key": "owner"}, **request)

    def put(self, image_id: int, seed: int, tags: list[str]) -> None:
        """Add a picture as the owner of the shared service and, if it is ours, to the other."""
        form = [image_part(picture(seed)), ("metadata", (None, json.dumps({"tags": tags})))]
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
    with served.ended(), service(folder / "shared") as (shared, gateway):
        with service(folder / "alone") as (alone, _):
            yield Communities(shared, alone, gateway)


def shown(answer: httpx.Response) -> tuple[int, Any, dict[str, str]]:
    """What an answer says, without times and seqs."""
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name.startswith("x-") or name == "content-type"
    }
    return answer.status_code, CHANGING_TIMES.sub("", answer.text), headers


def test_try(communities: Communities) -> None:
    one = communities
    one.put(1, 1, ["ours"])
    one.put(2, 2, ["theirs"])
    one.put(3, 3, ["ours", "theirs"])
    for method, path, request in (
        ("GET", "/v1/images", {}),
        ("GET", "/v1/images/1", {}),
        ("GET", "/v1/images/2", {}),
        ("POST", "/v1/search", {"files": [image_part(resized(2))]}),
        ("POST", "/v1/search", {"files": [image_part(mirrored(1))]}),
        ("POST", "/v1/search", {"json": {"image_ids": [2]}}),
        ("POST", "/v1/search", {"json": {"image_ids": [1], "k": 1}}),
        ("POST", "/v1/retrievers/local/search", {"json": {"image_id": 2}}),
        ("POST", "/reverse_search", {"files": [image_part(picture(2))]}),
        ("GET", "/v1/retrievers", {}),
    ):
        got, wanted = one.ask(method, path, **request)
        print(got.status_code, got.text[:300])
        assert shown(got) == shown(wanted), path
