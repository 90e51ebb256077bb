"""What every store must do when images are added, replaced and deleted."""

from __future__ import annotations

import time
from typing import Any

import pytest

from indexes.store.base import Changes, Image, Preview, Receipt, Space, Store
from indexes.store.checks import FIRST_UNCOUNTED_ID
from models.errors import InvalidInput
from models.types import MAX_IMAGE_ID, FileFacts
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
    upload,
)


class WriteContract(OpeningContract):
    """What every store must do when images are added, replaced and deleted."""

    # --- add and replace --------------------------------------------------------------------------

    def test_an_empty_store_knows_nothing(self, store: Store) -> None:
        assert store.head() == 0
        assert store.count() == 0
        assert store.spaces() == []
        assert store.images() == []
        assert tail(store, PHASH, 0) == Changes(0, {})
        assert scanned(store, PHASH) == (0, {})

    def test_an_added_image_is_read_back_whole(self, store: Store) -> None:
        before = time.time()
        receipt = store.put(upload(7, metadata={"place": "Oslo"}, source="/photos/a b.jpg"))
        image = known(store, 7)
        assert receipt == Receipt(7, 1, 1, "created")
        assert before <= image.created <= time.time()
        assert image == Image(
            image_id=7,
            generation=1,
            sha256=upload(7).sha256,
            width=40,
            height=30,
            source="/photos/a b.jpg",
            created=image.created,
            wanted=frozenset({"phash", "local"}),
            pending=frozenset({"local"}),
            metadata={"place": "Oslo"},
            has_preview=True,
            has_original=True,
            version=1,
        )
        assert store.preview(7) == b"preview of a"
        assert store.previews([7, 8]) == {7: Preview(image.width, image.height, b"preview of a")}
        assert store.original(7, 1) == b"original of a"
        assert store.rows(PHASH, [7]) == {7: row_of("a")}

    def test_a_replace_removes_all_that_belonged_to_the_old_picture(self, store: Store) -> None:
        features = {PHASH: row_of("a"), PHASH_NEW: row_of("a2"), COLOR: row_of("a3")}
        old = store.put(upload(7, "a", features=features, metadata={"tags": ["sea"]}))
        store.put(upload(8, "keeps the spaces in use", features=features))
        new = store.put(picture(7, "b", source="/photos/b.jpg"))
        image = known(store, 7)
        assert (new.outcome, new.generation) == ("replaced", new.seq)
        assert new.generation > old.generation
        assert image.generation == new.generation
        assert image.sha256 == picture(7, "b").sha256
        assert (image.wanted, image.pending) == ({"phash"}, frozenset())
        assert (image.has_preview, image.has_original, image.metadata) == (False, False, {})
        assert store.preview(7) is None
        assert store.original(7, old.generation) is None
        assert store.original(7, new.generation) is None
        assert store.rows(PHASH, [7]) == {7: row_of("b")}
        assert store.rows(PHASH_NEW, [7]) == store.rows(COLOR, [7]) == {}
        assert [work.image_id for work in store.pending("local")] == [8]
        assert store.ids_by_metadata({"tags": "sea"}) == []
        assert store.ids_by_file_name("7.online") == []
        assert store.ids_by_file_name("b.jpg") == [7]

    def test_a_replace_tells_followers_of_every_space_it_emptied(self, store: Store) -> None:
        store.put(picture(7, "a", features={PHASH: row_of("a"), COLOR: row_of("a3")}))
        seen = store.head()
        store.put(picture(7, "b"))
        assert tail(store, PHASH, seen).rows == {7: row_of("b")}
        assert tail(store, COLOR, seen).rows == {7: None}

    def test_the_same_content_again_extends_the_image(self, store: Store) -> None:
        first = store.put(upload(7, metadata={"n": 1}))
        more = store.put(
            picture(7, wanted=frozenset({"color"}), features={COLOR: row_of("c")}, metadata=None)
        )
        image = known(store, 7)
        assert more == Receipt(7, 2, first.generation, "replaced")
        assert image.generation == first.generation
        assert image.wanted == {"phash", "local", "color"}
        assert image.pending == {"local"}
        assert image.metadata == {"n": 1}
        assert store.preview(7) == b"preview of a"
        assert store.original(7, first.generation) == b"original of a"
        assert store.rows(PHASH, [7]) == {7: row_of("a")}
        assert store.rows(COLOR, [7]) == {7: row_of("c")}

    def test_the_same_picture_again_writes_nothing(self, store: Store) -> None:
        write = upload(7, metadata={"n": 1, "tags": ["a"]})
        first = store.put(write)
        assert store.put(write) == Receipt(7, first.seq, first.generation, "unchanged")
        assert store.put(upload(7)).outcome == "unchanged"
        assert store.head() == first.seq

    def test_given_metadata_takes_the_place_of_the_old(self, store: Store) -> None:
        store.put(picture(7, metadata={"a": 1, "b": 2}))
        assert store.put(picture(7, metadata={"b": 3})).outcome == "replaced"
        assert known(store, 7).metadata == {"b": 3}
        assert store.put(picture(7, metadata={})).outcome == "replaced"
        assert known(store, 7).metadata == {}

    def test_an_upload_that_is_found_on_disk_later_takes_the_files_path(self, store: Store) -> None:
        store.put(picture(7))
        assert store.put(picture(7, source="/photos/a.jpg")).outcome == "replaced"
        assert store.put(picture(7, source="online")).outcome == "unchanged"
        assert store.ids_by_source() == {"/photos/a.jpg": 7}
        assert (store.ids_by_file_name("a.jpg"), store.ids_by_file_name("7.online")) == ([7], [])

    def test_changed_features_are_written(self, store: Store) -> None:
        store.put(picture(7))
        store.put(picture(7, features={PHASH: row_of("better")}))
        assert store.rows(PHASH, [7]) == {7: row_of("better")}
        assert tail(store, PHASH, 1).rows == {7: row_of("better")}

    def test_given_features_are_wanted(self, store: Store) -> None:
        store.put(picture(7, wanted=frozenset({"local"})))
        assert known(store, 7).wanted == {"phash", "local"}
        assert known(store, 7).pending == {"local"}

    def test_a_group_is_written_in_order(self, store: Store) -> None:
        receipts = store.put_many([picture(1, "a"), picture(2, "b"), picture(1, "c")])
        assert [receipt.outcome for receipt in receipts] == ["created", "created", "replaced"]
        assert [receipt.seq for receipt in receipts] == [1, 2, 3]
        assert store.rows(PHASH, [1, 2]) == {1: row_of("c"), 2: row_of("b")}
        assert store.put_many([]) == []

    @pytest.mark.parametrize("image_id", [-1, MAX_IMAGE_ID + 1, 2**64])
    def test_an_id_out_of_range_is_refused_and_nothing_of_its_group_written(
        self, store: Store, image_id: int
    ) -> None:
        with pytest.raises(InvalidInput, match="image_id") as caught:
            store.put_many([picture(1), picture(image_id)])
        assert caught.value.field == "image_id"
        assert (store.head(), store.count()) == (0, 0)

    def test_the_largest_id_can_be_used(self, store: Store) -> None:
        store.put(picture(MAX_IMAGE_ID))
        assert known(store, MAX_IMAGE_ID).image_id == MAX_IMAGE_ID
        assert [image.image_id for image in store.images()] == [MAX_IMAGE_ID]
        assert store.images(after=MAX_IMAGE_ID) == []

    @pytest.mark.parametrize("bad", [{"a": {1, 2}}, {"a": 2**70}, {"a": b"raw"}])
    def test_metadata_that_is_no_json_is_refused(self, store: Store, bad: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput, match="metadata"):
            store.put(picture(1, metadata=bad))
        assert store.head() == 0

    @pytest.mark.parametrize("kind", ["", "a\0b", "x" * 500])
    def test_a_kind_that_can_be_no_key_is_refused(self, store: Store, kind: str) -> None:
        with pytest.raises(InvalidInput):
            store.put(picture(1, wanted=frozenset({kind})))
        with pytest.raises(InvalidInput):
            store.put(picture(1, features={Space(kind, "f"): b"x"}))

    # --- ids --------------------------------------------------------------------------------------

    def test_given_ids_are_above_every_id_ever_seen(self, store: Store) -> None:
        first = store.put(picture(None, "a")).image_id
        store.put(picture(100, "b"))
        store.delete(100)
        second = store.put(picture(None, "c")).image_id
        store.delete(second)
        third = store.put(picture(None, "d")).image_id
        store.put(picture(50, "e"))
        fourth = store.put(picture(None, "f")).image_id
        assert (first, second, third, fourth) == (0, 101, 102, 103)

    def test_reserved_ids_are_not_given_and_what_was_reserved_is_told(self, store: Store) -> None:
        assert store.reserve_ids(0) == 0
        assert store.reserve_ids(50) == 50
        assert store.reserve_ids(20) == 50
        assert store.put(picture(None)).image_id == 50
        assert store.reserve_ids(0) == 51

    def test_a_counter_in_the_upper_half_skips_ids_in_use(self, store: Store) -> None:
        first = FIRST_UNCOUNTED_ID
        assert store.reserve_ids(MAX_IMAGE_ID) == first
        store.put_many([picture(first + 1), picture(first - 1), picture(first + 4)])
        store.delete(first - 1)
        assert store.put(picture(None)).image_id == first
        assert store.claim_id("a", "content", 60) == first + 2
        given = store.put_many([picture(None, "b"), picture(None, "c")])
        assert [receipt.image_id for receipt in given] == [first + 3, first + 5]

    def test_a_very_high_id_that_a_caller_chose_does_not_use_up_the_counter(
        self, store: Store
    ) -> None:
        for chosen in (MAX_IMAGE_ID, FIRST_UNCOUNTED_ID, MAX_IMAGE_ID - 1):
            store.put(picture(5))
            store.put(picture(chosen))
            store.delete(chosen)
        assert store.put(picture(None)).image_id == 6
        store.put_many([picture(MAX_IMAGE_ID, "b"), picture(9), picture(None)])
        assert sorted(image.image_id for image in store.images()) == [5, 6, 9, 10, MAX_IMAGE_ID]

    def test_ids_given_in_one_group_differ(self, store: Store) -> None:
        receipts = store.put_many([picture(None, str(n)) for n in range(5)])
        assert [receipt.image_id for receipt in receipts] == [0, 1, 2, 3, 4]

    # --- delete -----------------------------------------------------------------------------------

    def test_a_delete_removes_all_that_belongs_to_the_image(self, store: Store) -> None:
        old = store.put(upload(7, metadata={"a": 1}, features={PHASH: b"p", PHASH_NEW: b"q"}))
        assert store.delete(7) == 2
        assert store.image(7) is None
        assert (store.count(), store.spaces(), store.pending("local")) == (0, [], [])
        assert store.preview(7) is None
        assert store.original(7, old.generation) is None
        assert (store.ids_by_metadata({"a": 1}), store.ids_by_file_name("7.online")) == ([], [])
        assert store.missing({"phash": "f1"}, [7]) == {}
        assert tail(store, PHASH, 1).rows == tail(store, PHASH_NEW, 1).rows == {7: None}

    def test_a_delete_is_idempotent(self, store: Store) -> None:
        store.put(picture(7))
        assert store.delete(7) == 2
        assert store.delete(7) is None
        assert store.delete(8) is None
        assert store.head() == 2

    def test_a_deleted_id_can_be_added_again_as_another_picture(self, store: Store) -> None:
        old = store.put(upload(7, "a"))
        store.delete(7)
        new = store.put(picture(7, "b"))
        assert (new.outcome, new.generation) == ("created", 3)
        assert new.generation != old.generation
        assert tail(store, PHASH, 0) == Changes(3, {7: row_of("b")})

    def test_deleting_a_kind_removes_it_under_every_fingerprint(self, store: Store) -> None:
        features = {PHASH: row_of("a"), PHASH_NEW: row_of("b"), COLOR: row_of("c")}
        store.put(picture(7, features=features))
        assert store.delete_kind(7, "phash") == 2
        assert known(store, 7).wanted == {"color"}
        assert store.rows(PHASH, [7]) == store.rows(PHASH_NEW, [7]) == {}
        assert store.rows(COLOR, [7]) == {7: row_of("c")}
        assert tail(store, PHASH, 1).rows == tail(store, PHASH_NEW, 1).rows == {7: None}

    def test_a_pending_kind_can_be_deleted_and_takes_the_original_along(self, store: Store) -> None:
        old = store.put(upload(7))
        assert store.delete_kind(7, "local") == 2
        assert store.pending("local") == []
        assert known(store, 7).pending == frozenset()
        assert not known(store, 7).has_original
        assert store.original(7, old.generation) is None

    def test_the_image_goes_with_its_last_kind(self, store: Store) -> None:
        store.put(picture(7, features={PHASH: row_of("a"), PHASH_NEW: row_of("b")}))
        assert store.delete_kind(7, "phash") == 2
        assert store.image(7) is None
        assert store.rows(PHASH_NEW, [7]) == {}

    def test_deleting_a_kind_that_is_not_there_writes_nothing(self, store: Store) -> None:
        store.put(picture(7))
        assert store.delete_kind(7, "color") is None
        assert store.delete_kind(8, "phash") is None
        assert store.head() == 1

    def test_summaries_say_the_same_as_the_rows(self, store: Store) -> None:
        store.put_many([picture(at, str(at), width=at, created=at / 2) for at in range(5)])
        store.put(picture(2, "2", facts=FileFacts("JPEG", 7, 5.5, 3, 90)))
        store.delete(1)
        expected = [
            (image.image_id, image.width, image.height, image.created, image.facts)
            for image in store.images()
        ]
        assert store.summaries() == expected
        assert store.summaries(0, 2) == expected[1:3]
        assert store.summaries(4) == []

    # --- facts of the file ------------------------------------------------------------------------

    def test_the_facts_of_a_file_are_kept_and_read_back(self, store: Store) -> None:
        facts = FileFacts("JPEG", 1234, 1622894400.25, 12, 85)
        store.put(picture(1, facts=facts))
        store.put(picture(2, "b", facts=FileFacts("PNG", 2**40)))
        assert known(store, 1).facts == facts
        assert known(store, 2).facts == FileFacts("PNG", 2**40, None, 0, None)

    def test_the_same_picture_again_brings_the_facts_that_were_missing(self, store: Store) -> None:
        facts = FileFacts("JPEG", 1234)
        store.put(picture(1))
        assert known(store, 1).facts is None
        assert store.put(picture(1, facts=facts)).outcome == "replaced"
        assert store.put(picture(1, facts=facts)).outcome == "unchanged"
        assert store.put(picture(1)).outcome == "unchanged"
        assert known(store, 1).facts == facts

    def test_another_picture_under_the_id_does_not_keep_the_facts(self, store: Store) -> None:
        store.put(picture(1, facts=FileFacts("JPEG", 1234)))
        store.put(picture(1, "b"))
        assert known(store, 1).facts is None

    def test_completing_and_annotating_keep_the_facts(self, store: Store) -> None:
        facts = FileFacts("JPEG", 1234, 5.0, 1, 90)
        receipt = store.put(upload(1, facts=facts))
        store.complete(1, receipt.generation, {LOCAL: b"features"})
        store.annotate(1, receipt.generation, {"caption": {"text": "a"}}, "person")
        assert known(store, 1).facts == facts
