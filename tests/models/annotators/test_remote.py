"""Captions from a real HTTP server that speaks as OpenAI's and Ollama's APIs do."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.annotators import remote
from models.annotators.remote import Remote
from models.errors import InvalidInput, RetrieverUnavailable
from models.registry import make_annotator
from tests.drawing import scene

KEY = "sk-very-secret"
PIXELS = np.asarray(scene(1, 96, 64))


class Server(ThreadingHTTPServer):
    """Answers with the size of the picture; `failures` are statuses of the next answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []
        self.failures: list[int] = []
        self.retry_after: str | None = None
        self.raw: bytes | None = None
        self.stall = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers["Authorization"], body))
        time.sleep(self.server.stall)
        if self.server.failures:
            status = self.server.failures.pop(0)
            location = {"Location": f"{self.server.url}/elsewhere"} if status == 302 else {}
            return self.answer(status, b"{}", location)
        if self.server.raw is not None:
            return self.answer(200, self.server.raw)
        if self.path == "/api/chat":
            encoded = body["messages"][0]["images"][0]
        elif self.path == "/v1/chat/completions":
            url = body["messages"][0]["content"][1]["image_url"]["url"]
            encoded = url.removeprefix("data:image/jpeg;base64,")
        else:
            return self.answer(404, b"{}")
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            message = {"role": "assistant", "content": f" a picture\nof {image.size} "}
        openai = {"choices": [{"message": message}]}
        found = {"message": message} if self.path == "/api/chat" else openai
        return self.answer(200, json.dumps(found).encode())

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if self.server.retry_after is not None:
            self.send_header("Retry-After", self.server.retry_after)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.05)
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def annotator(server: Server, path: str = "/v1", **options: Any) -> Remote:
    given = {"url": f"{server.url}{path}", "model": "llava", "timeout": 10, **options}
    made = make_annotator("remote", given)
    assert isinstance(made, Remote)
    made.load()
    return made


def test_an_openai_compatible_server_is_asked_with_picture_prompt_and_key(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RetrieverUnavailable, match="no MY_KEY"):
        annotator(server, key_variable="MY_KEY")
    monkeypatch.setenv("MY_KEY", KEY)
    said = annotator(server, key_variable="MY_KEY", prompt="What is it?").annotate(PIXELS)
    assert said.text == "a picture of (96, 64)"
    ((path, authorization, body),) = server.requests
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert (body["model"], body["max_tokens"], body["stream"]) == ("llava", 100, False)
    assert body["messages"][0]["content"][0] == {"type": "text", "text": "What is it?"}


def test_ollama_is_asked_in_its_own_way(server: Server) -> None:
    said = annotator(server, "/", api="ollama", max_tokens=7).annotate(PIXELS)
    assert said.text == "a picture of (96, 64)"
    ((path, authorization, body),) = server.requests
    assert (path, authorization) == ("/api/chat", None)
    assert body["options"]["num_predict"] == 7
    assert body["messages"][0]["content"] == "Describe this picture in one sentence."


@pytest.mark.parametrize("failures", [[503], [429, 500]])
def test_a_busy_server_is_asked_again_later(server: Server, failures: list[int]) -> None:
    server.failures = list(failures)
    assert annotator(server).annotate(PIXELS).text
    assert len(server.requests) == len(failures) + 1


def test_pauses_last_as_long_as_the_server_asks_or_grow(server: Server) -> None:
    server.failures, server.retry_after = [429], "0.6"
    began = time.monotonic()
    annotator(server).annotate(PIXELS)
    assert time.monotonic() - began >= 0.6
    server.failures, server.retry_after = [503, 503, 503], None
    began = time.monotonic()
    annotator(server).annotate(PIXELS)
    assert time.monotonic() - began >= (0.05 + 0.1 + 0.2) / 2


def test_after_the_last_attempt_it_is_unavailable(server: Server) -> None:
    server.failures = [503] * 9
    with pytest.raises(RetrieverUnavailable, match="HTTP status 503, in 3 attempts"):
        annotator(server, attempts=3).annotate(PIXELS)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_a_refusal_or_a_redirect_is_final(server: Server, status: int) -> None:
    server.failures = [status]
    with pytest.raises(RetrieverUnavailable, match=f"HTTP status {status}$"):
        annotator(server).annotate(PIXELS)
    assert [path for path, _, _ in server.requests] == ["/v1/chat/completions"]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_picture_that_the_server_refuses_is_not_tried_again(server: Server, status: int) -> None:
    server.failures = [status]
    with pytest.raises(InvalidInput, match=f"refuses the picture: HTTP status {status}$"):
        annotator(server).annotate(PIXELS)
    assert len(server.requests) == 1


def test_no_answer_in_time_is_unavailable(server: Server) -> None:
    server.stall = 1.0
    began = time.monotonic()
    with pytest.raises(RetrieverUnavailable, match="no answer in time, in 2 attempts"):
        annotator(server, timeout=0.2, attempts=2).annotate(PIXELS)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("sent", [b"H", b"HTTP/1.0 200 OK\r\nX-Slow: ", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_a_server_that_sends_a_byte_now_and_then_has_no_more_time(sent: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def drip() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(sent)
                for _ in range(200):
                    time.sleep(0.05)
                    connection.sendall(b"x")

        threading.Thread(target=drip, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        options = {"url": url, "model": "llava", "timeout": 0.5, "attempts": 1}
        made = make_annotator("remote", options)
        made.load()
        began = time.monotonic()
        with pytest.raises(RetrieverUnavailable, match="no answer in time"):
            made.annotate(PIXELS)
        assert time.monotonic() - began < 5


def test_a_server_that_is_not_there_is_named_with_the_reason(server: Server) -> None:
    made = annotator(server, attempts=1)
    server.shutdown()
    server.server_close()
    with pytest.raises(
        RetrieverUnavailable, match=r"127\.0\.0\.1.*Connection refused, in 1 attempts"
    ):
        made.annotate(PIXELS)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"{}", b'{"choices": []}', b"<html>", b"\xff"]
)
def test_an_answer_of_another_kind_is_unavailable(server: Server, raw: bytes) -> None:
    server.raw = raw
    with pytest.raises(RetrieverUnavailable, match="answers no chat completion"):
        annotator(server).annotate(PIXELS)


def test_an_answer_without_text_or_too_large_is_unavailable(server: Server) -> None:
    server.raw = b'{"choices": [{"message": {"content": null}}]}'
    with pytest.raises(RetrieverUnavailable, match="answers no text"):
        annotator(server).annotate(PIXELS)
    server.raw = b'"' + b"x" * (1 << 20) + b'"'
    with pytest.raises(RetrieverUnavailable):
        annotator(server, attempts=1).annotate(PIXELS)


def test_the_key_is_in_no_log_no_error_no_option_and_no_fingerprint(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    made = annotator(server, key_variable="MY_KEY", attempts=2)
    with caplog.at_level(logging.DEBUG):
        made.annotate(PIXELS)
        server.failures = [503, 503, 401]
        for _ in range(2):
            with pytest.raises(RetrieverUnavailable) as refused:
                made.annotate(PIXELS)
            causes = [refused.value, refused.value.__cause__]
            assert not any(KEY in f"{one}{one!r}" for one in causes)
    assert KEY not in caplog.text
    assert KEY not in f"{made.options}{made.options!r}{made.options.model_dump_json()}"
    assert made.fingerprint == annotator(server).fingerprint
    assert made.fingerprint != annotator(server, prompt="What?").fingerprint


@pytest.mark.parametrize("end", ["\r\nX-Other: 1", "\x1b", "é", "\u2028"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}{end}{KEY}")
    with pytest.raises(RetrieverUnavailable, match="MY_KEY is no API key") as refused:
        annotator(server, key_variable="MY_KEY")
    assert KEY not in str(refused.value)


def test_a_key_may_end_in_a_line_break(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    annotator(server, key_variable="MY_KEY").annotate(PIXELS)
    assert server.requests[-1][1] == f"Bearer {KEY}"


def test_an_answer_that_no_store_takes_is_cleaned(server: Server) -> None:
    content = json.dumps("a\x00 cat\x1b[31m \ud800 on a mat\u202e")
    server.raw = b'{"choices": [{"message": {"content": %s}}]}' % content.encode()
    assert annotator(server).annotate(PIXELS).text == "a cat [31m on a mat"


def test_a_deeply_nested_answer_is_no_chat_completion(server: Server) -> None:
    server.raw = b"[" * 100_000
    with pytest.raises(RetrieverUnavailable, match="answers no chat completion"):
        annotator(server).annotate(PIXELS)


def test_without_a_server_it_is_off() -> None:
    for given in ({}, {"url": "http://127.0.0.1:9"}, {"model": "llava"}):
        with pytest.raises(RetrieverUnavailable, match="give `url` and `model`"):
            make_annotator("remote", given).load()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "localhost:11434", "http://", "http://u:p@host", "http://h/?k=1"]
)
def test_an_address_that_is_none_is_refused_by_its_name(url: str) -> None:
    with pytest.raises(InvalidInput, match="url"):
        make_annotator("remote", {"url": url, "model": "llava"})
