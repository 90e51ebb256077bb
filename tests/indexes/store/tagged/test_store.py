"""The images with one tag are a store of their own, beside which no other image exists."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from indexes.store.annotations import annotations_of
from indexes.store.base import ANNOTATIONS, Guard, Store
from indexes.store.lmdb.environment import LmdbOptions
from indexes.store.lmdb.store import LmdbStore
from indexes.store.records import RecordKey
from indexes.store.tagged.store import TaggedStore
from models.errors import KeyLimited, PreconditionFailed
from tests.indexes.pictures import PHASH, known, picture, row_of, scanned, tail, upload
from tests.indexes.store.contract import StoreContract

OURS, THEIRS = {"tags": ["ours"]}, {"tags": ["theirs"]}
WITHOUT_SNAPSHOT = (
    "a_scan_is_one_snapshot_while_writes_go_on",
    "changes_never_show_a_torn_write",
)
"""Reads take several transactions; a change between them has a later entry in the log."""
OF_THE_WHOLE = (
    "a_counter_in_the_upper_half_skips_ids_in_use",
    "a_follower_behind_the_compacted_log_must_rebuild",
    "a_guard_whose_changes_are_no_longer_known_refuses",
    "a_mark_expires_unless_it_is_renewed",
    "a_mark_holds_the_last_seq_said_under_its_name",
    "a_mark_is_no_lease_and_no_change",
    "a_space_larger_than_a_transaction_is_dropped_whole",
    "a_space_that_never_was_is_dropped_without_a_trace",
    "dropping_a_space_takes_its_rows_and_no_others",
    "reserved_ids_are_not_given_and_what_was_reserved_is_told",
    "the_active_space_of_a_kind_is_the_last_one_said",
    "the_log_goes_on_after_all_of_it_was_compacted",
    "the_log_names_each_changed_image_once_by_its_last_entry",
    "the_space_that_searches_use_is_not_dropped",
    "what_loses_its_last_features_of_a_kind_is_pending",
)
"""What concerns all images is refused."""
WITH_OTHER_METADATA = (
    "a_replace_removes_all_that_belonged_to_the_old_picture",
    "an_added_image_is_read_back_whole",
    "given_metadata_takes_the_place_of_the_old",
    "images_are_found_by_metadata",
    "metadata_are_changed_key_by_key_in_the_same_write",
    "tags_are_found_as_those_of_metadata_are",
    "the_same_content_again_extends_the_image",
    "the_same_picture_again_writes_nothing",
)
"""The metadata of all images have the tag, and their tags can't be changed."""
WITH_OTHER_NAMES = (
    "names_that_cannot_be_stored_are_refused",
    "several_changes_are_one_transaction",
)
"""Kinds of records are shorter, and messages name them as the whole store does."""


class ChoosingStore(TaggedStore):
    """Lets its caller choose ids, as the contract's tests do, and closes the whole store."""

    def _is_claimed(self, image_id: int) -> bool:  # noqa: ARG002
        return True

    def close(self) -> None:
        self.base.close()


class TestTaggedStore(StoreContract):
    def open(self, folder: Path, cap: int = 1 << 20) -> Store:
        base = LmdbStore(folder, LmdbOptions(originals_bytes=cap))
        return ChoosingStore(base, "ours")


for _name in (*WITHOUT_SNAPSHOT, *OF_THE_WHOLE, *WITH_OTHER_METADATA, *WITH_OTHER_NAMES):
    assert hasattr(StoreContract, f"test_{_name}")
    setattr(TestTaggedStore, f"test_{_name}", None)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[LmdbStore]:
    store = LmdbStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def ours(base: LmdbStore) -> TaggedStore:
    return TaggedStore(base, "ours")


def test_nothing_of_an_image_without_the_tag_is_shown(base: LmdbStore, ours: TaggedStore) -> None:
    base.put(upload(1, "a", metadata=THEIRS, upload_name="a.jpg"))
    base.annotate(1, 1, {"caption": {"text": "a", "tags": ["ours"]}}, "machine")
    kept = base.record("kind", "key")
    assert (ours.count(), ours.images(), ours.summaries(), ours.image(1)) == (0, [], [], None)
    assert ours.rows(PHASH, [1]) == ours.rows(ANNOTATIONS, [1]) == ours.previews([1]) == {}
    assert ours.original(1, 1) is ours.preview(1) is kept is None
    assert ours.ids_by_sha256(picture(1).sha256) == ours.ids_by_file_name("1.online") == []
    assert ours.ids_by_metadata({}) == ours.ids_by_metadata({"tags": "ours"}) == []
    assert ours.pending("local") == []
    assert ours.missing({"color": "c"}, [1]) == {}
    assert scanned(ours, PHASH)[1] == {}
    assert set(tail(ours, PHASH, 0).rows.values()) == {None}
    assert annotations_of(ours, [1]) == {}


def test_nothing_of_an_image_without_the_tag_is_changed(base: LmdbStore, ours: TaggedStore) -> None:
    base.put(upload(1, "a", metadata=THEIRS))
    head = base.head()
    assert ours.delete(1) is ours.delete_kind(1, "phash") is None
    assert ours.complete(1, 1, {PHASH: row_of("b")}) is None
    assert ours.annotate(1, 1, {"caption": {"text": "b"}}, "person") is None
    for unseen in (1, 2):
        for refused in (
            lambda at=unseen: ours.put(picture(at, "b")),
            lambda at=unseen: ours.put_if([picture(at, "b")], Guard(PHASH, 0, lambda _: None)),
            lambda at=unseen: ours.put_many([picture(None, "b"), picture(at, "b", if_version=0)]),
        ):
            with pytest.raises(KeyLimited) as told:
                refused()
            assert (str(told.value), told.value.field) == (FOREIGN, "image_id")
        with pytest.raises(PreconditionFailed, match="there is no such image"):
            ours.delete(unseen, if_version=1)
    assert base.head() == head


FOREIGN = (
    "image_id: a key that is limited to a tag replaces only images that it sees; "
    "the id of a new one is the service's choice"
)


def test_an_added_image_gets_the_tag_and_keeps_its_tags(base: LmdbStore, ours: TaggedStore) -> None:
    added = ours.put(picture(None, "a", metadata={"place": "Oslo"})).image_id
    assert known(base, added).metadata == {"place": "Oslo", "tags": ["ours"]}
    ours.put(picture(added, "b"))
    assert known(ours, added).metadata == {"tags": ["ours"]}
    ours.put(picture(added, "b", metadata={"n": 1, "tags": ["ours"]}))
    base.annotate(added, known(base, added).generation, {}, "person", {"tags": ["ours", "theirs"]})
    ours.put_many([picture(added, "c"), picture(added, "b"), picture(added, "b", metadata={})])
    assert known(ours, added).metadata == {"tags": ["ours", "theirs"]}
    generation = known(ours, added).generation
    for metadata in ({"tags": ["ours"]}, {"tags": None}, {"tags": ["ours", "theirs", "x"]}):
        with pytest.raises(KeyLimited) as told:
            ours.annotate(added, generation, {}, "person", metadata)
        assert told.value.field == "metadata.tags"
    with pytest.raises(KeyLimited):
        ours.put(picture(None, "c", metadata=THEIRS))
    ours.annotate(added, generation, {"caption": {"tags": ["boat"]}}, "person", {"n": 2})
    assert ours.ids_by_metadata({"tags": "boat"}) == [added]


def test_an_image_that_gets_or_loses_the_tag_comes_and_goes(
    base: LmdbStore, ours: TaggedStore
) -> None:
    generation = base.put(picture(1, "a", metadata=THEIRS)).generation
    after = base.head()
    base.annotate(1, generation, {}, "person", {"tags": ["theirs", "ours"]})
    assert tail(ours, PHASH, after).rows == {1: row_of("a")}
    assert (ours.count(), known(ours, 1).sha256) == (1, picture(1).sha256)
    after = base.head()
    base.annotate(1, generation, {}, "person", {"tags": "theirs"})
    assert tail(ours, PHASH, after).rows == {1: None}
    assert (ours.count(), ours.image(1)) == (0, None)


def test_a_key_gets_an_id_of_its_own(base: LmdbStore, ours: TaggedStore) -> None:
    sha256 = picture(None, "a").sha256
    at = ours.claim_id("key", sha256, 60)
    assert at != base.claim_id("key", sha256, 60)
    assert ours.claim_id("key", sha256, 60) == at
    assert ours.put(picture(at, "a")).outcome == "created"
    assert ours.put(picture(ours.claim_id("key", sha256, 60), "a")).outcome == "unchanged"
    ours.delete(at)
    base.put(picture(at, "b", metadata=THEIRS))
    with pytest.raises(KeyLimited):
        ours.put(picture(ours.claim_id("key", sha256, 60), "a"))


def test_records_of_tags_are_kept_apart(base: LmdbStore, ours: TaggedStore) -> None:
    key = RecordKey("kind", "key")
    base.write_records({key: b"whole"})
    assert ours.record(*key) is None
    TaggedStore(base, "theirs").write_records({key: b"theirs"})
    ours.write_records({key: b"ours"}, {key: None})
    assert [store.record(*key) for store in (base, ours)] == [b"whole", b"ours"]
    assert (ours.record_kinds(), [one.value for one in ours.records("kind")]) == (
        ["kind"],
        [b"ours"],
    )
    with pytest.raises(PreconditionFailed):
        ours.write_records({key: None}, {key: b"whole"})


IDS, CONTENTS, TAGS = st.integers(1, 4), st.sampled_from("abc"), st.sampled_from(["ours", "theirs"])


@settings(max_examples=40, stateful_step_count=25, deadline=None)
class Communities(RuleBasedStateMachine):
    """Two tags over one store, each compared with a dict after every step; ids are recycled."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.base = LmdbStore(Path(self.folder.name))
        self.stores = {tag: TaggedStore(self.base, tag) for tag in ("ours", "theirs")}
        self.model: dict[int, tuple[str, set[str], int]] = {}
        """Content, tags and a number by id."""
        self.followed: dict[str, tuple[int, dict[int, bytes]]] = dict.fromkeys(self.stores, (0, {}))

    @rule(at=IDS, content=CONTENTS, tags=st.sets(TAGS))
    def the_owner_writes(self, at: int, content: str, tags: set[str]) -> None:
        self.base.put(picture(at, content, metadata={"tags": sorted(tags)}))
        self.model[at] = content, tags, 0

    @rule(at=IDS, tags=st.sets(TAGS))
    def the_owner_tags(self, at: int, tags: set[str]) -> None:
        if at in self.model:
            generation = known(self.base, at).generation
            self.base.annotate(at, generation, {}, "person", {"tags": sorted(tags)})
            self.model[at] = self.model[at][0], tags, self.model[at][2]

    @rule(at=IDS)
    def the_owner_deletes(self, at: int) -> None:
        assert (self.base.delete(at) is None) == (at not in self.model)
        self.model.pop(at, None)

    @rule(content=CONTENTS, tag=TAGS)
    def a_key_adds(self, content: str, tag: str) -> None:
        if len(self.model) < 8:
            at = self.stores[tag].put(picture(None, content)).image_id
            self.model[at] = content, {tag}, 0

    @rule(at=IDS, content=CONTENTS, tag=TAGS)
    def a_key_replaces(self, at: int, content: str, tag: str) -> None:
        if tag in self.tags(at):
            self.stores[tag].put(picture(at, content, metadata={"n": 7}))
            self.model[at] = content, self.tags(at), 7
        else:
            with pytest.raises(KeyLimited):
                self.stores[tag].put(picture(at, content))

    @rule(at=IDS, number=st.integers(1, 9), tag=TAGS)
    def a_key_edits(self, at: int, number: int, tag: str) -> None:
        image = self.stores[tag].image(at)
        assert (image is not None) == (tag in self.tags(at))
        if image is not None:
            self.stores[tag].annotate(at, image.generation, {}, "person", {"n": number})
            self.model[at] = *self.model[at][:2], number

    @rule(at=IDS, tag=TAGS)
    def a_key_deletes(self, at: int, tag: str) -> None:
        deleted = self.stores[tag].delete(at)
        assert (deleted is not None) == (tag in self.tags(at))
        if deleted is not None:
            del self.model[at]

    def tags(self, at: int) -> set[str]:
        return self.model[at][1] if at in self.model else set()

    @invariant()
    def each_tag_shows_its_own_images(self) -> None:
        for tag, store in self.stores.items():
            wanted = {at: one for at, one in self.model.items() if tag in one[1]}
            rows = {at: row_of(one[0]) for at, one in wanted.items()}
            everything = [*range(12), *wanted]
            assert store.count() == len(wanted)
            assert [image.image_id for image in store.images()] == sorted(wanted)
            shown = store.images_by_id(everything)
            numbers = {at: image.metadata.get("n", 0) for at, image in shown.items()}
            assert numbers == {at: one[2] for at, one in wanted.items()}
            assert store.rows(PHASH, everything) == scanned(store, PHASH, 2)[1] == rows
            assert self.follow(tag, store) == rows

    def follow(self, tag: str, store: Store) -> dict[int, bytes]:
        after, rows = self.followed[tag]
        while after != store.head():
            changes = tail(store, PHASH, after, 2)
            changed: dict[int, Any] = rows | dict(changes.rows)
            rows = {at: row for at, row in changed.items() if row is not None}
            after = changes.head
        self.followed[tag] = after, rows
        return rows

    def teardown(self) -> None:
        if hasattr(self, "base"):
            self.base.close()
            self.folder.cleanup()


TestCommunities = Communities.TestCase
