"""Both clients, against a real service, and against one that fails."""

from __future__ import annotations

import io
import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from ambience import calls, client
from ambience.calls import Call
from ambience.client import AsyncClient, Client
from ambience.problems import (
    BrokenPicture,
    DuplicatePicture,
    ImageNotFound,
    InvalidInput,
    Overloaded,
    ServiceUnreachable,
    TooManyRequests,
    UnsupportedPicture,
)
from tests.conftest import ROOT, Service, free_port
from tests.drawing import jpeg


@pytest.fixture
def ambience(service: Service) -> Iterator[Client]:
    with Client(service.url) as made:
        yield made


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)


class Failing(ThreadingHTTPServer):
    """A server that gives these answers in order, and notes what it was sent."""

    daemon_threads = True

    def __init__(self, *answers: tuple[int, dict[str, str], bytes] | None) -> None:
        self.answers = list(answers)
        self.bodies: list[bytes] = []
        self.keys: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Failing

    def handle_any(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        self.server.bodies.append(self.rfile.read(size))
        self.server.keys.append(self.headers.get("Idempotency-Key"))
        answer = self.server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


BUSY = (503, {"Retry-After": "0"}, b'{"type": "/problems/overloaded", "detail": "busy"}')
ADDED = (201, {}, b'{"image_id": 1, "seq": 1, "retrievers": {}}')


def test_the_example_of_the_docs_runs(
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "docs" / "how-to" / "use-the-client.md").read_text()
    (example,) = re.findall("```python\n(.*?)```", page, re.DOTALL)
    for name in ("cat", "copy", "crop"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(1))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "use-the-client.md", "exec"), {"URL": service.url})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a copy of image ")
    assert lines[1].endswith("same [1.0, 1.0]")
    assert len(lines) == 3


def test_what_is_added_is_found_listed_and_deleted(ambience: Client, tmp_path: Path) -> None:
    path = tmp_path / "a picture ü.jpg"
    path.write_bytes(jpeg(1))
    first = ambience.add(path, 7, metadata={"album": "ä"})
    assert first["image_id"] == 7
    second = ambience.add(io.BytesIO(jpeg(2)))["image_id"]
    third = ambience.add(jpeg(3))["image_id"]
    assert [image["image_id"] for image in ambience.images()] == sorted({7, second, third})
    assert [image["image_id"] for image in ambience.images(metadata={"album": "ä"})] == [7]
    assert ambience.image(7)["metadata"] == {"album": "ä"}
    assert ambience.thumbnail(7).startswith(b"\xff\xd8")
    found = ambience.search(path, k=5, explain=True)
    assert found["hits"][0]["image_id"] == 7
    assert found["hits"][0]["relation"] == "same"
    assert ambience.search(image_ids=[second])["hits"][0]["image_id"] == second
    near = ambience.search_retriever("phash", path, k=1, variants="dihedral")["hits"]
    assert (near[0]["image_id"], near[0]["distance"]) == (7, 0)
    mirrored = ImageOps.mirror(Image.open(path))
    mirrored.save(tmp_path / "mirrored.png")
    compared = ambience.compare(tmp_path / "mirrored.png", image_ids=[7])
    assert (compared["relation"], compared["changes"]) == ("same", ["mirrored"])
    ambience.delete(7)
    with pytest.raises(ImageNotFound) as caught:
        ambience.image(7)
    assert (caught.value.status, caught.value.field) == (404, "image_id")
    assert ambience.delete_many([7, second])["deleted"] == [second]


def test_a_batch_and_an_edit(ambience: Client) -> None:
    rows = ambience.add_many([jpeg(1), b"no picture"], [{"image_id": 3}, {}])
    assert [row["status"] for row in rows] == [201, 415]
    edited = ambience.edit(3, annotations={"caption": {"text": "a cat", "tags": ["cat"]}})
    assert edited["annotations"]["caption"]["tags"] == ["cat"]
    assert [image["image_id"] for image in ambience.images(tag=["cat"])] == [3]
    assert ambience.edit(3, annotations={"caption": None})["annotations"] == {}


def test_iterators_go_through_all_pages(ambience: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGE", 2)
    before = ambience.changes()["head"]
    for number in range(5):
        ambience.add(jpeg(number), number)
    assert [image["image_id"] for image in ambience.images()] == [*range(5)]
    hits = list(ambience.hits(jpeg(1), k=2, min_confidence=0))
    assert len({hit["image_id"] for hit in hits}) == len(hits) == 5
    ambience.delete(2)
    followed = dict[int, tuple[bool, int]]()
    for change, head in ambience.follow(before):
        followed[change["image_id"]] = (change["deleted"], head)
        if len(followed) == 5 and change["deleted"]:
            break
    assert {number for number, (deleted, _) in followed.items() if deleted} == {2}
    assert ambience.changes(followed[2][1])["changes"] == []


def test_refusals_are_problems_of_their_types(ambience: Client) -> None:
    with pytest.raises(UnsupportedPicture) as caught:
        ambience.add(b"no picture")
    assert caught.value.field == "image"
    with pytest.raises(BrokenPicture):
        ambience.add(jpeg(1)[:200])
    with pytest.raises(InvalidInput, match="k"):
        ambience.search(jpeg(1), k=0)
    stored = ambience.add(jpeg(1))["image_id"]
    with pytest.raises(DuplicatePicture) as copied:
        ambience.add(jpeg(1), unless_same=True)
    assert copied.value.image_id == stored


def test_a_retriever_has_a_state(ambience: Client) -> None:
    states = {row["name"]: row["state"] for row in ambience.retrievers()}
    assert states == {"color": "ready", "local": "ready", "phash": "ready"}


@pytest.mark.anyio
async def test_the_async_client_does_the_same(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(1))
    async with AsyncClient(service.url) as ambience:
        added = await ambience.add(path, metadata={"a": 1})
        await ambience.add(jpeg(2))
        assert len([image async for image in ambience.images()]) == 2
        hits = [hit async for hit in ambience.hits(path, k=1, min_confidence=0)]
        assert hits[0]["image_id"] == added["image_id"]
        assert len(hits) == 2
        assert [row["status"] for row in await ambience.add_many([jpeg(3)])] == [201]
        with pytest.raises(ImageNotFound):
            await ambience.image(10**6)
        async for change, head in ambience.follow(added["seq"]):
            assert (await ambience.changes(head))["head"] >= head
            assert change["deleted"] is False
            break


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)


def test_an_add_is_tried_again_whole_and_under_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(1))
    for picture in (path, jpeg(1), io.BytesIO(jpeg(1))):
        with closing(Failing(BUSY, None, ADDED)) as server, Client(server.url) as ambience:
            assert ambience.add(picture)["image_id"] == 1
            assert len({*server.keys}) == 1
            assert server.keys[0]
            assert all(jpeg(1) in body for body in server.bodies)


@pytest.mark.anyio
async def test_the_async_client_tries_again() -> None:
    with closing(Failing(BUSY, None, ADDED)) as server:
        async with AsyncClient(server.url) as ambience:
            assert (await ambience.add(jpeg(1)))["image_id"] == 1
        assert all(jpeg(1) in body for body in server.bodies)


def test_attempts_end() -> None:
    with closing(Failing(*itertools.repeat(BUSY, 3))) as server:
        with Client(server.url, retries=2) as ambience, pytest.raises(Overloaded, match="busy"):
            ambience.image(1)
        assert len(server.bodies) == 3


def test_what_is_not_idempotent_is_sent_once() -> None:
    with closing(Failing(BUSY)) as server:
        call = Call("POST", "/other", calls.image(1).read, json={}, is_idempotent=False)
        with Client(server.url) as ambience, pytest.raises(Overloaded):
            ambience.send(call)
        assert len(server.bodies) == 1


def test_a_long_retry_after_is_the_callers_to_wait() -> None:
    refused = (429, {"Retry-After": "60"}, b'{"type": "/problems/too-many-requests"}')
    with (
        closing(Failing(refused)) as server,
        Client(server.url) as ambience,
        pytest.raises(TooManyRequests),
    ):
        ambience.image(1)


def test_a_service_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, retries=1) as ambience, pytest.raises(ServiceUnreachable, match=url):
        ambience.retrievers()
