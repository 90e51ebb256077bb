"""Which picture of a group is the best: a rule that the owner can read and edit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, get_args

import orjson

from indexes.duplicates.facts import Facts
from indexes.duplicates.pairs import Pair
from indexes.store.records import RecordKey, Records
from models.errors import InvalidInput

RULES = "duplicates.rule"
BEST = RecordKey(RULES, "best")
Criterion = Literal["pixels", "not_recompressed", "metadata", "oldest", "largest_file", "in_files"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
DEFAULT: tuple[Criterion, ...] = ("pixels", "not_recompressed", "metadata", "oldest")
MEANINGS: Mapping[Criterion, str] = {
    "pixels": "more pixels; one that was only enlarged has those from before",
    "not_recompressed": "camera RAW, then what loses nothing, then the higher quality of JPEG",
    "metadata": "more EXIF, metadata, tags and annotations by a person",
    "oldest": "taken first; of those without a date, added first",
    "largest_file": "the larger file",
    "in_files": "a file of the collection before an upload",
}
_VALUES: Mapping[Criterion, Callable[[Facts], float]] = {
    "pixels": lambda facts: facts.detail,
    "not_recompressed": lambda facts: facts.quality,
    "metadata": lambda facts: facts.metadata,
    "oldest": lambda facts: -(facts.image.created if facts.taken is None else facts.taken),
    "largest_file": lambda facts: facts.bytes,
    "in_files": lambda facts: facts.image.source != "online",
}
"""The value of each criterion; the larger is better."""


class BestRule:
    """An order of pictures by criteria, of which the first that differs decides."""

    def __init__(self, criteria: Sequence[Criterion] = DEFAULT) -> None:
        self.criteria = tuple(criteria)

    def ordered(self, facts: Mapping[int, Facts]) -> list[int]:
        """Ids, the best first; what nothing tells apart by ascending id."""
        return sorted(
            facts,
            key=lambda at: (*(-_VALUES[one](facts[at]) for one in self.criteria), at),
        )

    def reasons(self, ids: Sequence[int], facts: Mapping[int, Facts]) -> dict[int, list[str]]:
        """For each picture of a group, the best first, why it is or is not the best."""
        best, *others = ids
        deciding = {at: self._deciding(facts[best], facts[at]) for at in others}
        why: dict[Criterion, list[int]] = {}
        for at, criterion in deciding.items():
            if criterion is not None:
                why.setdefault(criterion, []).append(at)
        mine = [
            f"{_BETTER[one]}: {_shown(one, facts[best])}, beside "
            + ", ".join(sorted({_shown(one, facts[at]) for at in why[one]}))
            for one in self.criteria
            if one in why
        ]
        reasons = {best: mine or ["nothing tells them apart: the lowest id"]}
        for at, criterion in deciding.items():
            reasons[at] = [
                "nothing tells it from the best"
                if criterion is None
                else f"{_WORSE[criterion]}: {_shown(criterion, facts[at])}"
            ]
        return reasons

    def _deciding(self, best: Facts, other: Facts) -> Criterion | None:
        """The first criterion by which two pictures differ."""
        for criterion in self.criteria:
            if _VALUES[criterion](best) != _VALUES[criterion](other):
                return criterion
        return None


_BETTER: Mapping[Criterion, str] = {
    "pixels": "most pixels",
    "not_recompressed": "least compressed",
    "metadata": "most metadata",
    "oldest": "oldest",
    "largest_file": "largest file",
    "in_files": "a file of the collection",
}
_WORSE: Mapping[Criterion, str] = {
    "pixels": "fewer pixels",
    "not_recompressed": "more compressed",
    "metadata": "less metadata",
    "oldest": "newer",
    "largest_file": "a smaller file",
    "in_files": "an upload",
}


def with_enlarged(facts: Mapping[int, Facts], pairs: Iterable[Pair]) -> dict[int, Facts]:
    """The facts, with the smallest pictures from which the pairs tell that others were enlarged."""
    found = dict(facts)
    for pair in pairs:
        if pair.enlarged is None:
            continue
        one, smaller = found[pair.enlarged], facts[pair.other(pair.enlarged)]
        if smaller.pixels < one.detail:
            size = smaller.image.width, smaller.image.height
            found[pair.enlarged] = replace(one, enlarged_from=size)
    return found


def read_best_rule(store: Records) -> BestRule:
    """The owner's rule, or the default."""
    data = store.record(*BEST)
    return BestRule() if data is None else BestRule(orjson.loads(data))


def best_rule_write(criteria: Sequence[str]) -> dict[RecordKey, bytes | None]:
    """The record of a rule. Raises InvalidInput for unknown, repeated or no criteria."""
    for one in criteria:
        if one not in CRITERIA:
            known = ", ".join(CRITERIA)
            raise InvalidInput(f"order: no criterion {one!r}; there are {known}", "order")
    if not criteria or len(set(criteria)) < len(criteria):
        raise InvalidInput("order: name one or more criteria, each once", "order")
    return {BEST: orjson.dumps(list(criteria))}


def _shown(criterion: Criterion, facts: Facts) -> str:
    """The value of a criterion in words."""
    return _SHOWN[criterion](facts)


def _size(facts: Facts) -> str:
    size = f"{facts.image.width}×{facts.image.height}"
    if facts.enlarged_from is None:
        return size
    return f"{size}, only enlarged from {'×'.join(map(str, facts.enlarged_from))}"


def _compression(facts: Facts) -> str:
    jpeg = facts.format == "JPEG" and facts.quality
    return f"JPEG of quality {facts.quality}" if jpeg else facts.format or "unknown"


def _when(facts: Facts) -> str:
    taken = facts.taken
    return f"added {_date(facts.image.created)}" if taken is None else f"taken {_date(taken)}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


_SHOWN: Mapping[Criterion, Callable[[Facts], str]] = {
    "pixels": _size,
    "not_recompressed": _compression,
    "metadata": lambda facts: f"{facts.metadata} entries",
    "oldest": _when,
    "largest_file": lambda facts: f"{facts.bytes:,} bytes" if facts.bytes else "unknown",
    "in_files": lambda facts: facts.image.file_name,
}
