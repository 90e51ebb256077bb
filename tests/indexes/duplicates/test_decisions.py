"""Decisions stick to contents, and can be undone with everything that was stored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.duplicates import decisions as deciding
from indexes.duplicates.catalogue import groups_page, regroup
from indexes.duplicates.decisions import (
    Decision,
    decide,
    finish_begun,
    history,
    undo,
)
from indexes.duplicates.kept import KEPT_SECONDS, forget_old
from indexes.duplicates.pairs import pair_writes
from indexes.duplicates.rules import read_rule, set_rule
from indexes.store.annotations import annotations_of
from indexes.store.base import ANNOTATIONS, Store
from indexes.store.lmdb.store import LmdbStore
from indexes.store.postgres.store import PostgresStore
from models.errors import Conflict, ImageNotFound, InvalidInput, UnknownName
from tests.indexes.duplicates.collection import add, add_pairs, pair
from tests.indexes.pictures import LOCAL, PHASH, known, row_of


@pytest.fixture(params=["lmdb", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store
    if request.param == "lmdb":
        store = LmdbStore(tmp_path / "store")
    else:
        store = PostgresStore(request.getfixturevalue("new_database")())
    for at in range(4):
        add(store, at)
    add_pairs(store, pair(store, 0, 1), pair(store, 0, 2), pair(store, 1, 2))
    yield store
    store.close()


def shown(store: Store) -> list[tuple[int, ...]]:
    return [one.group.images for one in groups_page(store, None, "", 100)[0]]


@pytest.mark.parametrize("what", ["keep_all", "different", "alternates"])
def test_a_decided_pair_is_not_shown_again(store: Store, what: deciding.What) -> None:
    decide(store, what, [0, 1, 2])
    assert shown(store) == []
    # The next run, with another model, under other ids.
    for at in (0, 1, 2):
        store.delete(at)
        add(store, 10 + at, str(at))
    again = [pair(store, 10, 11, "crop"), pair(store, 10, 12), pair(store, 11, 12)]
    add_pairs(store, *again)
    assert shown(store) == []
    add(store, 1, "another picture under the id")
    add_pairs(store, pair(store, 1, 10))
    assert shown(store) == [(1, 10)]


def test_an_undone_decision_shows_the_pair_again(store: Store) -> None:
    before = shown(store)
    decision = decide(store, "different", [0, 1, 2])
    undone = undo(store, decision.decision_id)
    assert undone.state == "undone"
    assert shown(store) == before
    with pytest.raises(Conflict, match="undone before"):
        undo(store, decision.decision_id)
    with pytest.raises(UnknownName, match="no decision"):
        undo(store, "never")


def test_an_undo_leaves_what_was_decided_later(store: Store) -> None:
    first = decide(store, "different", [0, 1, 2])
    decide(store, "alternates", [0, 1, 2])
    undo(store, first.decision_id)
    assert shown(store) == []


def test_the_best_stays_unless_others_are_named(store: Store) -> None:
    decision = decide(store, "delete", [0, 1, 2])
    assert (decision.keep, decision.deleted, decision.level) == ((0,), (1, 2), "reencode")
    assert [image.image_id for image in store.images()] == [0, 3]
    assert shown(store) == []


def test_a_deletion_is_undone_with_all_that_was_stored(store: Store) -> None:
    features = {PHASH: row_of("p"), LOCAL: b"" * 5}
    write = {
        "preview": b"jpeg",
        "original": b"file",
        "source": b"/caf\xe9.jpg".decode("utf-8", "surrogateescape"),
    }
    add(
        store,
        5,
        "5",
        features=features,
        wanted=frozenset({"phash", "local", "color"}),
        metadata={"tags": ["a"], "n": 1},
        **write,
    )
    image = known(store, 5)
    store.annotate(5, image.generation, {"caption": {"text": "machine"}}, "machine")
    store.annotate(5, image.generation, {"ocr": None}, "person")
    add_pairs(store, pair(store, 0, 5, "crop"))
    before, groups = known(store, 5), shown(store)
    row = store.rows(ANNOTATIONS, [5])
    decision = decide(store, "delete", [0, 5], [0])
    assert store.image(5) is None
    undone = undo(store, decision.decision_id)
    assert undone.restored == {"5": 5}
    after = known(store, 5)
    for name in ("sha256", "width", "height", "source", "created", "wanted", "pending", "metadata"):
        assert getattr(after, name) == getattr(before, name)
    assert store.preview(5) == b"jpeg"
    assert store.original(5, after.generation) == b"file"
    assert store.rows(LOCAL, [5]) == {5: features[LOCAL]}
    assert store.rows(PHASH, [5]) == {5: row_of("p")}
    assert store.rows(ANNOTATIONS, [5]) == row
    assert shown(store) == groups


def test_tags_and_a_persons_words_move_to_the_picture_that_stays(store: Store) -> None:
    generations = {at: known(store, at).generation for at in range(3)}
    store.annotate(0, generations[0], {"ocr": {"text": "mine"}}, "person", {"tags": ["a"]})
    store.annotate(0, generations[0], {"caption": {"text": "machine"}}, "machine")
    store.annotate(1, generations[1], {"caption": {"text": "Rex", "tags": ["dog"]}}, "person")
    store.annotate(1, generations[1], {"ocr": {"text": "theirs"}}, "person", {"tags": ["b", "a"]})
    store.annotate(2, generations[2], {"places365": {"text": "beach"}}, "machine")
    decision = decide(store, "delete", [0, 1, 2])
    said = annotations_of(store, [0])[0]
    assert {name: one["text"] for name, one in said.items()} == {"ocr": "mine", "caption": "Rex"}
    assert known(store, 0).metadata == {"tags": ["a", "b"]}
    undo(store, decision.decision_id)
    assert known(store, 0).metadata == {"tags": ["a"]}
    assert known(store, 1).metadata == {"tags": ["b", "a"]}


def test_an_undo_does_not_take_tags_that_were_given_since(store: Store) -> None:
    store.annotate(1, known(store, 1).generation, {}, "person", {"tags": ["b"]})
    decision = decide(store, "delete", [0, 1])
    store.annotate(0, known(store, 0).generation, {}, "person", {"tags": ["b", "later"]})
    undo(store, decision.decision_id)
    assert known(store, 0).metadata == {"tags": ["b", "later"]}


def test_an_undo_takes_back_the_annotations_that_were_merged(store: Store) -> None:
    generations = {at: known(store, at).generation for at in range(3)}
    store.annotate(0, generations[0], {"caption": {"text": "machine"}}, "machine")
    before = store.rows(ANNOTATIONS, [0, 1, 2])
    store.annotate(1, generations[1], {"caption": {"text": "Rex"}, "ocr": {"text": "x"}}, "person")
    store.annotate(2, generations[2], {"places365": None}, "person")
    theirs = store.rows(ANNOTATIONS, [1, 2])
    decision = decide(store, "delete", [0, 1, 2])
    assert annotations_of(store, [0])[0]["caption"]["text"] == "Rex"
    undo(store, decision.decision_id)
    assert store.rows(ANNOTATIONS, [0, 1, 2]) == before | theirs


def test_an_undo_leaves_annotations_that_were_edited_since(store: Store) -> None:
    generation = known(store, 1).generation
    store.annotate(1, generation, {"caption": {"text": "Rex"}, "ocr": {"text": "x"}}, "person")
    decision = decide(store, "delete", [0, 1])
    store.annotate(0, known(store, 0).generation, {"caption": {"text": "Max"}}, "person")
    undo(store, decision.decision_id)
    said = annotations_of(store, [0])[0]
    assert {name: one["text"] for name, one in said.items()} == {"caption": "Max"}


def test_an_undo_leaves_another_picture_under_the_id_that_stayed(store: Store) -> None:
    store.annotate(1, known(store, 1).generation, {"ocr": {"text": "x"}}, "person", {"tags": ["b"]})
    decision = decide(store, "delete", [0, 1])
    add(store, 0, "another picture")
    write = {"ocr": {"text": "x"}}
    store.annotate(0, known(store, 0).generation, write, "person", {"tags": ["b"]})
    undo(store, decision.decision_id)
    assert known(store, 0).metadata == {"tags": ["b"]}
    assert annotations_of(store, [0])[0]["ocr"]["text"] == "x"


def test_an_image_comes_back_under_another_id_if_its_own_is_taken(store: Store) -> None:
    decision = decide(store, "delete", [0, 1])
    add(store, 1, "another picture")
    undone = undo(store, decision.decision_id)
    new = undone.restored["1"]
    assert new > 3
    assert known(store, 1).sha256 != known(store, new).sha256 == decision.contents["1"]


def test_the_larger_stays_and_the_order_to_keep_it_too(store: Store) -> None:
    store.delete(0)
    decision = decide(store, "keep_larger", [1, 2])
    assert (decision.keep, decision.deleted) == ((1,), (2,))
    add(store, 7, "2")
    add_pairs(store, pair(store, 1, 7))
    assert (1, 7) in shown(store)


def test_an_image_that_changed_its_picture_is_not_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = store.delete

    def replaced_first(image_id: int, if_version: int | None = None) -> int | None:
        if known(store, 2).sha256 == second:
            add(store, 2, "another")
        return inner(image_id, if_version)

    second = known(store, 2).sha256
    monkeypatch.setattr(store, "delete", replaced_first)
    decision = decide(store, "delete", [0, 2])
    assert decision.deleted == ()
    assert store.image(2) is not None


def test_two_decisions_at_once_do_not_delete_everything(store: Store) -> None:
    decide(store, "delete", [0, 1], [0])
    with pytest.raises(ImageNotFound):
        decide(store, "delete", [0, 1], [1])
    late = Decision(
        "0000000000001-a",
        "delete",
        time.time(),
        "person",
        (0, 1),
        {"0": known(store, 0).sha256, "1": "x"},
        (1,),
    )
    with pytest.raises(Conflict, match="nothing was deleted"):
        deciding.finish(store, late)
    assert store.image(0) is not None


def test_a_decision_whose_process_died_is_finished(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    inner = store.delete

    def dies(image_id: int, if_version: int | None = None) -> int | None:
        if image_id == 2:
            raise Killed
        return inner(image_id, if_version)

    monkeypatch.setattr(store, "delete", dies)
    with pytest.raises(Killed):
        decide(store, "delete", [0, 1, 2])
    monkeypatch.undo()
    assert finish_begun(store) == 0
    assert finish_begun(store, older_than=-1) == 1
    (done,), _ = history(store, "", 10)
    assert (done.state, done.deleted) == ("done", (1, 2))
    undo(store, done.decision_id)
    assert shown(store) == [(0, 1, 2)]


def test_what_was_deleted_is_forgotten_after_a_month(store: Store) -> None:
    decision = decide(store, "delete", [0, 1])
    assert forget_old(store) == 0
    assert forget_old(store, time.time() + KEPT_SECONDS + 1) == 1
    with pytest.raises(Conflict, match="forgotten"):
        undo(store, decision.decision_id)


def test_the_history_is_told_from_the_newest(store: Store) -> None:
    made = []
    for what in ("different", "keep_all", "alternates"):
        made.append(decide(store, what, [0, 1]).decision_id)
        time.sleep(0.002)
    page, after = history(store, "", 2)
    assert [one.decision_id for one in page] == made[:0:-1]
    assert after is not None
    assert [one.decision_id for one in history(store, after, 2)[0]] == made[:1]


def test_the_history_of_one_kind_is_read_in_pages(store: Store) -> None:
    add(store, 4)
    stacks = []
    for at in (1, 2, 3):
        stacks.append(decide(store, "alternates", [0, at]).decision_id)
        decide(store, "different", [at, 4])
        time.sleep(0.002)
    page, after = history(store, "", 2, "alternates")
    assert [one.decision_id for one in page] == stacks[:0:-1]
    assert after is not None
    assert history(store, after, 2, "alternates")[0][0].decision_id == stacks[0]
    assert history(store, "", 100, "keep_all") == ([], None)


def test_impossible_decisions_are_refused_by_name(store: Store) -> None:
    for ids, keep, match in [
        ([0], None, "2 to 1000"),
        ([0, 0], None, "2 to 1000"),
        ([0, 1], [], "at least one"),
        ([0, 1], [2], "none of the image_ids"),
        ([0, 1], [1, 0], "nothing would be deleted"),
    ]:
        with pytest.raises(InvalidInput, match=match):
            decide(store, "delete", ids, keep)
    with pytest.raises(InvalidInput, match="only for `delete`"):
        decide(store, "different", [0, 1], [0])
    with pytest.raises(ImageNotFound, match="no image 99"):
        decide(store, "delete", [0, 99])


def test_of_images_that_no_group_shows_together_none_is_deleted_as_not_the_best(
    store: Store,
) -> None:
    for ids in ([0, 3], [0, 1, 3]):
        with pytest.raises(Conflict, match="no group shows these images together"):
            decide(store, "delete", ids)
    assert store.count() == 4
    assert decide(store, "delete", [0, 3], [3]).deleted == (0,)


def test_a_rule_becomes_automatic_after_enough_approvals_without_a_denial(store: Store) -> None:
    set_rule(store, "reencode", needed=2)
    for number in range(2):
        with pytest.raises(Conflict, match=f"has {number} approvals"):
            set_rule(store, "reencode", automatic=True)
        add(store, 100 + number, "x", width=10, height=10)
        add(store, 200 + number, "y", width=9, height=9)
        add_pairs(store, pair(store, 100 + number, 200 + number))
        decide(store, "delete", [100 + number, 200 + number])
    assert set_rule(store, "reencode", automatic=True).automatic
    decide(store, "different", [0, 1, 2])
    rule = read_rule(store, "reencode")
    assert (rule.automatic, rule.approvals, rule.denials) == (False, 0, 1)


def test_keeping_another_than_the_best_and_an_undo_are_denials(store: Store) -> None:
    decision = decide(store, "delete", [0, 1, 2], [1])
    assert decision.approves is False
    assert read_rule(store, "reencode").denials == 1
    undo(store, decision.decision_id)
    assert read_rule(store, "reencode").denials == 1
    approved = decide(store, "delete", [0, 1, 2])
    assert read_rule(store, "reencode").approvals == 1
    undo(store, approved.decision_id)
    assert read_rule(store, "reencode").denials == 2


def test_a_decision_among_many_groups_takes_no_longer(store: Store) -> None:
    def seconds(first: int) -> float:
        begun = time.process_time()
        decide(store, "different", [first, first + 1])
        return time.process_time() - begun

    few = min(seconds(0) for _ in range(5))
    for start in range(1000, 3000, 200):
        for at in range(start, start + 200):
            add(store, at)
        pairs = [pair(store, at, at + 1) for at in range(start, start + 200, 2)]
        regroup(store, range(start, start + 200), pair_writes(pairs))
    assert len(shown(store)) == 100
    many = min(seconds(at) for at in range(1000, 1010, 2))
    assert many < 5 * few + 0.02
