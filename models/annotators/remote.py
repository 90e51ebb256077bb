"""Captions by a model that the owner serves elsewhere, through the API of OpenAI or of Ollama.

Off by default. A picture's preview leaves this machine for the address in the configuration, and
for no other.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from PIL import Image
from pydantic import Field, field_validator

from models.annotator import Annotation, Annotator
from models.errors import InvalidInput, RetrieverUnavailable
from models.types import Options, Pixels, View

QUALITY = 85
"""Quality of the JPEG that is sent."""
MAX_ANSWER = 1 << 20
"""Maximum number of bytes of an answer."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
BUSY = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses after which a request is repeated."""
UNREADABLE = {400, 413, 415, 422}
"""HTTP statuses of a request that the server will never take, so that others go on."""
PATHS = {"openai": "/chat/completions", "ollama": "/api/chat"}


class RemoteOptions(Options):
    url: str | None = None
    """The API's base: `http://host:8000/v1` of an OpenAI-compatible server, `http://host:11434` of
    Ollama. Without one the annotator is off."""
    api: Literal["openai", "ollama"] = "openai"
    model: str | None = Field(None, min_length=1)
    """Name of the model on the server."""
    prompt: str = Field("Describe this picture in one sentence.", min_length=1)
    max_tokens: int = Field(100, ge=1, le=4096)
    key_variable: str | None = Field(None, exclude=True)
    """Name of an environment variable that holds the API key, so that no file or log does."""
    timeout: float = Field(60.0, gt=0, le=600, exclude=True)
    """Seconds within which an answer must arrive."""
    attempts: int = Field(4, ge=1, le=10, exclude=True)
    """Requests for one picture, with pauses that double, or last as the server asks."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is no http:// or https:// address")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must not hold a user, a password or a query; see `key_variable`")
        return url.rstrip("/")


class Remote(Annotator):
    """Annotator whose `text` is what the served model answers about the preview."""

    Config: ClassVar[type[Options]] = RemoteOptions
    view: ClassVar[View] = "preview"
    options: RemoteOptions

    def find(self, fetch: bool = False) -> None:
        """Check that URL, model and key are given. It does not contact the server."""
        super().find(fetch)
        given = self.options
        if given.url is None or given.model is None:
            self.forget()
            raise RetrieverUnavailable("it is off: give `url` and `model` of a server of yours")
        key = self._key()
        if key == "":
            self.forget()
            raise RetrieverUnavailable(f"the environment has no {given.key_variable}")
        if key is not None and not (key.isascii() and key.isprintable()):
            # The error of a header with such a key would show it.
            self.forget()
            raise RetrieverUnavailable(
                f"{given.key_variable} is no API key: it holds more than printable ASCII characters"
            )

    def annotate(self, pixels: Pixels) -> Annotation:
        """The answer about an RGB picture.

        Raises InvalidInput when the server refuses this picture, and RetrieverUnavailable when it
        refuses all, or does not answer in all attempts.
        """
        answer = self._ask(json.dumps(self._question(pixels)).encode())
        try:
            found = json.loads(answer)
            message = found["message"] if self._ollama else found["choices"][0]["message"]
            text = message["content"]
        except (ValueError, LookupError, TypeError, RecursionError) as exc:
            raise RetrieverUnavailable(f"{self._address} answers no chat completion") from exc
        if not isinstance(text, str):
            raise RetrieverUnavailable(f"{self._address} answers no text")
        return Annotation(text=_storable(text))

    @property
    def _ollama(self) -> bool:
        return self.options.api == "ollama"

    @property
    def _address(self) -> str:
        return f"{self.options.url}{PATHS[self.options.api]}"

    def _question(self, pixels: Pixels) -> dict[str, Any]:
        given, picture = self.options, _jpeg(pixels)
        asked: dict[str, Any] = {"model": given.model, "stream": False}
        message: dict[str, Any] = {"role": "user", "content": given.prompt}
        if self._ollama:
            message["images"] = [picture]
            options = {"num_predict": given.max_tokens, "temperature": 0}
            return asked | {"messages": [message], "options": options}
        message["content"] = [
            {"type": "text", "text": given.prompt},
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture}"}},
        ]
        return asked | {"messages": [message], "max_tokens": given.max_tokens, "temperature": 0}

    def _ask(self, body: bytes) -> bytes:
        pause = FIRST_PAUSE
        for attempt in range(1, self.options.attempts + 1):
            try:
                return self._post(body)
            except urllib.error.HTTPError as exc:
                with exc:
                    reason, wait = f"HTTP status {exc.code}", _retry_after(exc)
                if exc.code in UNREADABLE:
                    raise InvalidInput(f"{self._address} refuses the picture: {reason}") from exc
                if exc.code not in BUSY:
                    raise RetrieverUnavailable(f"{self._address}: {reason}") from exc
            except (OSError, http.client.HTTPException) as exc:
                reason, wait = _reason(exc), 0.0
            if attempt < self.options.attempts:
                # Pauses differ, so that replicas do not come back all at once.
                time.sleep(min(max(wait, pause * random.uniform(0.5, 1)), LONGEST_PAUSE))
                pause *= 2
        raise RetrieverUnavailable(
            f"{self._address}: {reason}, in {self.options.attempts} attempts"
        )

    def _post(self, question: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._address, question, headers, method="POST")
        until = time.monotonic() + self.options.timeout
        timers: list[threading.Timer] = []
        try:
            with _opener(timers).open(request, timeout=self.options.timeout) as answer:
                body = answer.read(MAX_ANSWER + 1)
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException) as exc:
            if time.monotonic() > until:
                raise TimeoutError from exc
            raise
        finally:
            for timer in timers:
                timer.cancel()
        if time.monotonic() > until:
            raise TimeoutError
        if len(body) > MAX_ANSWER:
            raise OSError(f"the answer has more than {MAX_ANSWER} bytes")
        return bytes(body)

    def _key(self) -> str | None:
        """The key, empty where the environment has none; None if none is to be sent."""
        name = self.options.key_variable
        return None if name is None else os.environ.get(name, "").strip()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry picture and key to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _opener(timers: list[threading.Timer]) -> urllib.request.OpenerDirector:
    """An opener whose connections end with their time-out, also those that send a byte now and
    then. The caller cancels the timers that it adds."""

    def ending(kind: type[http.client.HTTPConnection]) -> Any:
        class Ending(kind):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                super().connect()
                timers.append(threading.Timer(self.timeout, _shut, [self.sock]))
                timers[-1].daemon = True
                timers[-1].start()

        return Ending

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(ending(http.client.HTTPConnection), req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(ending(http.client.HTTPSConnection), req)

    return urllib.request.build_opener(_NoRedirects, Http, Https)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _jpeg(pixels: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return base64.b64encode(file.getvalue()).decode()


def _storable(text: str) -> str:
    """The text without what no store takes: halves of surrogate pairs and control characters."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split())


def _retry_after(exc: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to wait; 0 where it asks nothing."""
    try:
        return max(float(exc.headers.get("Retry-After", 0)), 0.0)
    except ValueError:
        return 0.0


def _reason(exc: Exception) -> str:
    """What went wrong, without what was sent."""
    cause = getattr(exc, "reason", exc)
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else type(cause).__name__


ANNOTATOR = Remote
