"""A server that stops, cuts connections, hangs or is full: errors name it, and work resumes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexes.store.postgres.connections import PostgresOptions
from indexes.store.postgres.store import PostgresStore
from models.errors import StoreUnavailable
from tests.indexes.pictures import PHASH, picture, row_of, scanned, tail, upload
from tests.indexes.replica.followers import best, follow, ready
from tests.indexes.store.forks import wait_for
from tests.indexes.tiny_index import nearest
from tests.postgres_server import NOBODY, PostgresServer


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(url)
    yield store
    store.close()


class Load:
    """Writers that continue after errors and record what was acknowledged."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ended = threading.Event()
        self.acknowledged: dict[int, str] = {}
        self.tried: dict[int, set[str]] = {}
        self.refused = 0
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._write, args=(n,)) for n in range(3)]

    def _write(self, first: int) -> None:
        store = PostgresStore(self.url)
        try:
            for step in range(10**9):
                if self.ended.is_set():
                    break
                image_id, content = 10 * first + step % 5, f"{first} {step}"
                self.tried.setdefault(image_id, set()).add(content)
                try:
                    store.put(picture(image_id, content))
                    self.acknowledged[image_id] = content
                    self.tried[image_id] = {content}
                except StoreUnavailable:
                    self.refused += 1
                    time.sleep(0.01)
        except BaseException as exc:  # noqa: BLE001 (looked at by the test)
            self.errors.append(exc)
        finally:
            store.close()

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def moves(self) -> None:
        """Wait until every writer has another acknowledged write."""
        before = dict(self.acknowledged)
        wait_for(
            lambda: all(
                any(self.acknowledged.get(10 * n + i) != before.get(10 * n + i) for i in range(5))
                for n in range(3)
            ),
            60,
        )

    def check(self, store: PostgresStore) -> None:
        assert self.errors == []
        _, rows = scanned(store, PHASH)
        for image_id, tried in self.tried.items():
            if image_id in rows:
                assert rows[image_id] in {row_of(content) for content in tried}
        assert set(self.acknowledged) <= set(rows)
        assert {at: row for at, row in tail(store, PHASH, 0).rows.items() if row} == rows


def test_cut_connections_lose_nothing_acknowledged(
    store: PostgresStore, url: str, postgres: PostgresServer
) -> None:
    follower = ready(store)
    with Load(url) as load:
        for _ in range(15):
            load.moves()
            assert postgres.cut_connections(url) > 0
        load.moves()
    load.check(store)
    follower.catch_up()
    assert follower.applied == store.head()
    follower.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_restarts_under_load_loses_nothing(
    store: PostgresStore, url: str, postgres: PostgresServer, how: signal.Signals
) -> None:
    store.put(picture(1000, "there"))
    follower = follow(store)
    follower.start(poll=0.05)
    wait_for(lambda: follower.state == "ready", 60)
    with Load(url) as load:
        for _ in range(2):
            load.moves()
            postgres.stop(how)
            try:
                answer = follower.search(*nearest(row_of("there")))
                assert best(answer) == (1000, 0.0)
                assert answer.stale
                with pytest.raises(StoreUnavailable, match="can't be reached"):
                    store.put(picture(1, "new"))
            finally:
                postgres.start()
        load.moves()
    assert load.refused > 0
    load.check(store)
    wait_for(lambda: follower.applied == store.head(), 60)
    assert not follower.search(*nearest(row_of("there"))).stale
    follower.close()


def test_a_retry_after_an_unknown_end_writes_nothing_twice(
    store: PostgresStore, url: str, postgres: PostgresServer
) -> None:
    """The connection is lost during the commit."""
    stall(postgres, url)
    refused: list[StoreUnavailable] = []

    def put() -> None:
        try:
            store.put(upload(7))
        except StoreUnavailable as exc:
            refused.append(exc)

    writer = threading.Thread(target=put)
    writer.start()
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_for(lambda: postgres.execute(sleeping) == [(1,)], 60)
    postgres.cut_connections(url)
    writer.join()
    assert "may or may not be written" in refused[0].detail
    postgres.execute("DROP TRIGGER stall ON ambience.images", url)
    store.put(upload(7))
    head = store.head()
    assert store.put(upload(7)).outcome == "unchanged"
    assert (store.head(), store.count()) == (head, 1)


def stall(postgres: PostgresServer, url: str) -> None:
    """Make each commit of an added image take a minute."""
    postgres.execute(
        "CREATE FUNCTION ambience.stall() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$",
        url,
    )
    postgres.execute(
        "CREATE CONSTRAINT TRIGGER stall AFTER INSERT ON ambience.images "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ambience.stall()",
        url,
    )


def test_a_server_that_hangs_holds_nobody_up(url: str, postgres: PostgresServer) -> None:
    options = PostgresOptions(
        connect_timeout=1, head_timeout=0.5, read_timeout=0.5, write_timeout=1, connections=2
    )
    store = PostgresStore(url, options)
    store.put(picture(1, "a"))
    follower = ready(store)
    backends = postgres.execute("SELECT pid FROM pg_stat_activity WHERE pid IS NOT NULL")
    stopped = [postgres.pid, *(pid for (pid,) in backends)]
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = follower.search(*nearest(row_of("a")), deadline=20)
        assert (best(answer), answer.stale) == ((1, 0.0), True)
        with pytest.raises(StoreUnavailable):
            store.put(picture(2, "b"))
        assert time.monotonic() - began < 30
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    wait_for(lambda: _written(store), 60)
    assert not follower.search(*nearest(row_of("b"))).stale
    follower.close()
    store.close()


def _written(store: PostgresStore) -> bool:
    try:
        store.put(picture(2, "b"))
    except StoreUnavailable:
        return False
    return True


def test_a_call_without_a_free_connection_fails_with_that_reason(
    url: str, postgres: PostgresServer
) -> None:
    store = PostgresStore(url, PostgresOptions(connections=1, connect_timeout=0.2))
    stall(postgres, url)
    writer = threading.Thread(target=_written, args=(store,))
    writer.start()
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_for(lambda: postgres.execute(sleeping) == [(1,)], 60)
    with pytest.raises(StoreUnavailable, match="all 1 connections are busy"):
        store.count()
    postgres.cut_connections(url)
    writer.join()
    assert store.count() == 0
    store.close()


@pytest.fixture
def small_server() -> Iterator[PostgresServer]:
    """A server with a folder for tables on a real file system of 24 MB."""
    server = PostgresServer()
    folder = server.folder / "small"
    folder.mkdir()
    try:
        if os.getuid() != 0 or mounted(folder, "size=24m").returncode:
            pytest.skip("needs the right to mount a small disk")
        os.chown(folder, NOBODY, NOBODY)
        yield server
        server.stop(signal.SIGQUIT)
        subprocess.run(["umount", str(folder)], check=True)
    finally:
        server.remove()


def mounted(folder: Path, options: str) -> subprocess.CompletedProcess[bytes]:
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    return subprocess.run(mount, capture_output=True, check=False)


def test_a_full_disk_is_named_and_all_goes_on_when_there_is_room(
    small_server: PostgresServer,
) -> None:
    folder = small_server.folder / "small"
    small_server.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
    small_server.execute("CREATE DATABASE small TABLESPACE small")
    store = PostgresStore(small_server.url("small"))
    store.put(picture(1, "a"))
    follower = ready(store)
    # The checkpoint allocates the disk space of all existing rows.
    small_server.execute("CHECKPOINT")
    written = 2
    with pytest.raises(StoreUnavailable, match="disk is full; nothing was written"):  # noqa: PT012
        while written < 100:
            store.put(picture(written, str(written), preview=bytes(1 << 20)))
            written += 1
    assert store.head() == store.count() == written - 1
    assert not follower.search(*nearest(row_of("a"))).stale
    assert mounted(folder, "remount,size=100m").returncode == 0
    assert store.put(picture(written, str(written), preview=bytes(1 << 20))).seq == written
    assert follower.catch_up() == written
    assert scanned(store, PHASH)[1].keys() == set(range(1, written + 1))
    follower.close()
    store.close()
