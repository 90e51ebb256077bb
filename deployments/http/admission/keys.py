"""API keys: which requests need one, and which keys allow them."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, MutableMapping
from ipaddress import ip_address
from typing import Any

from fastapi import FastAPI

from deployments.http.problems import TYPES, documented
from deployments.settings import IngressArgs
from models.errors import AmbienceError

HEALTH = frozenset({"/healthz", "/readyz", "/metrics"})
WITHOUT_PICTURES = frozenset({"/", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc"})
"""The page and the API's documents: they hold nothing of the collection."""
SAFE_METHODS = frozenset({"GET", "HEAD"})
READING_POSTS = (
    *("/v1/search", "/v1/retrievers/", "/v1/annotate"),
    *("/reverse_search", "/get_image_"),
)
FORWARDED = (b"x-forwarded-for", b"forwarded")
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
    """The configured keys, and the clients that need none."""

    def __init__(self, args: IngressArgs) -> None:
        self._read = args.read_keys
        self._write = args.write_keys
        self._trusted = args.trusted_clients

    def check(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> None:
        """Raise Forbidden unless the request needs no key or has one that allows it."""
        if not self.needed(scope["method"], scope["path"]) or self._trusts(scope, headers):
            return
        reads = _only_reads(scope["method"], scope["path"])
        allowed = (*self._write, *(self._read if reads else ()))
        bearer = headers.get(b"authorization", b"").removeprefix(b"Bearer ").strip()
        given = headers.get(b"x-api-key", bearer)
        if not any(hmac.compare_digest(given, key.encode()) for key in allowed):
            what = "read or write" if reads else "write"
            raise Forbidden(f"send a {what} key as X-API-Key or Authorization: Bearer")

    def needed(self, method: str, path: str) -> bool:
        """Whether a request needs a key, unless its client is trusted."""
        # A browser sends no key with the OPTIONS request that asks whether it may send one.
        if method == "OPTIONS" or path in HEALTH or _is_document(method, path):
            return False
        if not self._read and _only_reads(method, path):
            return False
        return bool(self._read or self._write)

    def _trusts(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> bool:
        """Whether the client's address is trusted. Behind a proxy, the address is the proxy's."""
        client = scope.get("client")
        if not self._trusted or client is None or any(name in headers for name in FORWARDED):
            return False
        try:
            address = ip_address(client[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._trusted)


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


def _is_document(method: str, path: str) -> bool:
    documents = path in WITHOUT_PICTURES or path.startswith(TYPES)
    return method in SAFE_METHODS and documents


def _only_reads(method: str, path: str) -> bool:
    reads = path.startswith(READING_POSTS) or "_get_similar_images_by_" in path
    return method in SAFE_METHODS or reads
