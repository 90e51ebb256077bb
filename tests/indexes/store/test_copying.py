"""A copied store holds what its source does, even if the source keeps changing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.store import copying
from indexes.store.base import ANNOTATIONS, Store
from indexes.store.copying import BATCH, Copied, copy_store
from indexes.store.lmdb.store import LmdbStore
from indexes.store.memory.store import MemoryStore
from indexes.store.postgres.store import PostgresStore
from indexes.store.records import RecordKey
from models.types import FileFacts
from tests.indexes.pictures import COLOR, LOCAL, PHASH, PHASH_NEW, known, picture, row_of, upload
from tests.indexes.store.faults import WrappedStore

ODD_NAME = b"/photos/caf\xe9.jpg".decode("utf-8", "surrogateescape")


KINDS = ("lmdb", "memory", "postgresql")


def opened(kind: str, folder: Path, request: pytest.FixtureRequest) -> Store:
    if kind == "lmdb":
        return LmdbStore(folder)
    if kind == "memory":
        return MemoryStore()
    return PostgresStore(request.getfixturevalue("new_database")())


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = opened(request.param, tmp_path / "a", request)
    yield filled(store)
    store.close()


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = opened(request.param, tmp_path / "b", request)
    yield store
    store.close()


def filled(store: Store) -> Store:
    """Store all that an image can have, more images than a batch, and a deleted id above them."""
    store.put_many([picture(at, str(at)) for at in range(10, BATCH + 40)])
    facts = FileFacts("JPEG", 1234, 1622894400.25, 12, 85)
    store.put(upload(1, metadata={"album": "sea", "tags": ["a"]}, facts=facts))
    store.put(picture(2, features={PHASH: row_of("b"), PHASH_NEW: row_of("c"), COLOR: row_of("d")}))
    store.put(picture(3, source=ODD_NAME))
    generation = known(store, 3).generation
    said = {"text": "a dog", "tags": ["dog"], "fingerprint": "f"}
    store.annotate(3, generation, {"caption": said, "ocr": said, "places365": said}, "machine")
    store.annotate(3, generation, {"caption": {"text": "Rex"}, "ocr": None}, "person")
    store.activate("phash", PHASH_NEW.fingerprint)
    decided = {RecordKey("decision", f"{at:04}"): b"%d" % at for at in range(600)}
    store.write_records({**decided, RecordKey("rule", "bytes"): b"automatic"})
    store.put(picture(5000))
    store.delete(5000)
    return store


def same(one: Store, other: Store) -> bool:
    """Compare two stores through other reads than those of the copy."""
    ids = [image.image_id for image in one.images(limit=10**6)]
    assert ids == [image.image_id for image in other.images(limit=10**6)]
    for at in ids:
        mine, theirs = known(one, at), known(other, at)
        assert mine.created == theirs.created
        assert (mine.wanted, mine.pending) == (theirs.wanted, theirs.pending)
        assert (mine.source, mine.sha256) == (theirs.source, theirs.sha256)
        assert (mine.metadata, mine.facts) == (theirs.metadata, theirs.facts)
        assert one.preview(at) == other.preview(at)
        originals = one.original(at, mine.generation), other.original(at, theirs.generation)
        assert originals[0] == originals[1]
    for space in (PHASH, PHASH_NEW, COLOR, LOCAL, ANNOTATIONS):
        assert one.rows(space, ids) == other.rows(space, ids)
    assert one.record_kinds() == other.record_kinds()
    for kind in one.record_kinds():
        assert one.records(kind, limit=10**6) == other.records(kind, limit=10**6)
    return one.spaces() == other.spaces() and one.active() == other.active()


def test_all_of_every_image_comes_along(source: Store, target: Store) -> None:
    copied = copy_store(source, target)
    assert copied.complete
    assert (copied.images, copied.written, copied.removed) == (source.count(), source.count(), 0)
    assert same(source, target)
    assert target.ids_by_metadata({"tags": "dog"}) == [3]
    assert target.ids_by_file_name(source.image(3).file_name) == [3]  # type: ignore[union-attr]
    assert [work.image_id for work in target.pending("local")] == [1]


def test_a_person_s_word_still_stands_in_the_copy(source: Store, target: Store) -> None:
    copy_store(source, target)
    row = target.rows(ANNOTATIONS, [3])
    generation = known(target, 3).generation
    target.annotate(3, generation, {"caption": {"text": "x"}, "ocr": {"text": "x"}}, "machine")
    assert target.rows(ANNOTATIONS, [3]) == row


def test_ids_of_deleted_images_are_not_given_again(source: Store, target: Store) -> None:
    copy_store(source, target)
    assert target.put(picture(None, "new")).image_id == 5001


def test_a_second_copy_writes_nothing_and_says_the_same(source: Store, target: Store) -> None:
    first, head = copy_store(source, target), target.head()
    second = copy_store(source, target)
    assert target.head() == head
    assert (second.written, second.checksum) == (0, first.checksum)
    assert copy_store(target, MemoryStore()).checksum == first.checksum


def test_a_copy_updates_what_differs_and_deletes_what_the_source_lacks(
    source: Store, target: Store
) -> None:
    copy_store(source, target)
    target.put(picture(9000))
    target.delete(12)
    source.put(picture(13, "another"))
    source.delete_kind(2, "color")
    source.delete(BATCH + 39)
    source.write_records({RecordKey("decision", "0300"): b"x", RecordKey("decision", "0301"): None})
    target.write_records({RecordKey("decision", "0302x"): b"x", RecordKey("tombstone", "1"): b"x"})
    copied = copy_store(source, target)
    assert (copied.written, copied.removed, copied.complete) == (3, 2, True)
    assert same(source, target)


def test_changes_made_meanwhile_are_in_the_copy(source: Store, target: Store) -> None:
    class Busy(WrappedStore):
        left = 5

        def before(self, name: str) -> None:
            if name == "previews" and self.left:
                self.left -= 1
                self.inner.put(picture(20, f"later {self.left}"))
                self.inner.delete(30 + self.left)

    assert copy_store(Busy(source), target).complete
    assert known(target, 20).sha256 == picture(20, "later 0").sha256
    assert same(source, target)


def test_a_source_that_never_rests_is_called_incomplete(
    source: Store, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Restless(WrappedStore):
        turn = 0

        def before(self, name: str) -> None:
            if name == "spaces":
                self.turn += 1
                self.inner.put(picture(10, str(self.turn)))

    monkeypatch.setattr(copying, "PASSES", 3)
    copied = copy_store(Restless(source), target)
    assert isinstance(copied, Copied)
    assert not copied.complete


def test_an_empty_store_empties_its_copy(target: Store) -> None:
    target.put(picture(4))
    copied = copy_store(MemoryStore(), target)
    assert (copied.images, copied.removed, copied.complete) == (0, 1, True)
    assert target.count() == 0
