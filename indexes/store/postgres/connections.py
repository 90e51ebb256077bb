"""A pool of connections to PostgreSQL; only this module handles psycopg's errors.

It replaces psycopg_pool, because a call must fail at once, with the reason, while the server is
unreachable, and the first call after the server's return must succeed. psycopg_pool makes callers
wait for its time-out, retries at growing intervals, and hides the reason.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from pydantic import Field

from models.errors import InvalidInput, StoreUnavailable
from models.types import Options

T = TypeVar("T")

ATTEMPTS = 8
CONNECT_PAUSE = 0.5
"""Seconds after a failed attempt to connect in which no other attempt is made."""
CONFLICTS = ("40001", "40P01")
"""SQLSTATEs of transactions that the server rolled back because of a concurrent transaction."""
CONNECTION_LOST = ("08", "57P")
"""Prefixes of the SQLSTATEs that mean that the connection is lost."""
ADVICE = {
    "42501": "the database user lacks a permission: it must own the database",
    "25006": "it is read-only: use the address of the primary server",
    "53100": "the server's disk is full; nothing was written",
    "53": "the server is out of resources; nothing was written",
    "55P03": "another transaction held a lock for too long; try again",
    "57014": "the statement timed out; nothing was written",
    "57P03": "the server is starting or stopping; try again",
}
UNCERTAIN = (
    "the connection was lost during a commit, so it may or may not be written: "
    "repeat it, what is there already is not written twice"
)


class PostgresOptions(Options):
    connections: int = Field(default=8, ge=1)
    """Maximum number of pooled connections of one process. The listener and each open scan use one
    more each."""
    originals_bytes: int = Field(default=2 << 30, ge=0)
    """Maximum total bytes of originals kept for completion; the oldest are removed first."""
    connect_timeout: float = Field(default=3.0, gt=0)
    """Maximum seconds to connect, and to wait for a free connection."""
    head_timeout: float = Field(default=2.0, gt=0)
    """Maximum seconds to read the head, which every search does."""
    read_timeout: float = Field(default=10.0, gt=0)
    write_timeout: float = Field(default=30.0, gt=0)
    """Maximum seconds of one statement; a statement waits at most half as long for a lock."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that never waits more than `limit` seconds for a response, even if the server
    is gone."""

    limit: float = 10.0
    committing = False
    """Whether a commit is in progress. If the connection is lost then, it is unknown whether the
    transaction was committed."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        try:
            return super().wait(gen, interval, self.limit if timeout is None else timeout)
        except psycopg.OperationalError as exc:
            # An error with a SQLSTATE is an answer of the server, in the midst of a pipeline.
            silent = timeout is None and exc.sqlstate is None
            if silent and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


class ConnectionPool:
    """A connection pool shared by threads; `check` runs on each new connection."""

    def __init__(self, url: str, options: PostgresOptions) -> None:
        self.options = options
        self._parameters = _parameters(url, options)
        self._pid = os.getpid()
        self._free = threading.Semaphore(options.connections)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False
        self._last_connect_failure: tuple[float, str] = (0.0, "")
        self.check: Callable[[Connection], None] = lambda _: None

    def run(self, work: Callable[[Connection], T], limit: float) -> T:
        """Run `work` on a pooled connection, and retry it if nothing of it was committed.

        `limit` is the maximum number of seconds to wait for each response of the server. Raises
        StoreUnavailable.
        """
        for attempt in range(ATTEMPTS):
            with self._borrow() as (connection, fresh):
                connection.limit = limit
                try:
                    return work(connection)
                except psycopg.Error as exc:
                    lost = _is_lost(connection, exc)
                    if lost and connection.committing:
                        raise StoreUnavailable(f"{self._name}: {UNCERTAIN}") from exc
                    again = not fresh if lost else exc.sqlstate in CONFLICTS
                    if not again or attempt == ATTEMPTS - 1:
                        raise self._unavailable(exc) from exc
                    if lost:
                        self._drop_idle()
        raise AssertionError("unreachable")

    def connect(self) -> Connection:
        """Open a connection outside the pool. Raises StoreUnavailable."""
        self._check_usable()
        until, reason = self._last_connect_failure
        if time.monotonic() < until:
            raise StoreUnavailable(reason)
        try:
            connection = Connection.connect(**self._parameters, autocommit=True)
            try:
                self.check(connection)
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as exc:
            failure = self._unavailable(exc)
            self._last_connect_failure = (time.monotonic() + CONNECT_PAUSE, str(failure))
            raise failure from exc
        return connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Translate psycopg's errors to StoreUnavailable with advice."""
        try:
            yield
        except psycopg.Error as exc:
            raise self._unavailable(exc) from exc

    def close(self) -> None:
        self._closed = True
        self._drop_idle()

    @contextmanager
    def _borrow(self) -> Iterator[tuple[Connection, bool]]:
        """Lend a connection, with whether it is new."""
        self._check_usable()
        if not self._free.acquire(timeout=self.options.connect_timeout):
            raise StoreUnavailable(
                f"{self._name}: all {self.options.connections} connections are busy; try again"
            )
        try:
            with self._lock:
                found = self._idle.pop() if self._idle else None
            connection = found or self.connect()
            try:
                yield connection, found is None
            finally:
                self._return(connection)
        finally:
            self._free.release()

    def _return(self, connection: Connection) -> None:
        connection.committing = False
        if connection.info.transaction_status != TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
        if self._closed or connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        if os.getpid() == self._pid:
            for connection in idle:
                connection.close()

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store was closed: open it again")
        if os.getpid() != self._pid:
            raise StoreUnavailable(
                "the store was open when this process was forked; start processes with spawn, or "
                "open the store after the fork"
            )

    @property
    def _name(self) -> str:
        given = self._parameters
        return f"the database {given.get('dbname', '')!r} on {given.get('host', 'this host')!r}"

    def _unavailable(self, exc: psycopg.Error) -> StoreUnavailable:
        state = exc.sqlstate or ""
        usual = "it can't be used" if state else "it can't be reached"
        advice = next((ADVICE[at] for at in (state, state[:2]) if at in ADVICE), usual)
        said = " ".join(str(exc).split()) or type(exc).__name__
        password = str(self._parameters.get("password") or "")
        if password:
            said = said.replace(password, "***")
        return StoreUnavailable(f"{self._name}: {advice} ({said})")


def _is_lost(connection: Connection, exc: psycopg.Error) -> bool:
    return connection.closed or (exc.sqlstate or "").startswith(CONNECTION_LOST)


def _parameters(url: str, options: PostgresOptions) -> dict[str, Any]:
    """Connection parameters; those of the URL override the defaults."""
    try:
        given: dict[str, Any] = dict(conninfo_to_dict(url))
    except psycopg.Error:
        # psycopg's error quotes the URL, which may contain a password.
        raise InvalidInput(
            "no valid postgresql://USER:PASSWORD@HOST:PORT/DATABASE; write special characters "
            "in its parts as %XX",
            "store",
        ) from None
    lock = options.write_timeout / 2
    ours = {
        "statement_timeout": int(options.write_timeout * 1000),
        "lock_timeout": int(lock * 1000),
        "idle_in_transaction_session_timeout": 60_000,
        "synchronous_commit": "on",
        "search_path": "ambience",
    }
    settings = " ".join(f"-c {name}={value}" for name, value in ours.items())
    return {
        "connect_timeout": max(1, round(options.connect_timeout)),
        "application_name": "ambience",
        "client_encoding": "UTF8",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int(options.write_timeout * 1000),
        **{name: value for name, value in given.items() if value is not None},
        "options": f"{settings} {given.get('options') or ''}".strip(),
    }
