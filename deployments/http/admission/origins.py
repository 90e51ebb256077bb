"""Which names the service answers to, and which web pages may change something.

A page of any site that the owner's browser visits can send forms to a service on loopback, and a
site whose name is made to resolve to 127.0.0.1 can even read the answers (DNS rebinding).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.types import Scope

from models.errors import AmbienceError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
WILDCARD = "0.0.0.0"
DEFAULT_PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s:/?#@\[\]\\]+)(?::(?P<port>\d{1,5}))?", re.I)


class UnknownHost(AmbienceError):
    """The `Host` header names neither this machine nor one of `allowed_hosts`."""

    status = 403
    title = "Unknown host"


class ForeignOrigin(AmbienceError):
    """A web page of another origin sent this; the service takes it only from `cors_origins`."""

    status = 403
    title = "Foreign origin"


class Origins:
    """The hosts and origins of requests that are accepted.

    `bound` is the host on which the service listens. On a wildcard any IP address is a name of
    the service: what a rebinding site puts into `Host` is its own name, never an address.
    """

    def __init__(self, bound: str, allowed_hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._names = {_plain(name) for name in (*allowed_hosts, "localhost", bound)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        address = _address(_plain(bound))
        self._any_address = address is not None and address.is_unspecified

    def check(self, scope: Scope) -> None:
        """Raises UnknownHost, or ForeignOrigin for a request that is not safe."""
        hosts = _values(scope, b"host")
        # No browser leaves `Host` out.
        if hosts and (len(hosts) > 1 or not self._is_ours(hosts[0])):
            shown = ", ".join(hosts)[:100]
            raise UnknownHost(
                f"Host: {shown!r} is no name of this service; list it in `allowed_hosts`"
            )
        if scope["method"] not in SAFE_METHODS:
            self._check_origin(scope, hosts[0] if hosts else "")

    def _check_origin(self, scope: Scope, host: str) -> None:
        origins = [origin.lower() for origin in _values(scope, b"origin")]
        if origins and ("*" in self._origins or self._origins.issuperset(origins)):
            return
        sites = _values(scope, b"sec-fetch-site")
        foreign = any(not _is_same(origin, host) for origin in origins)
        if foreign or any(site.lower() not in ("same-origin", "none") for site in sites):
            shown = ", ".join(origins)[:100] or "another site"
            raise ForeignOrigin(
                f"Origin: a page of {shown} may not do this; list its origin in `cors_origins`"
            )

    def _is_ours(self, host: str) -> bool:
        split = HOST.fullmatch(host)
        if split is None:
            return False
        name = _plain(split["name"])
        address = _address(name)
        if address is not None and (address.is_loopback or self._any_address):
            return True
        parents = (name[at:] for at, letter in enumerate(name) if letter == ".")
        return "*" in self._names or name in self._names or not self._names.isdisjoint(parents)


def _values(scope: Scope, header: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for name, value in scope["headers"] if name == header]


def _plain(name: str) -> str:
    """A host name or address in lower case, without brackets and the dot of the root."""
    return name.lower().strip("[]").removesuffix(".")


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _is_same(origin: str, host: str) -> bool:
    """Whether an `Origin` has the host and port of a `Host`."""
    split = HOST.fullmatch(host)
    try:
        of = urlsplit(origin)
        default = DEFAULT_PORTS[of.scheme]
        origin_port = of.port or default
    except (KeyError, ValueError):
        return False
    if split is None or of.hostname is None:
        return False
    same_name = _plain(of.hostname) == _plain(split["name"])
    return same_name and origin_port == int(split["port"] or default)
