"""What every store must do with writes that depend on what others write meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from indexes.store.base import Guard, Store
from models.errors import Conflict, InvalidInput, Unavailable
from models.types import MAX_IMAGE_ID
from tests.indexes.opening import OpeningContract
from tests.indexes.pictures import COLOR, PHASH, known, picture, row_of


def unless_stored(content: str, after: int) -> Guard:
    """Return a guard that refuses the write if this content was stored after a seq."""

    def check(rows: Mapping[int, bytes]) -> None:
        for image_id, row in rows.items():
            if row == row_of(content):
                raise Conflict(f"image {image_id} is the same")

    return Guard(PHASH, after, check)


class GuardContract(OpeningContract):
    """What every store must do with writes that depend on what others write meanwhile."""

    def test_a_guard_sees_what_was_written_after_its_seq_and_nothing_else(
        self, store: Store
    ) -> None:
        store.put(picture(1, "before"))
        after = store.head()
        store.put(picture(2, "meanwhile"))
        store.put(picture(3, "deleted meanwhile"))
        store.delete(3)
        store.put(picture(4, "of another kind", features={COLOR: row_of("colour")}))
        seen: dict[int, bytes] = {}
        store.put_if([picture(None, "new")], Guard(PHASH, after, seen.update))
        assert seen == {2: row_of("meanwhile")}
        assert store.rows(PHASH, [5]) == {5: row_of("new")}

    def test_a_refused_write_leaves_nothing(self, store: Store) -> None:
        store.put(picture(1, "same"))
        head = store.head()
        with pytest.raises(Conflict, match="image 1 is the same"):
            store.put_if([picture(2, "same")], unless_stored("same", 0))
        with pytest.raises(Conflict):
            store.put_if([picture(1, "other")], unless_stored("same", 0))
        assert (store.head(), store.count()) == (head, 1)
        assert known(store, 1).sha256 == picture(1, "same").sha256
        store.put_if([picture(2, "same")], unless_stored("same", head))
        assert store.count() == 2

    def test_a_group_is_written_whole_or_not_at_all(self, store: Store) -> None:
        store.put(picture(1, "same"))
        head = store.head()
        group = [picture(2, "a"), picture(None, "b"), picture(2, "c")]
        with pytest.raises(Conflict, match="image 1 is the same"):
            store.put_if(group, unless_stored("same", 0))
        assert (store.head(), store.count()) == (head, 1)
        # What the group itself writes is not checked by its guard.
        receipts = store.put_if(group, unless_stored("a", 0))
        assert [one.outcome for one in receipts] == ["created", "created", "replaced"]
        assert [one.seq for one in receipts] == [head + 1, head + 2, head + 3]
        assert known(store, 2).sha256 == picture(2, "c").sha256
        with pytest.raises(InvalidInput):
            store.put_if([picture(8, "d"), picture(MAX_IMAGE_ID + 1)], unless_stored("d", 0))
        assert store.image(8) is None

    def test_a_guard_whose_changes_are_no_longer_known_refuses(self, store: Store) -> None:
        for image_id in range(3):
            store.put(picture(image_id, f"{image_id}"))
        store.compact(2)
        with pytest.raises(Unavailable, match="try again"):
            store.put_if([picture(7, "new")], unless_stored("new", 1))
        store.put_if([picture(7, "new")], unless_stored("new", 2))

    def test_an_invalid_guarded_write_is_refused(self, store: Store) -> None:
        with pytest.raises(InvalidInput):
            store.put_if([picture(MAX_IMAGE_ID + 1)], unless_stored("a", 0))

    def test_of_writers_that_store_the_same_at_once_one_succeeds(self, store: Store) -> None:
        def add(number: int) -> int | None:
            content = f"{number // 8}"
            try:
                return store.put_if([picture(None, content)], unless_stored(content, 0))[0].image_id
            except Conflict:
                return None

        with ThreadPoolExecutor(8) as threads:
            added = [at for at in threads.map(add, range(40)) if at is not None]
        assert len(added) == 5
        assert sorted(added) == [image.image_id for image in store.images()]
