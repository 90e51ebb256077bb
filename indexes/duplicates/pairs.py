"""Confirmed pairs of images, as records by the ids of both.

A pair is stored under both orders of its ids, so that all pairs of an image are read by one prefix.
It names both contents: a pair of an id that holds another picture now is void.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from indexes.duplicates.levels import LEVELS, Level
from indexes.store.records import RecordKey, Records

PAIRS = "duplicates.pair"
PAGE = 1000

Region = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images, `a` below `b`, and what they are to each other."""

    a: int
    b: int
    contents: tuple[str, str]
    """SHA-256 of both files."""
    level: Level
    relation: str
    """A kind of relation, or `identical` for the same bytes."""
    confidence: float
    changes: tuple[str, ...] = ()
    overlap: tuple[float, float] | None = None
    """Shares of the areas of `a` and `b` that both show."""
    regions: tuple[Region, ...] = ()
    """Boxes (x, y, width, height) that differ, in pixels of `a` and of `b`."""
    enlarged: int | None = None
    """The one of them that is the other, only enlarged, as far as previews tell."""

    @property
    def rank(self) -> int:
        """Number of the level, 0 for the strictest."""
        return LEVELS.index(self.level)

    def other(self, image_id: int) -> int:
        return self.b if image_id == self.a else self.a

    def row(self) -> dict[str, Any]:
        """The pair as JSON, without what is not known."""
        shown: dict[str, Any] = {"a": self.a, "b": self.b, "level": self.level}
        shown |= {"relation": self.relation, "confidence": self.confidence}
        if self.changes:
            shown["changes"] = self.changes
        if self.overlap is not None:
            shown["overlap"] = self.overlap
        if self.regions:
            shown["regions"] = [{"a": one, "b": other} for one, other in self.regions]
        if self.enlarged is not None:
            shown["enlarged"] = self.enlarged
        return shown

    def encode(self) -> bytes:
        return orjson.dumps([*self.contents, self.row()])

    @classmethod
    def decode(cls, data: bytes) -> Pair:
        one, other, row = orjson.loads(data)
        return cls.of_row(row, (one, other))

    @classmethod
    def of_row(cls, row: Mapping[str, Any], contents: tuple[str, str]) -> Pair:
        overlap = row.get("overlap")
        return cls(
            row["a"],
            row["b"],
            contents,
            row["level"],
            row["relation"],
            row["confidence"],
            tuple(row.get("changes", ())),
            None if overlap is None else (overlap[0], overlap[1]),
            tuple((one["a"], one["b"]) for one in row.get("regions", ())),
            row.get("enlarged"),
        )


def id_text(image_id: int) -> str:
    """An image id as a part of a key: ids below 2^47 have up to 15 digits."""
    return f"{image_id:015d}"


def pair_writes(pairs: Iterable[Pair]) -> dict[RecordKey, bytes | None]:
    """The records of pairs."""
    writes: dict[RecordKey, bytes | None] = {}
    for pair in pairs:
        data = pair.encode()
        writes[_key(pair.a, pair.b)] = writes[_key(pair.b, pair.a)] = data
    return writes


def pair_removals(pairs: Iterable[Pair]) -> dict[RecordKey, bytes | None]:
    """The removal of the records of pairs."""
    return {key: None for pair in pairs for key in (_key(pair.a, pair.b), _key(pair.b, pair.a))}


def pairs_page(store: Records, image_id: int, after: str) -> tuple[list[Pair], str | None]:
    """A page of the stored pairs of an image, and where the next one begins."""
    page = store.records(PAIRS, after, PAGE, f"{id_text(image_id)}-")
    pairs = [Pair.decode(one.value) for one in page]
    return pairs, page[-1].key if len(page) == PAGE else None


def pairs_of(store: Records, image_id: int) -> Iterator[Pair]:
    """All stored pairs of an image."""
    after: str | None = ""
    while after is not None:
        page, after = pairs_page(store, image_id, after)
        yield from page


def have_pairs(store: Records, pairs: Collection[tuple[int, int]]) -> dict[tuple[int, int], Pair]:
    """The stored ones of these pairs of ids."""
    names = {_key(*ids).key: ids for ids in pairs}
    found = store.records_by_key(PAIRS, list(names))
    return {names[key]: Pair.decode(data) for key, data in found.items()}


def _key(one: int, other: int) -> RecordKey:
    return RecordKey(PAIRS, f"{id_text(one)}-{id_text(other)}")
