"""What is connected with some images, read from the store: pairs that hold, and stored groups.

It is bounded. Of what is larger, such as a burst of thousands or a chain of near-copies, the part
nearest to the images is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import orjson

from indexes.duplicates.facts import Facts, facts_of
from indexes.duplicates.grouping import Group
from indexes.duplicates.levels import LEVELS
from indexes.duplicates.pairs import PAGE, PAIRS, Pair, id_text, pairs_page
from indexes.store.base import Store
from indexes.store.records import RecordKey

GROUPS = "duplicates.group"
MEMBERS = "duplicates.member"
VERDICTS = "duplicates.verdict"
HIDING = frozenset({"keep_all", "different", "alternates"})
"""Decisions after which a pair is not shown again."""
MOST_CONNECTED = 300
"""Images that are read beside the given ones; all members of the groups of those are read."""

Writes = dict[RecordKey, bytes | None]
Ends = tuple[int, int]


@dataclass(slots=True)
class Connected:
    """Images by id, pairs that hold and are not hidden, and groups that are stored now."""

    facts: dict[int, Facts] = field(default_factory=dict)
    pairs: dict[Ends, Pair] = field(default_factory=dict)
    void: list[Pair] = field(default_factory=list)
    """Pairs of images that are gone, or hold another picture now."""
    stored: dict[str, Group] = field(default_factory=dict)
    """Groups by id of which every image was looked at."""
    beyond: list[Group] = field(default_factory=list)
    """Groups of which some images were not looked at."""
    seen: set[int] = field(default_factory=set)
    """Images that were looked at."""
    is_whole: bool = True
    """Whether nothing more is connected with them."""


def verdict_key(one: str, other: str) -> RecordKey:
    """The name of the verdict on two contents, whatever their ids are."""
    return RecordKey(VERDICTS, "-".join(sorted((one, other))))


def stored_groups(store: Store, image_ids: Iterable[int]) -> dict[str, bytes]:
    """The stored groups that show any of these images, by id."""
    places = [f"{id_text(at)}.{level:02d}" for at in image_ids for level in range(len(LEVELS))]
    keys = {key.decode() for key in store.records_by_key(MEMBERS, places).values()}
    return store.records_by_key(GROUPS, keys)


def connected(store: Store, image_ids: Collection[int], given: Writes) -> Connected:
    """What is connected with these images, where pairs and verdicts of `given` count already."""
    part, left = Connected(), set(image_ids)
    groups: dict[str, Group] = {}
    near: set[int] = set()
    most = len(left) + MOST_CONNECTED
    reader = _PairReader(store, part, given)
    while left:
        found = reader.read(left)
        known = {key: Group.decode(data) for key, data in stored_groups(store, left).items()}
        first = not part.seen
        part.seen |= left
        part.pairs |= found
        groups |= known
        members = {at for one in known.values() for at in one.images} - part.seen
        near = near.union(members, *found) - part.seen
        room = max(most - len(part.seen), len(members) if first else 0)
        left = set([*sorted(members), *sorted(near - members)][:room])
    part.is_whole = not near - part.seen
    for key, one in groups.items():
        if part.seen.issuperset(one.images):
            part.stored[key] = one
        else:
            part.beyond.append(one)
    part.pairs = {ends: pair for ends, pair in part.pairs.items() if part.seen.issuperset(ends)}
    return part


class _PairReader:
    """Reads the pairs of images, of each at most about PAGE that hold and are not hidden."""

    def __init__(self, store: Store, part: Connected, given: Writes) -> None:
        self._store = store
        self._part = part
        self._given = given
        self._new: dict[int, list[Pair]] = {}
        """Pairs by image that are about to be written."""
        for name, data in given.items():
            if name.kind == PAIRS and data is not None:
                self._new.setdefault(int(name.key[:15]), []).append(Pair.decode(data))

    def read(self, image_ids: Iterable[int]) -> dict[Ends, Pair]:
        """The pairs of these images. Adds to the facts and void pairs of the part."""
        new = {(one.a, one.b): one for at in image_ids for one in self._new.get(at, ())}
        found = self._that_count(new)
        after = dict.fromkeys(image_ids, "")
        counts = dict.fromkeys(image_ids, 0)
        while after:
            pages = {at: pairs_page(self._store, at, key) for at, key in after.items()}
            read = {(one.a, one.b): one for page, _ in pages.values() for one in page}
            there = self._that_count({ends: one for ends, one in read.items() if ends not in new})
            for at in (at for ends in there for at in ends if at in counts):
                counts[at] += 1
            found |= there
            after = {
                at: following
                for at, (_, following) in pages.items()
                if following is not None and counts[at] < PAGE
            }
        return found

    def _that_count(self, pairs: Mapping[Ends, Pair]) -> dict[Ends, Pair]:
        """Those that hold and are not hidden."""
        facts = self._part.facts
        unknown = {at for ends in pairs for at in ends} - facts.keys()
        facts |= facts_of(self._store, self._store.images_by_id(sorted(unknown)).values())
        holding = {ends: pair for ends, pair in pairs.items() if _holds(pair, facts)}
        self._part.void += [pair for ends, pair in pairs.items() if ends not in holding]
        hidden = self._hidden(holding.values())
        return {
            ends: pair
            for ends, pair in holding.items()
            if verdict_key(*pair.contents).key not in hidden
        }

    def _hidden(self, pairs: Iterable[Pair]) -> set[str]:
        """The keys of verdicts that hide pairs."""
        names = [verdict_key(*pair.contents) for pair in pairs]
        stored = self._store.records_by_key(VERDICTS, [name.key for name in names])
        verdicts: dict[str, bytes | None] = {**stored}
        verdicts |= {name.key: self._given[name] for name in names if name in self._given}
        return {
            key
            for key, data in verdicts.items()
            if data and orjson.loads(data)["decision"] in HIDING
        }


def _holds(pair: Pair, facts: Mapping[int, Facts]) -> bool:
    return all(
        at in facts and facts[at].image.sha256 == content
        for at, content in zip((pair.a, pair.b), pair.contents, strict=True)
    )
