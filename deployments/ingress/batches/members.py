"""Copies among the pictures of one batch, none of which is stored yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deployments.ingress.copies import LOCAL, PHASH, PROPOSING, CopyCheck
from deployments.ingress.searching import COLOR
from deployments.tombstones.index import FeatureKind
from indexes.base import Query, Rows
from indexes.registry import make_index
from indexes.relation.judging import Relation
from indexes.relation.proposals import Proposals, relations
from indexes.store.base import ImageWrite, Preview
from models.types import Features


class Member(NamedTuple):
    """A picture of the batch that is a copy."""

    number: int
    relation: Relation


class Members:
    """The pictures of a batch that are to be added, in indexes that propose as those of the
    retrievers do."""

    def __init__(self, kinds: Mapping[str, FeatureKind]) -> None:
        self._kinds = kinds
        self._rows: dict[str, dict[int, Features]] = {name: {} for name in kinds}
        self._indexes = {
            name: make_index(kind.extractor.index, {}, self._rows_of(name))
            for name, kind in kinds.items()
        }
        self._previews: dict[int, Preview] = {}

    def take(self, number: int, write: ImageWrite) -> None:
        """Enter the picture of this number."""
        for name, features in self._features(write).items():
            self._rows[name][number] = features
            self._indexes[name].apply({number: features})
        if write.preview is not None:
            self._previews[number] = Preview(write.width, write.height, write.preview)

    def drop(self, number: int) -> None:
        """Remove a picture that another one replaces."""
        for name, index in self._indexes.items():
            if self._rows[name].pop(number, None) is not None:
                index.apply({number: None})

    def find(self, check: CopyCheck, write: ImageWrite, replaced: int | None) -> Member | None:
        """The nearest copy of a picture among those entered, but for the one that it replaces."""
        smooth = check.picture.side is not None and check.picture.side.smooth
        features = self._features(write)
        for name in (PHASH, COLOR if smooth else LOCAL):
            if name not in features or not len(self._indexes[name]):
                continue
            variants = self._variants(name, check, features[name])
            found = self._copies(name, variants, check) if all(map(len, variants)) else []
            copies = [one for one in found if one.number != replaced]
            if copies:
                return min(copies, key=lambda one: (-one.relation.explained, one.number))
        return None

    def _copies(self, name: str, variants: Sequence[Features], check: CopyCheck) -> list[Member]:
        index, proposals = self._indexes[name], Proposals()
        proposals.add(index.search(Query(variants), index.Params.parse(PROPOSING[name])))
        found = relations(check.picture.side, proposals, self._previews)
        return [Member(at, one) for at, one in found.items() if one.kind in check.blocks]

    def _variants(self, name: str, check: CopyCheck, features: Features) -> Sequence[Features]:
        if name == PHASH:
            return check.picture.features[PHASH]
        mirrored = self._kinds[name].extractor.mirrored(features) if name == LOCAL else None
        return [features] if mirrored is None else [features, mirrored]

    def _features(self, write: ImageWrite) -> dict[str, Features]:
        return {
            name: kind.extractor.from_row(write.features[kind.space])
            for name, kind in self._kinds.items()
            if kind.space in write.features
        }

    def _rows_of(self, name: str) -> Rows:
        rows = self._rows[name]
        return lambda numbers: {at: rows[at] for at in numbers if at in rows}
