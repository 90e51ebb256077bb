"""API keys: which requests need one, and which keys allow them."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI

from deployments.http.admission.headers import DOCUMENT_FILES, DOCUMENTS
from deployments.http.problems import TYPES, documented
from deployments.keys import KeyArgs, Role, read_keys
from deployments.settings import IngressArgs
from models.errors import AmbienceError, InvalidInput, KeyLimited

METRICS = "/metrics"
HEALTH = frozenset({"/healthz", "/readyz", METRICS})
"""Paths to which no limit applies."""
WITHOUT_PICTURES = frozenset({"/", *DOCUMENTS, "/openapi.json"})
"""The page and the API's documents: they hold nothing of the collection."""
PAGE_FILES = "/static/"
SAFE_METHODS = frozenset({"GET", "HEAD"})
READING_POSTS = (
    *("/v1/search", "/v1/retrievers/", "/v1/annotate", "/v1/compare", "/v1/check", "/v1/thumbnail"),
    *("/reverse_search", "/get_image_"),
)
OF_ALL_IMAGES = ("/v1/changes", "/v1/duplicates", "/v1/jobs", "/v1/usage")
"""Beginnings of the paths that tell, or decide, something of the whole store."""
LOOK_SECONDS = 1.0
log = logging.getLogger(__name__)
SCHEMES = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
}
"""The ways to send a key, as OpenAPI's security schemes."""


class Forbidden(AmbienceError):
    """The request has no API key, or its key does not allow it."""

    status = 401
    title = "API key needed"


class ApiKeys:
    """The configured keys."""

    def __init__(self, args: IngressArgs) -> None:
        self._args = args
        self._file = args.keys_path()
        self._read_at = 0
        self._next_look = 0.0
        self._keys = _configured(args)
        self._of_file: tuple[KeyArgs, ...] = ()
        self._look_at_file()

    def check(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> KeyArgs | None:
        """The key of a request; None where it gives none and needs none. Raises Forbidden, and
        KeyLimited."""
        needed = self.needed(scope["method"], scope["path"])
        key = self._sent(headers)
        if key is not None and key.tag is not None and scope["path"].startswith(OF_ALL_IMAGES):
            raise KeyLimited(
                "a key that is limited to a tag sees no jobs, duplicates, changes or usage, which "
                "are of all images: send a key without a tag"
            )
        if not needed:
            return key
        if scope["path"] == METRICS and (key is None or key.role != "admin"):
            raise Forbidden("send an admin key as Authorization: Bearer")
        reads = _only_reads(scope["method"], scope["path"])
        if key is None or (key.role == "read" and not reads):
            what = "read or write" if reads else "write"
            raise Forbidden(f"send a {what} key as X-API-Key or Authorization: Bearer")
        return key

    def check_trusted(
        self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]
    ) -> KeyArgs | None:
        """The key of a trusted client, which needs none, if it sends one that is limited to a tag.
        Raises as `check` does."""
        key = self._sent(headers)
        return None if key is None or key.tag is None else self.check(scope, headers)

    def needed(self, method: str, path: str) -> bool:
        """Whether a request needs a key, unless its client is trusted."""
        # A browser sends no key with the OPTIONS request that asks whether it may send one.
        if path == METRICS:
            # They count all images.
            keys = (*self._args.keys, *self._of_file)
            return any(key.role == "admin" or key.tag is not None for key in keys)
        if method == "OPTIONS" or path in HEALTH or _is_document(method, path):
            return False
        if self._reading_is_open and _only_reads(method, path):
            return False
        return self._args.has_keys()

    @property
    def _reading_is_open(self) -> bool:
        return not (self._args.read_keys or self._args.keys or self._file)

    def _sent(self, headers: Mapping[bytes, bytes]) -> KeyArgs | None:
        """The known key that a request sends."""
        bearer = headers.get(b"authorization", b"").removeprefix(b"Bearer ").strip()
        given = headers.get(b"x-api-key", bearer)
        return self._find(given) if given else None

    def _find(self, given: bytes) -> KeyArgs | None:
        """The key with this secret. Each is compared, so that the time tells nothing."""
        self._look_at_file()
        digest, found = hashlib.sha256(given).hexdigest(), None
        for key in (*self._keys, *self._of_file):
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _look_at_file(self) -> None:
        """Read the file with keys if it has changed; a broken one changes nothing."""
        if self._file is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        try:
            changed = self._file.stat().st_mtime_ns
            if changed != self._read_at:
                self._of_file = read_keys(self._file)
                self._read_at = changed
        except (OSError, InvalidInput) as exc:
            log.error("the keys stay as they were: %s", exc)


def _configured(args: IngressArgs) -> tuple[KeyArgs, ...]:
    """The keys of the configuration, and the token that this instance made for its own commands."""
    own = os.environ.get("RAY_AUTH_TOKEN_PATH") if args.listen else None
    secrets: list[tuple[str, Role, str]] = []
    if own and Path(own).is_file():
        secrets.append(("command-line", "admin", Path(own).read_text().strip()))
    for role, given in (("read", args.read_keys), ("write", args.write_keys)):
        secrets += [(f"{role}-{at}", cast(Role, role), key) for at, key in enumerate(given, 1)]
    hashed = [
        KeyArgs(name=name, role=role, sha256=hashlib.sha256(secret.encode()).hexdigest())
        for name, role, secret in secrets
    ]
    return (*hashed, *args.keys)


def document_keys(app: FastAPI, keys: ApiKeys) -> None:
    """Add the security schemes to the OpenAPI document, and to each operation whether it needs a
    key."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["components"]["securitySchemes"] = SCHEMES
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                _document_operation(operation, keys.needed(method.upper(), path))
        return document

    setattr(app, "openapi", openapi)  # noqa: B010


def _document_operation(operation: MutableMapping[str, Any], needs_key: bool) -> None:
    operation["security"] = [{name: []} for name in SCHEMES] if needs_key else []
    if needs_key:
        unauthorized = {"description": "Unauthorized: the API key is missing or not allowed"}
        operation["responses"]["401"] = documented(401)[401] | unauthorized
        limited = {"description": "Forbidden: the API key is limited to a tag"}
        operation["responses"]["403"] = documented(403)[403] | limited


def _is_document(method: str, path: str) -> bool:
    files = (TYPES, PAGE_FILES, f"{DOCUMENT_FILES}/")
    documents = path in WITHOUT_PICTURES or path.startswith(files)
    return method in SAFE_METHODS and documents


def _only_reads(method: str, path: str) -> bool:
    reads = path.startswith(READING_POSTS) or "_get_similar_images_by_" in path
    return method in SAFE_METHODS or reads
