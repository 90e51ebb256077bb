"""The store for clusters on a real server: the contract, and what is specific to PostgreSQL."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexes.store.base import Store
from indexes.store.postgres import schema as postgres_schema
from indexes.store.postgres.connections import PostgresOptions
from indexes.store.postgres.store import PostgresStore
from indexes.store.records import RecordKey
from models.errors import InvalidInput, StoreUnavailable
from tests.indexes.pictures import COLOR, PHASH, picture, row_of, scanned, tail, upload
from tests.indexes.replica.followers import best, follow
from tests.indexes.store.contract import StoreContract
from tests.indexes.store.forks import wait_for
from tests.indexes.tiny_index import nearest
from tests.postgres_server import PostgresServer


class TestPostgresStore(StoreContract):
    @pytest.fixture(autouse=True)
    def databases(self, new_database: Callable[[], str]) -> None:
        self.new_database = new_database

    def open(self, folder: Path, cap: int = 1 << 20) -> Store:  # noqa: ARG002
        return PostgresStore(self.new_database(), PostgresOptions(originals_bytes=cap))


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(url)
    yield store
    store.close()


# --- persistence ----------------------------------------------------------------------------------


def test_a_reopened_store_has_everything(url: str) -> None:
    store = PostgresStore(url)
    store.put(upload(7, metadata={"a": 1}, source="/photos/a.jpg"))
    store.put(picture(90, "gone"))
    store.delete(90)
    uuid, image = store.uuid, store.image(7)
    store.lease("completer", "one", 60)
    store.close()
    again = PostgresStore(url)
    assert (again.uuid, again.image(7), again.head()) == (uuid, image, 3)
    assert again.original(7, 1) == b"original of a"
    assert again.put(picture(None, "next")).image_id == 91
    assert not again.lease("completer", "two", 60)
    again.close()


def test_a_group_is_one_transaction(
    store: PostgresStore, url: str, postgres: PostgresServer
) -> None:
    store.put_many([upload(n, str(n)) for n in range(300)])
    count = "SELECT count(DISTINCT xmin::text) FROM ambience.images"
    assert postgres.execute(count, url) == [(1,)]
    assert store.head() == store.count() == 300


def test_a_change_elsewhere_does_not_touch_a_space(store: PostgresStore) -> None:
    """Otherwise each retriever's completion would remove and add the image in every other index."""
    generation = store.put(picture(1, wanted=frozenset({"phash", "color"}))).generation
    store.complete(1, generation, {COLOR: b"c"})
    store.put(picture(1, metadata={"a": 1}))
    assert tail(store, PHASH, 1).rows == {}
    assert tail(store, PHASH, 1).head == 3
    assert tail(store, COLOR, 1).rows == {1: b"c"}


def test_a_long_log_is_compacted_in_steps(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.store.postgres.store.COMPACT_STEP", 7)
    store.put_many([picture(n, str(n)) for n in range(30)])
    store.compact(25)
    assert store.changes(PHASH, 24) is None
    assert set(tail(store, PHASH, 25).rows) == {25, 26, 27, 28, 29}


def test_a_text_that_json_escapes_is_kept(store: PostgresStore) -> None:
    metadata = {"a\x00b": "\x00", "n": 1e30, "🐶": ["ü", 2**63]}
    store.put(picture(1, metadata=metadata))
    image = store.image(1)
    assert image is not None
    assert image.metadata == metadata
    assert store.ids_by_metadata({"a\x00b": "\x00"}) == [1]


# --- the layout -----------------------------------------------------------------------------------


def test_many_processes_may_be_the_first_to_open_it(url: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        stores = list(threads.map(PostgresStore, [url] * 8))
    assert len({store.uuid for store in stores}) == 1
    for store in stores:
        store.close()


def test_an_older_layout_is_brought_up_to_date_and_a_newer_one_refused(
    url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = PostgresStore(url)
    old.put(picture(1, "a"))
    count = len(postgres_schema.STEPS)
    step = "ALTER TABLE images ADD COLUMN later integer DEFAULT 7"
    monkeypatch.setattr(postgres_schema, "STEPS", (*postgres_schema.STEPS, step))
    new = PostgresStore(url)
    assert new.uuid == old.uuid
    assert postgres.execute("SELECT later FROM ambience.images", url) == [(7,)]
    assert new.rows(PHASH, [1]) == {1: row_of("a")}
    monkeypatch.undo()
    with pytest.raises(StoreUnavailable, match=f"layout {count + 1}, this version knows {count}"):
        PostgresStore(url)
    old.close()
    new.close()


def test_a_store_of_the_layout_before_records_takes_them(
    url: str, postgres: PostgresServer
) -> None:
    old = PostgresStore(url)
    old.put(picture(1, "a"))
    old.close()
    postgres.execute("DROP TABLE ambience.records", url)
    postgres.execute("ALTER TABLE ambience.images DROP COLUMN facts", url)
    postgres.execute("UPDATE ambience.schema_version SET version = 3", url)
    store = PostgresStore(url)
    store.write_records({RecordKey("rule", "bytes"): b"manual"})
    assert store.record("rule", "bytes") == b"manual"
    assert store.rows(PHASH, [1]) == {1: row_of("a")}
    store.close()


def test_a_step_that_fails_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PostgresStore(url).close()
    broken = "CREATE TABLE half (); SELECT 1 / 0"
    monkeypatch.setattr(postgres_schema, "STEPS", (*postgres_schema.STEPS, broken))
    with pytest.raises(StoreUnavailable, match="division by zero"):
        PostgresStore(url)
    monkeypatch.undo()
    PostgresStore(url).close()


def test_another_store_under_a_running_process_is_refused(
    store: PostgresStore, url: str, postgres: PostgresServer
) -> None:
    """What the process holds in memory belongs to the store that it opened."""
    postgres.execute("UPDATE ambience.store SET uuid = md5(random()::text)", url)
    postgres.cut_connections(url)
    with pytest.raises(StoreUnavailable, match="restart ambience"):
        store.put(picture(1))
    again = PostgresStore(url)
    assert again.uuid != store.uuid
    again.close()


def test_a_restored_dump_is_another_store(
    store: PostgresStore, url: str, new_database: Callable[[], str], postgres: PostgresServer
) -> None:
    store.put(picture(1, "a"))
    known = {store.uuid}
    dump = postgres.folder / "dump.sql"
    postgres.run("pg_dump", "--schema=ambience", "--clean", "--if-exists", f"--file={dump}", url)
    for target in (new_database(), url):
        postgres.run("psql", "--quiet", f"--file={dump}", target)
        again = PostgresStore(target)
        assert again.image(1) is not None
        assert again.uuid not in known
        known.add(again.uuid)
        again.close()
    postgres.cut_connections(url)
    with pytest.raises(StoreUnavailable, match="restart ambience"):
        store.put(picture(2))


def test_a_user_without_privileges_opens_it(url: str, postgres: PostgresServer) -> None:
    postgres.execute("CREATE ROLE plain LOGIN")
    name = url.partition("@/")[2].partition("?")[0]
    postgres.execute(f"GRANT CREATE ON DATABASE {name} TO plain")
    PostgresStore(postgres.url(name, "plain")).close()


def test_a_database_of_another_encoding_is_refused(postgres: PostgresServer) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StoreUnavailable, match="ENCODING 'UTF8'"):
        PostgresStore(postgres.url("latin"))


def test_no_message_shows_the_password(postgres: PostgresServer) -> None:
    with pytest.raises(InvalidInput, match="%XX") as refused:
        PostgresStore("postgresql://u:se%cret@h:1/db")
    assert "cret" not in refused.value.detail
    with pytest.raises(StoreUnavailable, match="does not exist") as missing:
        PostgresStore(f"postgresql://postgres:secret@/nowhere?host={postgres.folder}")
    assert "secret" not in missing.value.detail
    with pytest.raises(StoreUnavailable, match="can't be reached") as away:
        PostgresStore("postgresql://postgres:secret@127.0.0.1:1/nowhere")
    assert "secret" not in away.value.detail


def test_a_forked_child_is_refused_and_the_parent_unharmed(store: PostgresStore) -> None:
    """Two processes that share one connection receive each other's answers."""
    store.put(picture(1, "a"))
    pid = os.fork()
    if pid == 0:
        try:
            store.count()
        except StoreUnavailable as exc:
            os._exit(7 if "forked" in exc.detail else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert store.count() == 1


# --- notifications of commits ---------------------------------------------------------------------


def test_a_waiting_replica_hears_of_a_commit(store: PostgresStore, url: str) -> None:
    other = PostgresStore(url)
    follower = follow(other)
    follower.start(poll=3600)
    wait_for(lambda: follower.state == "ready", 60)
    for number in range(1, 20):
        store.put(picture(number, str(number)))
        wait_for(lambda: follower.applied == number, 60)  # noqa: B023
    assert best(follower.search(*nearest(row_of("7")))) == (7, 0.0)
    follower.close()
    other.close()


def test_it_hears_again_after_its_connection_was_cut(
    store: PostgresStore, url: str, postgres: PostgresServer
) -> None:
    other = PostgresStore(url)
    follower = follow(other)
    follower.start(poll=3600)
    wait_for(lambda: follower.state == "ready", 60)
    for number in range(1, 4):
        postgres.cut_connections(url)
        # At least one put fails; a commit made while nobody listens is noticed later.
        wait_for(lambda: _put(store, number), 60)  # noqa: B023
        wait_for(lambda: follower.applied == number, 60)  # noqa: B023
    follower.close()
    other.close()


def _put(store: Store, number: int) -> bool:
    try:
        return store.put(picture(number, str(number))).seq == number
    except StoreUnavailable:
        return False


def test_waiting_ends_with_the_store_and_with_who_waits(store: PostgresStore) -> None:
    ended = threading.Event()
    for end in (ended.set, store.close):
        waiter = threading.Thread(target=store.wait, args=(0, 3600, ended))
        waiter.start()
        time.sleep(0.05)
        end()
        waiter.join(60)
        assert not waiter.is_alive()
        ended.clear()


# --- log order ------------------------------------------------------------------------------------


def test_seqs_become_visible_in_order_though_transactions_overlap(
    store: PostgresStore, url: str, postgres: PostgresServer
) -> None:
    """Without the log's lock, a follower of `seq > applied` loses entries for good."""
    postgres.execute("CREATE TABLE public.naive (seq bigserial PRIMARY KEY, writer integer)", url)
    stores = [PostgresStore(url) for _ in range(4)]
    ended = threading.Event()
    seen: dict[str, set[int]] = {"naive": set(), "ours": set()}

    def write(number: int) -> None:
        for n in range(60):
            stores[number].put(picture(1000 * number + n, f"{number} {n}"))
            postgres.execute(
                "BEGIN; INSERT INTO public.naive (writer) VALUES (1); "
                f"SELECT pg_sleep({0.004 * ((n + number) % 4)}); COMMIT",
                url,
            )

    def tail_naive() -> None:
        applied = 0
        while not ended.is_set():
            rows = postgres.execute(f"SELECT seq FROM public.naive WHERE seq > {applied}", url)
            seen["naive"].update(seq for (seq,) in rows)
            applied = max([applied, *(seq for (seq,) in rows)])

    def tail_ours() -> None:
        applied = 0
        while not ended.is_set() or applied < store.head():
            changes = tail(store, PHASH, applied, limit=3)
            seen["ours"].update(changes.rows)
            applied = changes.head

    readers = [threading.Thread(target=tail_naive), threading.Thread(target=tail_ours)]
    for reader in readers:
        reader.start()
    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    ended.set()
    for reader in readers:
        reader.join()
    assert store.head() == 240
    assert seen["ours"] == {1000 * number + n for number in range(4) for n in range(60)}
    assert len(seen["naive"]) < 240, "the trap was not sprung: this test shows nothing"
    assert scanned(store, PHASH)[0] == 240
    for one in stores:
        one.close()


def test_a_counter_that_an_older_version_pushed_to_its_end_goes_on(
    store: PostgresStore, postgres: PostgresServer, url: str
) -> None:
    store.put_many([picture(3), picture(2**46), picture(2**47 - 1)])
    postgres.execute("SELECT setval('ambience.next_id', 140737488355328, false)", url)
    assert store.put(picture(None, "b")).image_id == 2**46 + 1
    assert store.claim_id("key", "content", 60) == 2**46 + 2
