"""Commit notifications: one connection runs LISTEN, and threads wait for what it receives."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from indexes.store.postgres.connections import Connection, ConnectionPool
from indexes.store.postgres.rows import Reader
from indexes.store.postgres.writes import CHANNEL
from models.errors import StoreUnavailable

RETRY = 1.0
"""Seconds between two attempts to listen."""
IDLE_SECONDS = 5.0
"""Seconds of silence after which the connection is tested."""
CHECK_INTERVAL = 0.1
"""Seconds between two checks whether a waiting thread was told to end."""


class Listener:
    """Listens in a thread that the first `wait` starts, and reconnects after an error."""

    def __init__(self, connections: ConnectionPool) -> None:
        self._connections = connections
        self._changed = threading.Condition()
        self._newest = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None

    def wait(self, after: int, seconds: float, ended: threading.Event) -> None:
        """Wait until a seq above `after` is announced, `ended` is set, or `seconds` have passed."""
        until = time.monotonic() + seconds
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, daemon=True)
                self._thread.start()
            while self._newest <= after and not (ended.is_set() or self._closing.is_set()):
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, CHECK_INTERVAL))

    def close(self) -> None:
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
            thread, connection = self._thread, self._connection
        if thread is None:
            return
        if connection is not None:
            # This wakes the listening thread; no other thread may use the connection itself.
            with suppress(OSError), socket.socket(fileno=connection.fileno()) as ours:
                ours.shutdown(socket.SHUT_RDWR)
                ours.detach()
        thread.join(self._connections.options.connect_timeout)

    def _listen(self) -> None:
        while not self._closing.is_set():
            with suppress(StoreUnavailable), self._connections.translated():
                self._listen_once()
            self._closing.wait(RETRY)

    def _listen_once(self) -> None:
        connection = self._connections.connect()
        try:
            connection.execute(f"LISTEN {CHANNEL}".encode())
            # Commits made before LISTEN were not announced to this connection.
            self._record_seq(Reader(connection).head())
            with self._changed:
                self._connection = connection
            while not self._closing.is_set():
                for notice in connection.notifies(timeout=IDLE_SECONDS):
                    self._record_seq(int(notice.payload))
                connection.execute("SELECT 1")
        finally:
            with self._changed:
                self._connection = None
            connection.close()

    def _record_seq(self, seq: int) -> None:
        with self._changed:
            self._newest = seq
            self._changed.notify_all()
