"""What every store must do with several feature spaces of one kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexes.store.base import Space, Store
from indexes.store.spaces import lacking, missing_spaces
from models.errors import Conflict
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


class SpaceContract(OpeningContract):
    """What every store must do with several feature spaces of one kind."""

    def test_no_space_is_active_until_one_is_activated(self, store: Store) -> None:
        store.put(picture(7))
        assert store.active() == {}

    def test_the_active_space_of_a_kind_is_the_last_one_said(self, store: Store) -> None:
        head = store.head()
        store.activate("phash", "f1")
        store.activate("local", "l1")
        store.activate("phash", "f2")
        assert store.active() == {"phash": "f2", "local": "l1"}
        store.activate("phash", None)
        store.activate("color", None)
        assert store.active() == {"local": "l1"}
        assert store.head() == head

    def test_dropping_a_space_takes_its_rows_and_no_others(self, store: Store) -> None:
        for image_id in range(5):
            features = {PHASH: row_of("old"), PHASH_NEW: row_of("new"), COLOR: row_of("c")}
            store.put(picture(image_id, str(image_id), features=features))
        before = store.head()
        assert store.drop_space(PHASH) == 5
        assert store.spaces() == [COLOR, PHASH_NEW]
        assert store.rows(PHASH, range(5)) == {}
        assert store.rows(PHASH_NEW, range(5)) == dict.fromkeys(range(5), row_of("new"))
        assert known(store, 3).pending == frozenset()
        assert known(store, 3).wanted == {"phash", "color"}
        assert store.missing({"phash": "f1"}, [3]) == {3: {"phash"}}
        assert store.missing({"phash": "f2"}, [3]) == {3: set()}
        assert tail(store, PHASH, before).rows == dict.fromkeys(range(5))
        assert tail(store, PHASH_NEW, before).rows in ({}, dict.fromkeys(range(5), row_of("new")))
        assert store.drop_space(PHASH) == 0

    def test_what_loses_its_last_features_of_a_kind_is_pending(self, store: Store) -> None:
        receipt = store.put(picture(7, features={PHASH: row_of("p"), COLOR: row_of("c")}))
        assert store.drop_space(PHASH) == 1
        assert known(store, 7).pending == {"phash"}
        assert [work.image_id for work in store.pending("phash")] == [7]
        assert store.complete(7, receipt.generation, {PHASH_NEW: row_of("n")}) is not None
        assert known(store, 7).pending == frozenset()

    def test_the_space_that_searches_use_is_not_dropped(self, store: Store) -> None:
        store.put(picture(7))
        store.activate("phash", PHASH.fingerprint)
        with pytest.raises(Conflict, match="phash"):
            store.drop_space(PHASH)
        assert store.rows(PHASH, [7]) == {7: row_of("a")}
        store.activate("phash", PHASH_NEW.fingerprint)
        assert store.drop_space(PHASH) == 1

    def test_a_space_that_never_was_is_dropped_without_a_trace(self, store: Store) -> None:
        store.put(picture(7))
        head = store.head()
        assert store.drop_space(Space("phash", "never")) == 0
        assert store.head() == head

    def test_a_space_larger_than_a_transaction_is_dropped_whole(self, tmp_path: Path) -> None:
        store = self.open(tmp_path / "large")
        store.put_many([picture(image_id, str(image_id)) for image_id in range(1201)])
        assert store.drop_space(PHASH) == 1201
        assert store.spaces() == []
        assert len(store.pending("phash", limit=2000)) == 1201
        store.close()

    def test_what_lacks_a_space_is_found_among_those_that_want_its_kind(self, store: Store) -> None:
        store.put(picture(1, "1"))
        store.put(picture(2, "2", features={PHASH: b"a", PHASH_NEW: b"b"}))
        store.put(upload(3, "3"))
        store.put(picture(4, "4", wanted=frozenset({"local"}), features={LOCAL: b"l"}))
        spaces = [PHASH, PHASH_NEW, LOCAL]
        assert missing_spaces(store, spaces, [1, 2, 4, 9]) == {
            1: {PHASH_NEW, LOCAL},
            2: {LOCAL},
            4: {PHASH, PHASH_NEW},
        }
        found = {
            image.image_id: spaces for page in lacking(store, spaces) for image, spaces in page
        }
        assert found == {1: {PHASH_NEW}, 3: {PHASH_NEW, LOCAL}}
        after = [image.image_id for page in lacking(store, spaces, 1) for image, _ in page]
        assert after == [3]
