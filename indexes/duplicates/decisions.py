"""Decisions on duplicates: they stick to contents, have a history, and can be undone.

A decision that deletes is written before the first delete, together with everything that is stored
for what it deletes. So it can be undone, and finished after a crash.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import orjson

from indexes.duplicates.best import read_best_rule, with_enlarged
from indexes.duplicates.catalogue import groups_of, regroup
from indexes.duplicates.connected import VERDICTS, Writes, verdict_key
from indexes.duplicates.facts import Facts, facts_of, tags_of_metadata
from indexes.duplicates.grouping import Group
from indexes.duplicates.kept import (
    KEPT,
    KeptImage,
    decision_time_key,
    forget_old,
    keep,
    kept_key,
    restore,
    restored_pairs,
)
from indexes.duplicates.levels import Level
from indexes.duplicates.pairs import pairs_of
from indexes.duplicates.rules import vote
from indexes.store.annotations import read_annotations
from indexes.store.base import ANNOTATIONS, Image, Store
from indexes.store.records import RecordKey
from models.errors import Conflict, ImageNotFound, InvalidInput, PreconditionFailed, UnknownName

DECISIONS = "duplicates.decision"
What = Literal["delete", "keep_all", "different", "alternates", "keep_larger"]
DELETING: frozenset[What] = frozenset({"delete", "keep_larger"})
MOST_IMAGES = 1000
MOST_COMBINED = 64
"""Images up to which a decision is kept for each two of them, related or not."""
LEASE_SECONDS, LEASE_WAIT = 60.0, 10.0
By = Literal["person", "rule"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision as it is kept."""

    decision_id: str
    decision: What
    made: float
    """When, in seconds since the epoch."""
    by: By
    image_ids: tuple[int, ...]
    contents: Mapping[str, str]
    """SHA-256 by id, as text."""
    keep: tuple[int, ...]
    """Images that stay."""
    level: Level | None = None
    """Level of the group that was decided on."""
    approves: bool | None = None
    """Whether it agrees with what the level's rule would do; None if no rule would do anything."""
    state: Literal["begun", "done", "undone"] = "begun"
    deleted: tuple[int, ...] = ()
    merged: Mapping[str, Any] | None = None
    """The image into which tags and annotations were merged: its tags `before` and `after`, and
    by annotator [before, after]; None where there were none."""
    restored: Mapping[str, int] = field(default_factory=dict)
    """After an undo: the id under which each deleted image is back, by its old id."""

    @property
    def record(self) -> RecordKey:
        return RecordKey(DECISIONS, self.decision_id)

    def encode(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, data: bytes) -> Decision:
        row = orjson.loads(data)
        for name in ("image_ids", "keep", "deleted"):
            row[name] = tuple(row[name])
        return cls(**row)


def decide(
    store: Store,
    what: What,
    image_ids: Sequence[int],
    keep_ids: Sequence[int] | None = None,
    by: By = "person",
) -> Decision:
    """Decide on images: all of them that `keep_ids` does not name are deleted by `delete`.

    Without `keep_ids` the best image stays; `keep_larger` keeps the one with the most pixels.
    Raises InvalidInput, ImageNotFound for an id without an image, and Conflict when the best of
    images is to stay that no group shows together.
    """
    ids = tuple(dict.fromkeys(image_ids))
    images = _images(store, ids)
    facts = facts_of(store, images.values())
    shown = _group_of(store, ids)
    known = [] if shown is None else [one for one in shown.pairs if {one.a, one.b} <= {*ids}]
    stay = _staying(store, what, ids, keep_ids, with_enlarged(facts, known))
    if what == "delete" and keep_ids is None and shown is None:
        raise Conflict("keep: no group shows these images together; name those that stay", "keep")
    approves = None if shown is None else what in DELETING and shown.images[0] in stay
    decision = Decision(
        f"{decision_time_key(time.time())}-{secrets.token_hex(3)}",
        what,
        time.time(),
        by,
        ids,
        {str(at): image.sha256 for at, image in images.items()},
        stay,
        None if shown is None else shown.level,
        approves if by == "person" else None,
    )
    return finish(store, decision)


def finish(store: Store, decision: Decision) -> Decision:
    """Carry out a decision that was made, or one whose process has ended in the midst."""
    writes = _verdicts(store, decision)
    if decision.decision in DELETING:
        with _alone(store):
            _check_staying(store, decision)
            decision = _merged(store, decision)
            decision = _deleted(store, decision)
    done = replace(decision, state="done")
    regroup(store, decision.image_ids, {**writes, done.record: done.encode()})
    if decision.level is not None and decision.approves is not None:
        vote(store, decision.level, "approval" if decision.approves else "denial")
    return done


def finish_begun(store: Store, older_than: float = 60.0) -> int:
    """Finish decisions that were begun so many seconds ago. Returns their number."""
    begun = [one for one in history(store, "", 1000)[0] if one.state == "begun"]
    late = [one for one in begun if one.made < time.time() - older_than]
    for one in late:
        finish(store, one)
    return len(late)


def history(
    store: Store, after: str, limit: int, what: What | None = None
) -> tuple[list[Decision], str | None]:
    """A page of decisions, the newest first, and where the next one begins; only of one kind, if it
    is given."""
    found: list[Decision] = []
    while page := store.records(DECISIONS, after, limit):
        for record in page:
            decision = Decision.decode(record.value)
            if what in (None, decision.decision):
                found.append(decision)
                if len(found) == limit:
                    return found, record.key
        after = page[-1].key
    return found, None


def undo(store: Store, decision_id: str) -> Decision:
    """Take a decision back: its verdicts go, and what it deleted comes back with its features.

    Raises UnknownName for an unknown decision, and Conflict for one that was undone before, or
    whose deleted images were forgotten.
    """
    stored = store.record(DECISIONS, decision_id)
    if stored is None:
        raise UnknownName(f"no decision {decision_id!r}", "decision_id")
    decision = Decision.decode(stored)
    if decision.state == "undone":
        raise Conflict(f"decision {decision_id} was undone before", "decision_id")
    kept = _kept(store, decision)
    restored, writes = dict(decision.restored), Writes()
    for image_id, one in kept.items():
        restored[str(image_id)] = restore(store, one)
        if restored[str(image_id)] == image_id:
            writes |= restored_pairs(one)
        writes[kept_key(decision_id, image_id)] = None
    _unmerge(store, decision)
    writes |= _verdicts_gone(store, decision)
    undone = replace(decision, state="undone", restored=restored)
    writes[decision.record] = undone.encode()
    regroup(store, [*decision.image_ids, *restored.values()], writes)
    if decision.level is not None and decision.approves:
        vote(store, decision.level, "denial")
    return undone


def _images(store: Store, ids: Sequence[int]) -> dict[int, Image]:
    if not 2 <= len(ids) <= MOST_IMAGES:
        raise InvalidInput(f"image_ids: name 2 to {MOST_IMAGES} images", "image_ids")
    images = store.images_by_id(ids)
    for image_id in ids:
        if image_id not in images:
            raise ImageNotFound(f"no image {image_id}", "image_ids")
    return images


def _staying(
    store: Store,
    what: What,
    ids: Sequence[int],
    keep_ids: Sequence[int] | None,
    facts: Mapping[int, Facts],
) -> tuple[int, ...]:
    """The images that stay. Raises InvalidInput."""
    if what != "delete":
        if keep_ids is not None:
            raise InvalidInput("keep: only for `delete`", "keep")
        return tuple(ids) if what != "keep_larger" else (_largest(facts),)
    if keep_ids is None:
        return (read_best_rule(store).ordered(facts)[0],)
    if stray := sorted(set(keep_ids) - set(ids)):
        raise InvalidInput(f"keep: {stray[0]} is none of the image_ids", "keep")
    if not keep_ids:
        raise InvalidInput("keep: name at least one image that stays", "keep")
    if len(set(keep_ids)) == len(ids):
        raise InvalidInput("keep: it names all image_ids, so nothing would be deleted", "keep")
    return tuple(dict.fromkeys(keep_ids))


def _largest(facts: Mapping[int, Facts]) -> int:
    return min(facts, key=lambda at: (-facts[at].pixels, -facts[at].bytes, -facts[at].quality, at))


def _group_of(store: Store, ids: Sequence[int]) -> Group | None:
    """The strictest group that shows all these images."""
    groups = (one.group for one in groups_of(store, ids[:1]))
    return next((one for one in groups if {*ids} <= {*one.images}), None)


def _verdicts(store: Store, decision: Decision) -> Writes:
    """A verdict for each two contents; of many images, for those of which there is a pair."""
    if decision.decision == "delete":
        return {}
    value = orjson.dumps({"decision": decision.decision, "decision_id": decision.decision_id})
    ids = decision.image_ids
    if len(ids) <= MOST_COMBINED:
        ends = {(one, other) for at, one in enumerate(ids) for other in ids[at + 1 :]}
    else:
        found = (pair for at in ids for pair in pairs_of(store, at))
        ends = {(pair.a, pair.b) for pair in found if {pair.a, pair.b} <= {*ids}}
    contents = decision.contents
    return {verdict_key(contents[str(a)], contents[str(b)]): value for a, b in ends}


def _verdicts_gone(store: Store, decision: Decision) -> Writes:
    """The removal of verdicts that are still this decision's."""
    names = _verdicts(store, decision)
    stored = store.records_by_key(VERDICTS, [name.key for name in names])
    return {
        RecordKey(VERDICTS, key): None
        for key, data in stored.items()
        if orjson.loads(data)["decision_id"] == decision.decision_id
    }


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Hold the lease of decisions that delete. Without it, two at once could each delete what the
    other one keeps. Raises Conflict."""
    holder, until = secrets.token_hex(8), time.monotonic() + LEASE_WAIT
    while not store.lease(DECISIONS, holder, LEASE_SECONDS):
        if time.monotonic() > until:
            raise Conflict("another decision is being carried out; try again")
        time.sleep(0.01)
    try:
        yield
    finally:
        store.release(DECISIONS, holder)


# --- deleting -------------------------------------------------------------------------------------


def _check_staying(store: Store, decision: Decision) -> None:
    """Raise Conflict if a picture that is to stay is gone."""
    there = store.images_by_id(decision.keep)
    for image_id in decision.keep:
        found = there.get(image_id)
        if found is None or found.sha256 != decision.contents[str(image_id)]:
            raise Conflict(
                f"image {image_id}, which is to stay, was deleted or replaced meanwhile: "
                "nothing was deleted",
                "keep",
            )


def _deleted(store: Store, decision: Decision) -> Decision:
    """Keep and delete all images that do not stay."""
    left = sorted({*decision.image_ids}.difference(decision.keep, decision.deleted))
    gone = [image_id for image_id in left if _delete(store, decision, image_id)]
    forget_old(store)
    return replace(decision, deleted=(*decision.deleted, *gone))


def _delete(store: Store, decision: Decision, image_id: int) -> bool:
    """Delete one image if it still is the picture that was decided on."""
    while True:
        kept = keep(store, [image_id]).get(image_id)
        if kept is None:
            return store.record(*kept_key(decision.decision_id, image_id)) is not None
        if kept.whole.image.sha256 != decision.contents[str(image_id)]:
            return False
        store.write_records(
            {
                kept_key(decision.decision_id, image_id): kept.encode(),
                decision.record: decision.encode(),
            }
        )
        try:
            store.delete(image_id, kept.whole.image.version)
        except PreconditionFailed:
            continue
        return True


def _kept(store: Store, decision: Decision) -> dict[int, KeptImage]:
    keys = {kept_key(decision.decision_id, at).key: at for at in decision.image_ids}
    found = store.records_by_key(KEPT, list(keys))
    kept = {keys[key]: KeptImage.decode(data) for key, data in found.items()}
    if lost := sorted(set(decision.deleted) - kept.keys()):
        raise Conflict(
            f"image {lost[0]} was deleted too long ago: what was stored for it is forgotten",
            "decision_id",
        )
    return kept


# --- merging --------------------------------------------------------------------------------------


def _merged(store: Store, decision: Decision) -> Decision:
    """Merge the tags, and a person's annotations, of what is deleted into the first that stays."""
    into = decision.keep[0]
    gone = [at for at in decision.image_ids if at not in decision.keep]
    image, others = store.image(into), store.images_by_id(gone)
    if image is None or decision.merged is not None:
        return decision
    rows = store.rows(ANNOTATIONS, [into, *gone])
    mine = read_annotations(rows.get(into))
    tags = list(dict.fromkeys(tags_of_metadata(image)))
    more = [tag for at in others for tag in tags_of_metadata(others[at]) if tag not in tags]
    said: dict[str, dict[str, Any]] = {}
    for at in others:
        for name, one in read_annotations(rows.get(at)).items():
            if one.get("by") == "person" and mine.get(name, {}).get("by") != "person":
                said.setdefault(name, one)
    if not (more or said):
        return decision
    metadata = {"tags": [*tags, *dict.fromkeys(more)]} if more else {}
    store.annotate(into, image.generation, said, "restored", metadata)
    before = image.metadata.get("tags")
    merged = {
        "image_id": into,
        "before": before,
        "after": metadata.get("tags", before),
        "annotations": {name: [mine.get(name), one] for name, one in said.items()},
    }
    return replace(decision, merged=merged)


def _unmerge(store: Store, decision: Decision) -> None:
    """Take back the tags and annotations that were merged, except what was changed since."""
    merged = decision.merged
    image = None if merged is None else store.image(merged["image_id"])
    if merged is None or image is None:
        return
    if image.sha256 != decision.contents[str(image.image_id)]:
        return
    now = read_annotations(store.rows(ANNOTATIONS, [image.image_id]).get(image.image_id))
    said = {
        name: before
        for name, (before, after) in merged.get("annotations", {}).items()
        if now.get(name) == after
    }
    ours = merged["before"] != merged["after"] == image.metadata.get("tags")
    metadata = {"tags": merged["before"]} if ours else {}
    if not (said or metadata):
        return
    try:
        store.annotate(image.image_id, image.generation, said, "restored", metadata, image.version)
    except PreconditionFailed:  # It was changed after it was read.
        _unmerge(store, decision)
