"""The catalogue of groups, kept in the store and regrouped where something has changed.

All that one change touches is read, regrouped and written in one transaction, under the condition
that nobody else has changed it meanwhile. A change costs what its own group costs, however many
others there are, and is bounded.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from indexes.duplicates.best import BestRule, read_best_rule, with_enlarged
from indexes.duplicates.connected import (
    GROUPS,
    MEMBERS,
    Connected,
    Writes,
    connected,
    stored_groups,
)
from indexes.duplicates.facts import Facts
from indexes.duplicates.grouping import Group, group
from indexes.duplicates.levels import LEVELS, Level
from indexes.duplicates.pairs import id_text, pair_removals
from indexes.store.base import Store
from indexes.store.records import RecordKey
from models.errors import Conflict, PreconditionFailed

STATE = "duplicates.state"
COUNTS = RecordKey(STATE, "levels")
AGAIN = "duplicates.again"
"""Images that lost a pair, and are to be compared again: it may have been all that connected them
with others."""
FOLLOWED = RecordKey(STATE, "followed")
REGROUP = RecordKey(STATE, "regroup")
"""There while all images are to be grouped anew, because what decides on groups was changed."""
ATTEMPTS, PAUSE = 200, 0.005
"""How often a change that others come before is tried again, and after how many seconds at most,
the first time."""
TOP = 10**15
"""Above the size of any group in bytes, so that the largest come first in the order of keys."""


class Counts(NamedTuple):
    """What a level holds."""

    groups: int = 0
    images: int = 0
    bytes: int = 0
    """Bytes of all images but the best of each group."""


class Followed(NamedTuple):
    """How far a job has followed the log."""

    head: int
    pending: int
    """Log entries that it has not looked at; all images count if they are to be grouped anew."""


class StoredGroup(NamedTuple):
    """A group with its id."""

    group_id: str
    group: Group


def counts(store: Store) -> dict[Level, Counts]:
    """What each level holds."""
    found = orjson.loads(store.record(*COUNTS) or b"{}")
    return {level: Counts(*found.get(level, ())) for level in LEVELS}


def followed(store: Store) -> Followed:
    """How far the log was followed; not at all in another store, such as a restored backup."""
    said = orjson.loads(store.record(*FOLLOWED) or b"{}")
    head = said["head"] if said.get("store") == store.uuid else 0
    pending = max(0, store.head() - head)
    if store.record(*REGROUP) is not None:
        pending += store.count()
    return Followed(head, pending)


def followed_write(store: Store, head: int) -> Writes:
    """The record that the log was followed up to a seq."""
    return {FOLLOWED: orjson.dumps({"store": store.uuid, "head": head})}


def regroup_all_later() -> Writes:
    """The record that the next run of the job groups all images anew."""
    return {REGROUP: b"{}"}


def groups_page(
    store: Store, level: Level | None, after: str, limit: int
) -> tuple[list[StoredGroup], str | None]:
    """A page of groups, the strictest level first and in it the most bytes, and where the next one
    begins."""
    prefix = "" if level is None else f"{LEVELS.index(level):02d}."
    page = store.records(GROUPS, after, limit, prefix)
    found = [StoredGroup(one.key, Group.decode(one.value)) for one in page]
    return found, page[-1].key if len(page) == limit else None


def groups_of(store: Store, image_ids: Iterable[int]) -> list[StoredGroup]:
    """The groups that show any of these images."""
    found = stored_groups(store, image_ids)
    return [StoredGroup(key, Group.decode(found[key])) for key in sorted(found)]


def regroup(store: Store, image_ids: Collection[int], writes: Writes | None = None) -> set[int]:
    """Group anew what is connected with these images, and write `writes` in the same transaction.

    Pairs among `writes`, and verdicts, count already. Pairs of images that are gone, or hold
    another picture now, are removed. Where very many images are connected, those near the given
    ones are grouped, and groups that reach beyond them stay as they are. Returns the ids around
    which everything was grouped. Raises Conflict if others keep changing the same groups.
    """
    given = writes or {}
    for attempt in range(ATTEMPTS):
        before = store.record(*COUNTS)
        part = connected(store, image_ids, given)
        grouped = _grouped(store, part)
        changed = _group_writes(part, grouped)
        around = part.seen if part.is_whole else set(image_ids)
        if not (changed or given or part.void):
            return around
        after = _changed_counts(before, part.stored.values(), grouped.values())
        expected: Writes = {
            RecordKey(GROUPS, key): one.encode() for key, one in part.stored.items()
        }
        everything = {**_voided(part), **given, **changed, COUNTS: after}
        try:
            store.write_records(everything, expected | {COUNTS: before})
        except PreconditionFailed:
            time.sleep(random.random() * PAUSE * min(attempt + 1, 16))
            continue
        return around
    raise Conflict("the groups are being changed by others all the time; try again")


def _voided(part: Connected) -> Writes:
    """The removal of void pairs; what is left of them is to be compared again."""
    left = {at for pair in part.void for at in (pair.a, pair.b) if at in part.facts}
    again: Writes = {RecordKey(AGAIN, id_text(at)): b"" for at in left}
    return {**pair_removals(part.void), **again}


def _grouped(store: Store, part: Connected) -> dict[str, Group]:
    """The groups by id."""
    rule = read_best_rule(store)
    facts = with_enlarged(part.facts, part.pairs.values())
    ordered = rule.ordered({at: facts[at] for ends in part.pairs for at in ends})
    place = {at: number for number, at in enumerate(ordered)}
    groups = group(part.pairs.values(), place, part.beyond)
    return {group_id(one): one for one in (_told(it, rule, facts) for it in groups)}


def _told(one: Group, rule: BestRule, facts: Mapping[int, Facts]) -> Group:
    size = sum(facts[at].bytes for at in one.images[1:])
    return replace(one, size=size, reasons=rule.reasons(one.images, facts))


def group_id(one: Group) -> str:
    """The id of a group, which is its key: by level, then the most bytes first."""
    most = TOP - min(one.size, TOP)
    return f"{LEVELS.index(one.level):02d}.{most:016d}.{one.images[0]:015d}"


def _group_writes(part: Connected, grouped: Mapping[str, Group]) -> Writes:
    now = {key: one.encode() for key, one in grouped.items()}
    writes: Writes = {}
    if now == {key: one.encode() for key, one in part.stored.items()}:
        return writes
    for key, one in part.stored.items():
        writes |= dict.fromkeys(_members(key, one))
        writes[RecordKey(GROUPS, key)] = None
    for key, one in grouped.items():
        writes |= dict.fromkeys(_members(key, one), key.encode())
        writes[RecordKey(GROUPS, key)] = now[key]
    return writes


def _members(key: str, one: Group) -> list[RecordKey]:
    return [RecordKey(MEMBERS, f"{id_text(at)}.{key[:2]}") for at in one.images]


def _changed_counts(before: bytes | None, was: Iterable[Group], now: Iterable[Group]) -> bytes:
    totals: dict[str, Any] = orjson.loads(before or b"{}")
    # Every change gives the record another value, so that no other change goes unnoticed.
    totals["changes"] = totals.get("changes", 0) + 1
    for sign, groups in ((-1, was), (1, now)):
        for one in groups:
            total = totals.setdefault(one.level, [0, 0, 0])
            for place, value in enumerate((1, len(one.images), one.size)):
                total[place] += sign * value
    return orjson.dumps(totals)
