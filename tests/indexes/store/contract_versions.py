"""What every store must do with writes that expect a version, and with claimed ids."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from indexes.store.base import ANNOTATE, Store
from models.errors import KeyReused, PreconditionFailed
from tests.indexes.opening import OpeningContract
from tests.indexes.pictures import COLOR, PHASH, known, picture, row_of, upload


class VersionContract(OpeningContract):
    """What every store must do with writes that expect a version, and with claimed ids."""

    def test_every_change_of_an_image_gives_it_the_version_of_its_seq(self, store: Store) -> None:
        wanted = frozenset({"phash", "color", ANNOTATE + "caption"})
        store.put_many([picture(1), picture(7, wanted=wanted), picture(2)])
        assert [known(store, at).version for at in (1, 7, 2)] == [1, 2, 3]
        generation = known(store, 7).generation
        for change in (
            lambda: store.complete(7, generation, {COLOR: row_of("c")}),
            lambda: store.annotate(7, generation, {"caption": {"text": "a"}}, "person"),
            lambda: store.annotate(7, generation, {}, "person", {"place": "Oslo"}),
            lambda: store.put(picture(7, features={PHASH: row_of("better")})).seq,
            lambda: store.delete_kind(7, "color"),
            lambda: store.put(picture(7, "b")).seq,
        ):
            assert change() == known(store, 7).version == store.head()
            assert known(store, 1).version == 1

    def test_a_write_that_changes_nothing_keeps_the_version(self, store: Store) -> None:
        store.put(upload(7))
        store.put(picture(8))
        assert store.put(upload(7)).outcome == "unchanged"
        store.annotate(7, 1, {}, "person", {"absent": None})
        assert known(store, 7).version == 1

    def test_a_write_that_expects_another_version_writes_nothing(self, store: Store) -> None:
        store.put(picture(7))
        store.put(picture(7, metadata={"n": 1}))
        head = store.head()
        for write in (
            lambda: store.put(picture(7, "b", if_version=1)),
            lambda: store.put_many([picture(8), picture(7, if_version=1)]),
            lambda: store.put(picture(7, "b", if_version=0)),
            lambda: store.put(picture(9, if_version=5)),
            lambda: store.delete(7, if_version=1),
            lambda: store.delete(9, if_version=1),
            lambda: store.annotate(7, 1, {"caption": {"text": "a"}}, "person", if_version=1),
        ):
            with pytest.raises(PreconditionFailed):
                write()
        assert (store.head(), store.count()) == (head, 1)

    def test_a_write_that_expects_the_version_there_is_succeeds(self, store: Store) -> None:
        store.put(picture(7, if_version=0))
        store.annotate(7, 1, {"caption": {"text": "a"}}, "person", if_version=1)
        assert store.put(picture(7, "b", if_version=2)).seq == 3
        assert store.delete(7, if_version=3) == 4

    def test_of_concurrent_writes_that_expect_one_version_one_succeeds(self, store: Store) -> None:
        store.put(picture(7))

        def write(content: str) -> bool:
            try:
                store.put(picture(7, content, if_version=1))
            except PreconditionFailed:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(write, [f"{number}" for number in range(16)])) == 1

    # --- claimed ids ------------------------------------------------------------------------------

    def test_a_key_keeps_its_id(self, store: Store) -> None:
        store.put(picture(3))
        assert store.claim_id("a", "content", 60) == 4
        assert store.claim_id("b", "content", 60) == 5
        assert store.claim_id("a", "content", 60) == 4
        assert store.put(picture(None)).image_id == 6
        with pytest.raises(KeyReused):
            store.claim_id("a", "other content", 60)

    def test_a_key_is_forgotten_in_time_and_its_id_is_never_given_again(self, store: Store) -> None:
        assert store.claim_id("a", "content", 0.05) == 0
        time.sleep(0.1)
        assert store.claim_id("a", "other content", 60) == 1

    def test_concurrent_claims_of_one_key_get_one_id(self, store: Store) -> None:
        with ThreadPoolExecutor(8) as threads:
            claimed = list(threads.map(lambda _: store.claim_id("a", "content", 60), range(16)))
        assert set(claimed) == {0}
        assert store.claim_id("b", "content", 60) == 1
