"""Groups of pairs, level by level: every member is related to the best one of its group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from indexes.duplicates.levels import EXACT, LEVELS, Level
from indexes.duplicates.pairs import Pair


@dataclass(frozen=True, slots=True)
class Group:
    """Images of one level of which one can stay."""

    level: Level
    images: tuple[int, ...]
    """Ids, the best first."""
    pairs: tuple[Pair, ...]
    """Pairs among them, at least one of the best with each other one, unless the files of one are
    those of another image."""
    size: int = 0
    """Bytes of the files of all but the best, as far as they are known."""
    reasons: Mapping[int, Sequence[str]] | None = None
    """By id, why it is or is not the best."""

    def encode(self) -> bytes:
        pairs = [[*pair.contents, pair.row()] for pair in self.pairs]
        reasons = {str(at): list(why) for at, why in (self.reasons or {}).items()}
        return orjson.dumps([self.level, self.images, pairs, self.size, reasons])

    @classmethod
    def decode(cls, data: bytes) -> Group:
        level, images, pairs, size, reasons = orjson.loads(data)
        return cls(
            level,
            tuple(images),
            tuple(Pair.of_row(row, (one, other)) for one, other, row in pairs),
            size,
            {int(at): why for at, why in reasons.items()},
        )


MOST_MEMBERS = 250
"""Images of a group. Of more, the others are shown after the group was decided."""


def group(
    pairs: Iterable[Pair], order: Mapping[int, Any], fixed: Sequence[Group] = ()
) -> list[Group]:
    """Groups of these pairs, the strictest first, without reasons.

    `order` gives each image its sort key; the least is the best. `fixed` are groups that there are
    already, and stay: no image is shown twice at their level. An image that a stricter group
    shows beside a better one is not shown again beside what the better one is related to: after
    the stricter group is decided, it is gone. Chains don't merge: a member that is not related to
    the best of a group begins another.
    """
    given = list(pairs)
    stands_for: dict[int, int] = {}
    best_of: dict[int, int] = {}
    related = {(pair.a, pair.b) for pair in given}
    groups: list[Group] = []
    for level in LEVELS:
        edges = _edges((one for one in given if one.level == level), stands_for)
        shown = {
            ends: pair
            for ends, pair in edges.items()
            if not _is_settled(ends, best_of, related, stands_for)
        }
        there = [one for one in fixed if one.level == level]
        taken = {at for one in there for at in one.images}
        made = [Group(level, *star) for star in _stars(shown, order, level in EXACT, taken)]
        groups += made
        for best, *others in (one.images for one in (*there, *made)):
            for image_id in others:
                best_of.setdefault(image_id, best)
                if level in EXACT:
                    stands_for[image_id] = best
    return groups


def _edges(pairs: Iterable[Pair], stands_for: Mapping[int, int]) -> dict[tuple[int, int], Pair]:
    """The surest pair between each two images, where exact copies count as one."""
    edges: dict[tuple[int, int], Pair] = {}
    for pair in pairs:
        a, b = (_standing(at, stands_for) for at in (pair.a, pair.b))
        ends = min(a, b), max(a, b)
        known = edges.get(ends)
        direct, was = ends == (pair.a, pair.b), known and ends == (known.a, known.b)
        better = known is None or (direct, pair.confidence) > (bool(was), known.confidence)
        if a != b and better:
            edges[ends] = pair
    return edges


def _standing(image_id: int, stands_for: Mapping[int, int]) -> int:
    while image_id in stands_for:
        image_id = stands_for[image_id]
    return image_id


def _is_settled(
    ends: tuple[int, int],
    best_of: Mapping[int, int],
    related: set[tuple[int, int]],
    stands_for: Mapping[int, int],
) -> bool:
    """Whether a better image of a stricter group is related to the other end, too."""
    for one, other in (ends, ends[::-1]):
        best = best_of.get(one)
        if best is None:
            continue
        best = _standing(best, stands_for)
        if best == other or (min(best, other), max(best, other)) in related:
            return True
        if best_of.get(other) == best:
            return True
    return False


def _stars(
    edges: Mapping[tuple[int, int], Pair], order: Mapping[int, Any], exact: bool, taken: set[int]
) -> Iterator[tuple[tuple[int, ...], tuple[Pair, ...]]]:
    """Each best image with all that are related to it and are not yet in another star; at exact
    levels with all that are related to those, too. `taken` are in a star already."""
    near: dict[int, dict[int, Pair]] = {}
    for (a, b), pair in edges.items():
        near.setdefault(a, {})[b] = pair
        near.setdefault(b, {})[a] = pair
    for best in sorted(near, key=lambda at: order[at]):
        if best in taken:
            continue
        inside = {best}
        left = [best]
        while left and (exact or inside == {best}):
            found = near[left.pop()].keys() - taken - inside
            some = sorted(found, key=lambda at: order[at])[: MOST_MEMBERS - len(inside)]
            inside.update(some)
            left += some
        if len(inside) < 2:
            continue
        taken |= inside
        members = sorted(inside, key=lambda at: order[at])
        inner = {
            (pair.a, pair.b): pair
            for at in inside
            for other, pair in near[at].items()
            if other in inside
        }
        yield tuple(members), tuple(inner[ends] for ends in sorted(inner))
