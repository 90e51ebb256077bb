"""What every store must do with the log, leases and other reads."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from indexes.store.base import Changes, LogPage, Store
from models.errors import StoreUnavailable
from models.types import MAX_IMAGE_ID
from tests.indexes.opening import OpeningContract
from tests.indexes.pictures import (
    COLOR,
    LOCAL,
    PHASH,
    PHASH_NEW,
    known,
    picture,
    row_of,
    scanned,
    tail,
)


class ReadContract(OpeningContract):
    """What every store must do with the log, leases and other reads."""

    # --- log --------------------------------------------------------------------------------------

    def test_images_are_found_by_their_content(self, store: Store) -> None:
        first, second = picture(1, "a").sha256, picture(1, "b").sha256
        store.put_many([picture(5, "a"), picture(3, "a"), picture(4, "b")])
        assert (store.ids_by_sha256(first), store.ids_by_sha256(second)) == ([3, 5], [4])
        store.put(picture(5, "b"))
        store.delete(3)
        assert (store.ids_by_sha256(first), store.ids_by_sha256(second)) == ([], [4, 5])
        store.delete(4)
        store.put(picture(4, "a"))
        assert (store.ids_by_sha256(first), store.ids_by_sha256(second)) == ([4], [5])

    def test_the_name_of_an_uploaded_file_is_kept_until_another_is_given(
        self, store: Store
    ) -> None:
        store.put(picture(7, upload_name="größe.jpg"))
        store.put(picture(7, source="/photos/7.jpg"))
        assert known(store, 7).upload_name == "größe.jpg"
        store.put(picture(7, upload_name="other.jpg"))
        assert known(store, 7).upload_name == "other.jpg"
        store.put(picture(7, "b"))
        assert known(store, 7).upload_name is None

    def test_changes_are_coalesced_by_id(self, store: Store) -> None:
        store.put_many([picture(1, "a"), picture(2, "b"), picture(1, "c")])
        store.delete(2)
        store.put(picture(3, "d"))
        assert tail(store, PHASH, 0) == Changes(5, {1: row_of("c"), 2: None, 3: row_of("d")})
        assert tail(store, PHASH, 4) == Changes(5, {3: row_of("d")})
        assert tail(store, PHASH, 5) == Changes(5, {})

    def test_a_space_sees_only_its_own_rows(self, store: Store) -> None:
        store.put(picture(1, "a"))
        assert {row for row in tail(store, COLOR, 0).rows.values() if row} == set()
        assert tail(store, COLOR, 0).head == 1
        assert scanned(store, COLOR) == (1, {})
        assert store.rows(PHASH_NEW, [1]) == {}

    def test_a_limited_tail_is_read_step_by_step(self, store: Store) -> None:
        store.put_many([picture(n, str(n)) for n in range(10)])
        seen: dict[int, bytes | None] = {}
        after, steps = 0, 0
        while after < store.head():
            step = tail(store, PHASH, after, limit=3)
            assert step.head <= after + 3
            seen.update(step.rows)
            after, steps = step.head, steps + 1
        assert seen == {n: row_of(str(n)) for n in range(10)}
        assert steps == 4

    def test_the_log_names_each_changed_image_once_by_its_last_entry(self, store: Store) -> None:
        store.put_many([picture(n, str(n)) for n in range(4)])
        store.delete(1)
        store.put(picture(0, "another"))
        assert store.log(0, 100) == LogPage(6, {1: 5, 2: 3, 3: 4, 0: 6})
        assert store.log(2, 2) == LogPage(4, {2: 3, 3: 4})
        assert store.log(6, 10) == LogPage(6, {})
        assert store.log(7, 10) is None
        store.compact(3)
        assert store.log(2, 10) is None
        assert store.log(3, 10) == LogPage(6, {3: 4, 1: 5, 0: 6})

    def test_a_follower_behind_the_compacted_log_must_rebuild(self, store: Store) -> None:
        store.put_many([picture(n, str(n)) for n in range(10)])
        store.compact(6)
        assert store.changes(PHASH, 5) is None
        assert set(tail(store, PHASH, 6).rows) == {6, 7, 8, 9}
        store.compact(3)
        assert tail(store, PHASH, 6).head == 10
        assert scanned(store, PHASH) == (10, {n: row_of(str(n)) for n in range(10)})

    def test_the_log_goes_on_after_all_of_it_was_compacted(self, store: Store) -> None:
        store.put(picture(1))
        store.compact(1000)
        assert store.head() == 1
        assert tail(store, PHASH, 1) == Changes(1, {})
        assert store.put(picture(2, "b")).seq == 2
        assert tail(store, PHASH, 1) == Changes(2, {2: row_of("b")})

    def test_a_follower_beyond_the_head_must_rebuild(self, store: Store) -> None:
        store.put(picture(1))
        assert store.changes(PHASH, 2) is None

    def test_a_scan_is_one_snapshot_while_writes_go_on(self, store: Store) -> None:
        store.put_many([picture(n, str(n)) for n in range(100)])
        with store.scan(PHASH, batch=10) as scan:
            batches = [next(scan.batches)]
            store.put(picture(50, "replaced"))
            store.delete(99)
            store.put(picture(1000, "new"))
            batches.extend(scan.batches)
        rows = [pair for batch in batches for pair in batch]
        assert [len(batch) for batch in batches] == [10] * 10
        assert rows == [(n, row_of(str(n))) for n in range(100)]
        assert scan.head == 100
        assert tail(store, PHASH, scan.head).rows == {
            50: row_of("replaced"),
            99: None,
            1000: row_of("new"),
        }

    def test_changes_never_show_a_torn_write(self, store: Store) -> None:
        """Head, log and rows are read together while another thread replaces two ids at once."""
        store.put_many([picture(1, "0"), picture(2, "0")])
        ended = threading.Event()

        def write() -> None:
            for n in range(1, 60):
                store.put_many([picture(1, str(n)), picture(2, str(n))])
            ended.set()

        writer = threading.Thread(target=write)
        writer.start()
        looks = 0
        while not ended.is_set() or looks < 50:
            changes = tail(store, PHASH, 0)
            assert changes.rows[1] == changes.rows[2]
            assert changes.rows[1] == row_of(str(changes.head // 2 - 1))
            looks += 1
        writer.join()

    def test_threads_write_together_and_nothing_is_lost(self, store: Store) -> None:
        def write(first: int) -> None:
            for n in range(first, first + 20):
                store.put(picture(n, str(n)))
                if n % 4 == 0:
                    store.delete(n)

        threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100, 200, 300)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ids = [n for first in (0, 100, 200, 300) for n in range(first, first + 20) if n % 4]
        assert store.head() == 4 * 25
        assert scanned(store, PHASH) == (100, {n: row_of(str(n)) for n in ids})

    # --- leases -----------------------------------------------------------------------------------

    def test_a_lease_has_one_holder(self, store: Store) -> None:
        assert store.lease("completer", "one", 60)
        assert not store.lease("completer", "two", 60)
        assert store.lease("completer", "one", 60)
        assert store.lease("writer", "two", 60)

    def test_a_lease_runs_out(self, store: Store) -> None:
        assert store.lease("completer", "one", 0.02)
        time.sleep(0.03)
        assert store.lease("completer", "two", 60)
        assert not store.lease("completer", "one", 60)

    def test_only_its_holder_gives_a_lease_back(self, store: Store) -> None:
        store.lease("completer", "one", 60)
        store.release("completer", "two")
        assert not store.lease("completer", "two", 60)
        store.release("completer", "one")
        store.release("never taken", "one")
        assert store.lease("completer", "two", 60)

    # --- waiting ----------------------------------------------------------------------------------

    def test_waiting_ends_when_time_is_up_and_when_it_is_told_to(self, store: Store) -> None:
        ended = threading.Event()
        store.wait(store.head(), 0.01, ended)
        ended.set()
        store.wait(store.head(), 3600, ended)

    # --- other reads ------------------------------------------------------------------------------

    def test_unknown_ids_are_left_out(self, store: Store) -> None:
        store.put(picture(1))
        odd = [1, 2, -1, MAX_IMAGE_ID, MAX_IMAGE_ID + 1, 2**70]
        assert set(store.rows(PHASH, odd)) == set(store.images_by_id(odd)) == {1}
        assert set(store.missing({"phash": "f1"}, odd)) == {1}
        for image_id in odd[1:]:
            assert store.image(image_id) is None
            assert store.preview(image_id) is None
            assert store.original(image_id, 1) is None
            assert store.delete(image_id) is None
            assert store.delete_kind(image_id, "phash") is None
            assert store.complete(image_id, 1, {LOCAL: b"l"}) is None

    def test_images_are_listed_in_pages(self, store: Store) -> None:
        store.put_many([picture(n, str(n)) for n in (30, 10, 20, 40)])
        first = store.images(limit=3)
        rest = store.images(after=first[-1].image_id, limit=3)
        assert [image.image_id for image in first] == [10, 20, 30]
        assert [image.image_id for image in rest] == [40]
        assert store.images(after=40) == []
        assert store.count() == 4

    def test_images_are_found_by_file_name(self, store: Store) -> None:
        store.put(picture(1, "a", source="/photos/2020/sea.jpg"))
        store.put(picture(2, "b", source="s3://bucket/sea.jpg"))
        store.put(picture(3, "c"))
        store.put(picture(4, "d", source="/photos/3.online"))
        assert store.ids_by_file_name("sea.jpg") == [1, 2]
        assert store.ids_by_file_name("3.online") == [3, 4]
        for unknown in ("03.online", "9.online", "sea", "", "x.online", "9" * 5000 + ".online"):
            assert store.ids_by_file_name(unknown) == []

    def test_a_file_name_goes_with_its_image(self, store: Store) -> None:
        store.put(picture(1, "a", source="/photos/sea.jpg"))
        store.put(picture(2, "b", source="/photos/sea.jpg"))
        store.delete(1)
        assert store.ids_by_file_name("sea.jpg") == [2]
        store.put(picture(2, "c", source="/photos/sun.jpg"))
        assert (store.ids_by_file_name("sea.jpg"), store.ids_by_file_name("sun.jpg")) == ([], [2])

    def test_a_file_name_that_is_no_utf8_is_kept(self, store: Store) -> None:
        source = b"/photos/\xe9t\xe9.jpg".decode("utf-8", "surrogateescape")
        store.put(picture(1, source=source))
        assert known(store, 1).source == source
        assert store.ids_by_source() == {source: 1}
        assert store.ids_by_file_name(known(store, 1).file_name) == [1]

    def test_images_are_found_by_metadata(self, store: Store) -> None:
        store.put(picture(1, "a", metadata={"place": "Oslo", "tags": ["sea", "sun"], "year": 2020}))
        store.put(picture(2, "b", metadata={"place": "Oslo", "tags": "sea"}))
        store.put(picture(3, "c", metadata={"year": 2020.0, "shared": True, "where": {"x": 1}}))
        store.put(picture(4, "d"))
        assert store.ids_by_metadata({"place": "Oslo"}) == [1, 2]
        assert store.ids_by_metadata({"tags": "sea"}) == [1, 2]
        assert store.ids_by_metadata({"tags": ["sea", "sun"]}) == [1]
        assert store.ids_by_metadata({"tags": "sea", "year": 2020}) == [1]
        assert (
            store.ids_by_metadata({"year": 2020})
            == store.ids_by_metadata({"year": 2020.0})
            == [1, 3]
        )
        assert store.ids_by_metadata({"shared": True}) == [3]
        assert store.ids_by_metadata({"where": {"x": 1}}) == [3]
        assert (
            store.ids_by_metadata({"shared": 1}) == store.ids_by_metadata({"place": "Rome"}) == []
        )
        assert store.ids_by_metadata({}) == [1, 2, 3, 4]

    def test_sources_list_only_files(self, store: Store) -> None:
        store.put(picture(1, "a", source="/photos/a.jpg"))
        store.put(picture(2, "b"))
        assert store.ids_by_source() == {"/photos/a.jpg": 1}
        store.delete(1)
        assert store.ids_by_source() == {}

    def test_missing_tells_what_a_backfill_must_make(self, store: Store) -> None:
        store.put(picture(1, "a"))
        store.put(picture(2, "b", features={PHASH: b"p", COLOR: b"c"}))
        kinds = {"phash": "f1", "color": "c1"}
        assert store.missing(kinds, [1, 2, 3]) == {1: {"color"}, 2: set()}
        assert store.missing({"phash": "f2"}, [1]) == {1: {"phash"}}

    def test_only_spaces_with_rows_are_listed(self, store: Store) -> None:
        store.put(picture(1, "a", features={PHASH: b"p", COLOR: b"c"}))
        store.put(picture(2, "b", features={PHASH_NEW: b"p"}))
        assert store.spaces() == [COLOR, PHASH, PHASH_NEW]
        store.delete(1)
        assert store.spaces() == [PHASH_NEW]

    def test_the_uuid_stays_and_differs_between_stores(self, store: Store, tmp_path: Path) -> None:
        other = self.open(tmp_path / "other")
        assert len(store.uuid) == 32
        assert store.uuid == store.uuid != other.uuid
        other.close()

    def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        store = self.open(tmp_path / "closed")
        store.close()
        store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            store.head()
        with pytest.raises(StoreUnavailable, match="closed"):
            store.put(picture(1))

    def test_previews_are_a_part_of_what_the_store_takes_on_disk(self, store: Store) -> None:
        empty = store.sizes()
        store.put(picture(1, preview=os.urandom(1 << 20)))
        full = store.sizes()
        if full.store == 0:  # A store in memory.
            assert full == empty == (0, 0)
            return
        assert full.previews - empty.previews >= 1 << 20
        assert full.store - empty.store >= 1 << 20
        assert full.previews < full.store
