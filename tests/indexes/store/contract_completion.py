"""What every store must do when pending work is completed."""

from __future__ import annotations

from pathlib import Path

from indexes.store.base import Store
from tests.indexes.opening import OpeningContract
from tests.indexes.pictures import (
    COLOR,
    LOCAL,
    PHASH,
    PHASH_NEW,
    known,
    picture,
    row_of,
    tail,
    upload,
)


class CompletionContract(OpeningContract):
    """What every store must do when pending work is completed."""

    def test_completion_writes_what_was_pending(self, store: Store) -> None:
        receipt = store.put(upload(7))
        assert store.complete(7, receipt.generation, {LOCAL: row_of("l")}) == 2
        assert known(store, 7).pending == frozenset()
        assert known(store, 7).generation == receipt.generation
        assert store.rows(LOCAL, [7]) == {7: row_of("l")}
        assert store.pending("local") == []
        assert tail(store, LOCAL, 1).rows == {7: row_of("l")}

    def test_the_original_goes_with_the_last_pending_kind(self, store: Store) -> None:
        receipt = store.put(upload(7, wanted=frozenset({"phash", "local", "color"})))
        store.complete(7, receipt.generation, {LOCAL: row_of("l")})
        assert store.original(7, receipt.generation) == b"original of a"
        store.complete(7, receipt.generation, {COLOR: row_of("c")})
        assert store.original(7, receipt.generation) is None
        assert not known(store, 7).has_original
        assert store.preview(7) == b"preview of a"

    def test_work_for_a_replaced_picture_is_dropped(self, store: Store) -> None:
        old = store.put(upload(7, "a"))
        new = store.put(upload(7, "b"))
        head = store.head()
        assert store.complete(7, old.generation, {LOCAL: row_of("of a")}) is None
        assert store.head() == head
        assert store.rows(LOCAL, [7]) == {}
        assert known(store, 7).pending == {"local"}
        assert store.original(7, new.generation) == b"original of b"

    def test_work_for_a_deleted_or_recycled_id_is_dropped(self, store: Store) -> None:
        old = store.put(upload(7, "a"))
        store.delete(7)
        assert store.complete(7, old.generation, {LOCAL: row_of("of a")}) is None
        store.put(upload(7, "b"))
        assert store.complete(7, old.generation, {LOCAL: row_of("of a")}) is None
        assert store.rows(LOCAL, [7]) == {}
        assert store.original(7, old.generation) is None

    def test_the_same_picture_added_anew_after_a_delete_is_another_generation(
        self, store: Store
    ) -> None:
        old = store.put(upload(7, "a"))
        store.delete(7)
        store.put(upload(7, "a"))
        assert store.complete(7, old.generation, {LOCAL: row_of("of a")}) is None

    def test_completion_drops_kinds_no_longer_wanted(self, store: Store) -> None:
        receipt = store.put(upload(7, wanted=frozenset({"phash", "local", "color"})))
        store.delete_kind(7, "local")
        features = {LOCAL: row_of("l"), COLOR: row_of("c")}
        assert store.complete(7, receipt.generation, features) == 3
        assert store.rows(LOCAL, [7]) == {}
        assert store.rows(COLOR, [7]) == {7: row_of("c")}
        assert store.complete(7, receipt.generation, {LOCAL: row_of("l")}) is None
        assert store.head() == 3

    def test_completing_twice_writes_nothing_the_second_time(self, store: Store) -> None:
        receipt = store.put(upload(7))
        first = store.complete(7, receipt.generation, {LOCAL: row_of("l")})
        assert store.complete(7, receipt.generation, {LOCAL: row_of("l")}) == first
        assert store.head() == first

    def test_a_second_fingerprint_of_a_kind_stands_beside_the_first(self, store: Store) -> None:
        receipt = store.put(picture(7, "a"))
        store.complete(7, receipt.generation, {PHASH_NEW: row_of("n")})
        assert store.rows(PHASH, [7]) == {7: row_of("a")}
        assert store.rows(PHASH_NEW, [7]) == {7: row_of("n")}
        assert store.spaces() == [PHASH, PHASH_NEW]

    def test_an_original_is_kept_only_while_a_kind_is_missing(self, store: Store) -> None:
        receipt = store.put(picture(7, original=b"whole"))
        assert not known(store, 7).has_original
        assert store.original(7, receipt.generation) is None

    def test_an_original_given_later_is_kept_for_what_is_pending(self, store: Store) -> None:
        receipt = store.put(upload(7, original=None))
        assert not known(store, 7).has_original
        assert store.put(upload(7)).outcome == "replaced"
        assert store.original(7, receipt.generation) == b"original of a"

    def test_kept_originals_are_capped_and_the_oldest_goes_first(self, tmp_path: Path) -> None:
        store = self.open(tmp_path / "small", cap=100)
        for image_id in range(4):
            store.put(upload(image_id, str(image_id), original=bytes(40)))
        works = store.pending("local")
        assert [work.has_original for work in works] == [False, False, True, True]
        assert [work.has_preview for work in works] == [True] * 4
        assert store.original(0, 1) is None
        assert store.original(3, 4) == bytes(40)
        store.put(upload(4, "4", original=bytes(101)))
        assert [known(store, n).has_original for n in range(5)] == [False] * 2 + [True] * 2 + [
            False
        ]
        store.close()

    def test_room_of_originals_is_given_back(self, tmp_path: Path) -> None:
        store = self.open(tmp_path / "small", cap=100)
        first = store.put(upload(0, "0", original=bytes(60)))
        store.complete(0, first.generation, {LOCAL: b"l"})
        store.put(upload(1, "1", original=bytes(60)))
        store.delete(1)
        store.put(upload(2, "2", original=bytes(60)))
        store.put(upload(2, "2 replaced", original=bytes(90)))
        store.put(upload(3, "3", original=bytes(10)))
        assert known(store, 2).has_original
        assert known(store, 3).has_original
        store.close()

    def test_pending_work_comes_by_id_in_pages(self, store: Store) -> None:
        receipts = store.put_many([upload(n, str(n)) for n in (5, 1, 9, 3)])
        store.put(upload(4, "other", wanted=frozenset({"color"}), features={}))
        first = store.pending("local", limit=2)
        rest = store.pending("local", after=first[-1].image_id)
        assert [work.image_id for work in first + rest] == [1, 3, 5, 9]
        assert first[0].generation == receipts[1].generation
        assert [work.image_id for work in store.pending("color")] == [4]
        assert store.pending("colo") == store.pending("phash") == []
