"""Connections of the service's own listener: a bounded number, none of which waits for ever."""

from __future__ import annotations

import asyncio
import resource

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0
"""Seconds within which the headers of a request must arrive."""
HEADER_BYTES = 2**19
CONNECTIONS_PER_CLIENT = 256
FILES_FOR_CONNECTIONS = 0.5
"""Share of the open files that this process may have."""


class BoundedConnection(HttpToolsProtocol):
    """A connection that makes way for others when there are too many and it is idle."""

    _timer: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Await the headers, and make room for this connection."""
        super().connection_made(transport)
        self._await_headers()
        theirs = [one for one in self._others() if one.client and one.client[0] == self._host()]
        if len(theirs) >= CONNECTIONS_PER_CLIENT:
            self._make_room(theirs)
        elif len(self.connections) > max_connections():
            self._make_room(self._others())

    def connection_lost(self, exc: Exception | None) -> None:
        """End the timer."""
        self._end_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of headers, which the parser holds in memory."""
        if self._timer is not None:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._header_bytes > HEADER_BYTES:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """End the wait for headers."""
        self._end_timer()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Await the headers of the next request."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._await_headers()

    def _await_headers(self) -> None:
        self._end_timer()
        self._header_bytes = 0
        self._idle_since = self.loop.time()
        self._timer = self.loop.call_later(HEADER_SECONDS, self._close_idle)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_idle(self) -> None:
        if self._is_idle() and not self.transport.is_closing():
            self.transport.close()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _host(self) -> str | None:
        return self.client[0] if self.client else None

    def _others(self) -> list[BoundedConnection]:
        return [
            one for one in self.connections if isinstance(one, BoundedConnection) and one != self
        ]

    def _make_room(self, others: list[BoundedConnection]) -> None:
        """Close the connection that has been idle longest; without one, this."""
        idle = [one for one in others if one._is_idle() and not one.transport.is_closing()]
        closed = min(idle, key=lambda one: one._idle_since, default=self)
        closed.transport.close()


def max_connections() -> int:
    """Connections that the limit of open files allows."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, int(files * FILES_FOR_CONNECTIONS))
