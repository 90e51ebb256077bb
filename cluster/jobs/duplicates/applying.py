"""Deletes duplicates: of whole levels on request, and what standing decisions tell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

import orjson

from indexes.duplicates.catalogue import StoredGroup, counts, groups_page
from indexes.duplicates.connected import VERDICTS, verdict_key
from indexes.duplicates.decisions import decide
from indexes.duplicates.levels import LEVELS, Level
from indexes.duplicates.rules import read_rule
from indexes.store.base import Store
from models.errors import Conflict, ImageNotFound

PAGE = 100


@dataclass(slots=True)
class Applied:
    """What was deleted."""

    deleted: list[int] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    """Ids of the decisions, by which it can be undone."""
    skipped: int = 0
    """Groups that were changed by others meanwhile."""


def to_delete(store: Store, levels: Collection[Level]) -> Iterator[StoredGroup]:
    """The groups of these levels, the strictest first, without those whose best image is to be
    deleted itself."""
    gone: set[int] = set()
    for level in (one for one in LEVELS if one in levels):
        for found in all_groups(store, level):
            best, *others = found.group.images
            if best not in gone:
                gone.update(others)
                yield found


def all_groups(store: Store, level: Level) -> Iterator[StoredGroup]:
    """All groups of a level, also while they are being decided."""
    after: str | None = ""
    while after is not None:
        page, after = groups_page(store, level, after, PAGE)
        yield from page


def apply(store: Store, levels: Collection[Level], asked: Callable[[Level, int], bool]) -> Applied:
    """Delete all but the best of each group of these levels.

    `asked` is called with each level that is not automatic and its number of groups, and says
    whether to go on. Tags and a person's annotations go to the best.
    """
    applied = Applied()
    _keep_larger(store, applied)
    numbers = counts(store)
    for level in (one for one in LEVELS if one in levels and numbers[one].groups):
        if read_rule(store, level).automatic or asked(level, numbers[level].groups):
            for found in to_delete(store, [level]):
                _decide(store, found, applied)
    return applied


def automatic_levels(store: Store) -> list[Level]:
    """The levels that need no person."""
    return [level for level in LEVELS if read_rule(store, level).automatic]


def _keep_larger(store: Store, applied: Applied) -> None:
    """Repeat decisions to keep the larger on contents that came back."""
    for level in LEVELS:
        for found in all_groups(store, level):
            names = [verdict_key(*pair.contents).key for pair in found.group.pairs]
            said = store.records_by_key(VERDICTS, names).values()
            standing = [orjson.loads(one)["decision"] == "keep_larger" for one in said]
            if standing and all(standing) and len(standing) == len(set(names)):
                _decide(store, found, applied, larger=True)


def _decide(store: Store, found: StoredGroup, applied: Applied, larger: bool = False) -> None:
    ids = found.group.images
    try:
        if larger:
            made = decide(store, "keep_larger", ids, by="rule")
        else:
            made = decide(store, "delete", ids, ids[:1], "rule")
    except (ImageNotFound, Conflict):
        applied.skipped += 1
        return
    applied.deleted += made.deleted
    applied.decisions.append(made.decision_id)
