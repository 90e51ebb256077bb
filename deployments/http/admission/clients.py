"""Which address a request comes from, also behind proxies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from pydantic import IPvAnyNetwork

from deployments.settings import IngressArgs

FORWARDED = (b"x-forwarded-for", b"forwarded")
Address = IPv4Address | IPv6Address


class Clients:
    """The addresses of clients, and those that need no key."""

    def __init__(self, args: IngressArgs) -> None:
        self._proxies = args.trusted_proxies
        self._trusted = args.trusted_clients

    def address_of(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> str:
        """The client's address; of a trusted proxy's request, the last one in `X-Forwarded-For`
        that is no trusted proxy's."""
        peer = str((scope.get("client") or ("",))[0])
        if not self._is_proxy(peer):
            return peer
        passed_on = headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        for one in reversed([part.strip() for part in passed_on]):
            if _address(one) is None:
                break
            peer = one
            if not self._is_proxy(one):
                break
        return peer

    def trusts(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request needs no key: not one that a proxy which is not trusted passed on."""
        peer = str((scope.get("client") or ("",))[0])
        if any(name in headers for name in FORWARDED) and not self._is_proxy(peer):
            return False
        return _is_in(self._trusted, self.address_of(scope, headers))

    def _is_proxy(self, address: str) -> bool:
        return _is_in(self._proxies, address)


def group_of(address: str) -> str:
    """Whose address it is: of IPv6, a client has a whole network of 64 bits."""
    found = _address(address)
    return str(ip_network((int(found), 64), False)) if isinstance(found, IPv6Address) else address


def _is_in(networks: Sequence[IPvAnyNetwork], address: str) -> bool:
    found = _address(address) if networks else None
    return found is not None and any(found in network for network in networks)


def _address(text: str) -> Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
