"""Which levels may be decided without a person, and what they have earned that by.

A level becomes automatic on request after so many approvals without a denial. A denial makes it
manual again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

import orjson

from indexes.duplicates.best import RULES
from indexes.duplicates.levels import LEVELS, Level
from indexes.store.base import Store
from indexes.store.records import RecordKey
from models.errors import Conflict, PreconditionFailed

NEEDED = 20
"""Approvals without a denial after which a level may become automatic, unless the owner has set
another number."""
Vote = Literal["approval", "denial"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is known of one level."""

    level: Level
    automatic: bool = False
    approvals: int = 0
    """Approvals since the last denial."""
    denials: int = 0
    """All denials."""
    needed: int = NEEDED

    @property
    def may_be_automatic(self) -> bool:
        return self.approvals >= self.needed

    def voted(self, vote: Vote) -> Rule:
        """The rule after a person's decision."""
        if vote == "approval":
            return replace(self, approvals=self.approvals + 1)
        return replace(self, automatic=False, approvals=0, denials=self.denials + 1)

    def encode(self) -> bytes:
        return orjson.dumps(asdict(self))


def read_rule(store: Store, level: Level) -> Rule:
    return _decoded(level, store.record(RULES, level))


def read_rules(store: Store) -> list[Rule]:
    """The rules of all levels, the strictest first."""
    found = store.records_by_key(RULES, LEVELS)
    return [_decoded(level, found.get(level)) for level in LEVELS]


def set_rule(
    store: Store, level: Level, automatic: bool | None = None, needed: int | None = None
) -> Rule:
    """Make a level automatic or manual, or set how many approvals it needs.

    Raises Conflict for a level that may not become automatic yet.
    """
    while True:
        stored = store.record(RULES, level)
        rule = _decoded(level, stored)
        if needed is not None:
            rule = replace(rule, needed=needed)
        if automatic and not rule.may_be_automatic:
            raise Conflict(
                f"{level} has {rule.approvals} approvals since its last denial and needs "
                f"{rule.needed} to become automatic",
                "automatic",
            )
        rule = replace(rule, automatic=rule.automatic if automatic is None else automatic)
        name = RecordKey(RULES, level)
        try:
            store.write_records({name: rule.encode()}, {name: stored})
        except PreconditionFailed:
            continue
        return rule


def vote(store: Store, level: Level, given: Vote) -> Rule:
    """Count a person's decision on a group of this level."""
    while True:
        stored = store.record(RULES, level)
        rule = _decoded(level, stored).voted(given)
        name = RecordKey(RULES, level)
        try:
            store.write_records({name: rule.encode()}, {name: stored})
        except PreconditionFailed:
            continue
        return rule


def _decoded(level: Level, data: bytes | None) -> Rule:
    return Rule(level) if data is None else Rule(**orjson.loads(data))
