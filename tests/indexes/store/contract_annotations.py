"""What every store must do with annotations."""

from __future__ import annotations

from typing import Any

import pytest

from indexes.store.annotations import annotations_of
from indexes.store.base import ANNOTATE, ANNOTATIONS, Store
from models.errors import InvalidInput
from tests.indexes.opening import OpeningContract
from tests.indexes.pictures import LOCAL, PHASH, known, picture, row_of, scanned, tail, upload

CAPTION = ANNOTATE + "caption"
PLACES = ANNOTATE + "places365"
A_DOG = {"text": "a dog on a beach", "fingerprint": "f"}
SEA = {"tags": ["beach", "sea"], "fingerprint": "f"}


def wanting(image_id: int, *annotators: str, **changed: Any) -> Any:
    return picture(image_id, wanted=frozenset({"phash", *annotators}), **changed)


def said(store: Store, image_id: int = 7) -> dict[str, Any]:
    return annotations_of(store, [image_id]).get(image_id, {})


class AnnotationContract(OpeningContract):
    """What every store must do with annotations."""

    def test_an_annotation_is_kept_and_no_longer_pending(self, store: Store) -> None:
        receipt = store.put(wanting(7, CAPTION, PLACES))
        assert known(store, 7).pending == {CAPTION, PLACES}
        assert store.annotate(7, receipt.generation, {"caption": A_DOG}, "machine") == 2
        assert said(store) == {"caption": A_DOG | {"by": "machine"}}
        assert known(store, 7).pending == {PLACES}
        assert store.pending(CAPTION) == []
        assert [work.image_id for work in store.pending(PLACES)] == [7]
        assert known(store, 7).generation == receipt.generation

    def test_annotators_write_beside_each_other(self, store: Store) -> None:
        generation = store.put(wanting(7)).generation
        store.annotate(7, generation, {"caption": A_DOG}, "machine")
        store.annotate(7, generation, {"places365": SEA, "ocr": {}}, "machine")
        assert said(store).keys() == {"caption", "places365", "ocr"}
        assert said(store)["ocr"] == {"by": "machine"}

    def test_what_is_restored_is_as_it_was_whoever_wrote_it(self, store: Store) -> None:
        generation = store.put(wanting(7)).generation
        store.annotate(7, generation, {"caption": A_DOG}, "machine")
        before = store.rows(ANNOTATIONS, [7])
        store.annotate(7, generation, {"caption": SEA, "ocr": SEA, "places365": None}, "person")
        was = {"caption": A_DOG | {"by": "machine"}, "ocr": None, "places365": None}
        store.annotate(7, generation, was, "restored")
        assert store.rows(ANNOTATIONS, [7]) == before

    def test_followers_of_the_annotations_and_no_others_see_the_change(self, store: Store) -> None:
        generation = store.put(wanting(7)).generation
        store.annotate(7, generation, {"caption": A_DOG}, "machine")
        row = tail(store, ANNOTATIONS, 1).rows[7]
        assert row is not None
        assert scanned(store, ANNOTATIONS) == (2, {7: row})
        assert set(tail(store, PHASH, 1).rows.values()) <= {row_of("a")}
        assert store.spaces() == [PHASH, ANNOTATIONS]

    def test_the_same_again_writes_nothing(self, store: Store) -> None:
        generation = store.put(wanting(7)).generation
        first = store.annotate(7, generation, {"caption": A_DOG}, "machine")
        assert store.annotate(7, generation, {"caption": A_DOG}, "machine") == first
        assert store.annotate(7, generation, {"ocr": None}, "machine") == first
        assert store.annotate(7, generation, {}, "person") == first
        assert store.head() == first

    def test_a_machine_changes_nothing_that_a_person_wrote(self, store: Store) -> None:
        generation = store.put(wanting(7)).generation
        store.annotate(7, generation, {"caption": A_DOG}, "machine")
        store.annotate(7, generation, {"caption": {"text": "Rex"}}, "person")
        head = store.head()
        assert store.annotate(7, generation, {"caption": A_DOG}, "machine") == head
        assert store.annotate(7, generation, {"caption": None}, "machine") == head
        assert said(store) == {"caption": {"text": "Rex", "by": "person"}}
        store.annotate(7, generation, {"caption": A_DOG, "places365": SEA}, "machine")
        assert said(store)["caption"]["text"] == "Rex"
        assert said(store)["places365"]["tags"] == ["beach", "sea"]

    def test_what_a_person_removed_does_not_come_back(self, store: Store) -> None:
        generation = store.put(wanting(7, CAPTION)).generation
        store.annotate(7, generation, {"caption": A_DOG}, "machine")
        assert store.annotate(7, generation, {"caption": None}, "person") == 3
        assert said(store) == {}
        assert store.annotate(7, generation, {"caption": A_DOG}, "machine") == 3
        assert said(store) == {}
        assert store.pending(CAPTION) == []
        store.annotate(7, generation, {"caption": {"text": "Rex"}}, "person")
        assert said(store) == {"caption": {"text": "Rex", "by": "person"}}

    def test_what_a_machine_takes_back_is_pending_again(self, store: Store) -> None:
        generation = store.put(wanting(7, CAPTION)).generation
        store.annotate(7, generation, {"caption": A_DOG}, "machine")
        assert store.annotate(7, generation, {"caption": None}, "machine") == 3
        assert known(store, 7).pending == {CAPTION}
        assert store.rows(ANNOTATIONS, [7]) == {}
        assert tail(store, ANNOTATIONS, 2).rows == {7: None}

    def test_an_unasked_annotation_is_kept_and_later_not_asked_for(self, store: Store) -> None:
        generation = store.put(wanting(7)).generation
        store.annotate(7, generation, {"caption": A_DOG}, "machine")
        assert known(store, 7).wanted == {"phash"}
        store.put(wanting(7, CAPTION))
        assert known(store, 7).wanted == {"phash", CAPTION}
        assert known(store, 7).pending == frozenset()

    def test_work_for_a_replaced_or_deleted_picture_is_dropped(self, store: Store) -> None:
        old = store.put(wanting(7, CAPTION))
        store.put(wanting(7, CAPTION, sha256="0" * 64))
        assert store.annotate(7, old.generation, {"caption": A_DOG}, "machine") is None
        assert store.annotate(8, 1, {"caption": A_DOG}, "person") is None
        assert store.head() == 2
        assert known(store, 7).pending == {CAPTION}

    @pytest.mark.parametrize("by", ["machine", "person"])
    def test_a_replace_and_a_delete_drop_annotations(self, store: Store, by: Any) -> None:
        generation = store.put(wanting(7, PLACES)).generation
        store.annotate(7, generation, {"places365": SEA}, by)
        new = store.put(wanting(7, PLACES, sha256="0" * 64))
        assert said(store) == {}
        assert store.ids_by_metadata({"tags": "sea"}) == []
        assert known(store, 7).pending == {PLACES}
        assert tail(store, ANNOTATIONS, 2).rows == {7: None}
        store.annotate(7, new.generation, {"places365": SEA}, by)
        store.delete(7)
        assert store.rows(ANNOTATIONS, [7]) == {}
        assert store.ids_by_metadata({"tags": "sea"}) == []
        assert tail(store, ANNOTATIONS, 4).rows == {7: None}
        store.put(wanting(7, PLACES))
        assert said(store) == {}

    def test_tags_are_found_as_those_of_metadata_are(self, store: Store) -> None:
        generation = store.put(wanting(7, metadata={"tags": ["dog", "sea"], "a": 1})).generation
        store.put(wanting(8, metadata={"tags": ["cat"]}))
        store.annotate(7, generation, {"places365": SEA, "person": {"tags": ["me"]}}, "person")
        assert store.ids_by_metadata({"tags": "beach"}) == [7]
        assert store.ids_by_metadata({"tags": "me", "a": 1}) == [7]
        assert store.ids_by_metadata({"tags": "cat"}) == [8]
        store.annotate(7, generation, {"places365": {"tags": ["hill"]}}, "person")
        assert store.ids_by_metadata({"tags": "beach"}) == []
        assert (
            store.ids_by_metadata({"tags": "hill"}) == store.ids_by_metadata({"tags": "sea"}) == [7]
        )
        store.put(wanting(7, metadata={}))
        assert store.ids_by_metadata({"tags": "sea"}) == []
        assert store.ids_by_metadata({"tags": "hill"}) == [7]
        store.annotate(7, generation, {"places365": None}, "person")
        assert store.ids_by_metadata({"tags": "hill"}) == []
        assert store.ids_by_metadata({"tags": "me"}) == [7]

    def test_metadata_are_changed_key_by_key_in_the_same_write(self, store: Store) -> None:
        generation = store.put(wanting(7, metadata={"a": None, "tags": ["dog"], "b": 2})).generation
        changes = {"tags": ["cat"], "b": None}
        assert store.annotate(7, generation, {"places365": SEA}, "person", changes) == 2
        assert known(store, 7).metadata == {"a": None, "tags": ["cat"]}
        assert store.ids_by_metadata({"tags": "dog"}) == []
        assert (
            store.ids_by_metadata({"tags": "cat"}) == store.ids_by_metadata({"tags": "sea"}) == [7]
        )
        assert store.annotate(7, generation, {}, "person", changes) == 2
        assert store.annotate(7, generation, {}, "person", {"a": None, "tags": None}) == 3
        assert known(store, 7).metadata == {}
        assert store.ids_by_metadata({"tags": "sea"}) == [7]
        with pytest.raises(InvalidInput, match="metadata"):
            store.annotate(7, generation, {"ocr": A_DOG}, "person", {"a": object()})
        assert said(store).keys() == {"places365"}

    def test_the_image_goes_with_its_last_retriever_though_annotators_want_it(
        self, store: Store
    ) -> None:
        generation = store.put(wanting(7, CAPTION, PLACES)).generation
        store.annotate(7, generation, {"caption": A_DOG}, "person")
        assert store.delete_kind(7, "phash") == 3
        assert store.image(7) is None
        assert store.pending(PLACES) == []

    def test_deleting_an_annotators_kind_takes_its_words_along(self, store: Store) -> None:
        generation = store.put(wanting(7, CAPTION, PLACES)).generation
        store.annotate(7, generation, {"caption": A_DOG, "places365": SEA}, "machine")
        assert store.delete_kind(7, PLACES) == 3
        assert said(store).keys() == {"caption"}
        assert store.ids_by_metadata({"tags": "sea"}) == []
        assert known(store, 7).wanted == {"phash", CAPTION}
        assert known(store, 7).pending == frozenset()

    def test_deleting_features_leaves_annotations(self, store: Store) -> None:
        generation = store.put(upload(7, wanted=frozenset({"phash", "local", CAPTION}))).generation
        store.annotate(7, generation, {"caption": A_DOG}, "machine")
        store.complete(7, generation, {LOCAL: row_of("l")})
        store.delete_kind(7, "local")
        assert said(store).keys() == {"caption"}
        assert store.delete_kind(7, "text") is None

    def test_the_original_is_dropped_once_the_last_annotator_is_done(self, store: Store) -> None:
        generation = store.put(upload(7, wanted=frozenset({"phash", CAPTION}))).generation
        assert store.original(7, generation) == b"original of a"
        store.annotate(7, generation, {"caption": A_DOG}, "machine")
        assert store.original(7, generation) is None

    @pytest.mark.parametrize("name", ["", "a\0b", "n" * 201])
    def test_names_that_can_not_be_kept_are_refused(self, store: Store, name: str) -> None:
        generation = store.put(wanting(7)).generation
        with pytest.raises(InvalidInput, match="invalid annotator name"):
            store.annotate(7, generation, {name: A_DOG}, "person")
        with pytest.raises(InvalidInput, match="JSON"):
            store.annotate(7, generation, {"caption": {"text": object()}}, "person")
        assert store.head() == 1
