"""The search and the import check over stored pictures, without a service."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2

from indexes.base import Query
from indexes.local.index import LocalIndex
from indexes.ranking.fusion import RankedList, above_confidence, fuse
from indexes.registry import make_index
from indexes.relation.proposals import Proposals, QuerySide, relations
from indexes.store.base import Preview
from models.extractors.color import recoloured
from models.pictures.decoding import Picture, decode
from models.registry import make_extractor
from models.types import Features

NAMES = ("phash", "color", "local")


@dataclass
class Found:
    order: list[int] = field(default_factory=list)
    verified: list[int] = field(default_factory=list)
    relations: dict[int, str] = field(default_factory=dict)
    confidence: dict[int, float] = field(default_factory=dict)
    duplicates: list[int] = field(default_factory=list)
    seconds: float = 0.0
    details: dict[int, Any] = field(default_factory=dict)

    def told(self, name: str, origin: str, origins: Mapping[int, str]) -> dict[str, Any]:
        return {
            "class": name,
            "origin": origin,
            "hits": [
                {
                    "id": at,
                    "true": origins[at] == origin,
                    "origin": origins[at],
                    "verified": at in self.verified,
                    "relation": self.relations.get(at),
                    **self.details.get(at, {}),
                }
                for at in {**dict.fromkeys(self.order[:40]), **self.details}
            ],
            "duplicates": [origins[at] for at in self.duplicates],
        }


class Search:
    def __init__(self, pictures: Mapping[int, bytes]) -> None:
        cv2.setNumThreads(1)
        self.extractors = {name: make_extractor(name) for name in NAMES}
        self.previews: dict[int, Preview] = {}
        rows: dict[str, dict[int, Features]] = {name: {} for name in NAMES}
        for number, data in pictures.items():
            picture = decode(data)
            shown = Preview(picture.width, picture.height, picture.preview_jpeg())
            self.previews[number] = shown
            for name, extractor in self.extractors.items():
                rows[name][number] = extractor.extract(picture.view(extractor.view))
        self.indexes = {}
        for name, extractor in self.extractors.items():
            kept = rows[name]
            index = make_index(
                extractor.index,
                {},
                lambda ids, kept=kept: {at: kept[at] for at in ids if at in kept},
            )
            index.apply(kept)
            if isinstance(index, LocalIndex):
                index.wait_for_training()
            self.indexes[name] = index

    def find(self, data: bytes) -> Found:
        picture = decode(data)
        lists, proposals = [], Proposals()
        query = QuerySide.of(picture)
        for name, extractor in self.extractors.items():
            index = self.indexes[name]
            variants = extractor.extract_variants(picture.view(extractor.view), "mirror")
            if name == "color" and query.smooth:
                variants += recoloured(query.side.mosaic)
            hits = index.answer(Query(variants), index.Params.parse(index.fused))
            lists.append(RankedList(name, hits, verifying=index.verifying))
            if index.verifying or query.side.is_smooth:
                proposals.add(hits)
        began = time.process_time()
        known = relations(query, proposals, self.previews)
        seconds = time.process_time() - began
        ranked = fuse(lists, relations=known)
        hits = above_confidence(ranked, 0.5)
        found = Found(
            [hit.image_id for hit in hits], [hit.image_id for hit in hits if hit.verified]
        )
        found.seconds = seconds
        found.relations = {at: one.kind for at, one in known.items()}
        found.confidence = {at: one.confidence for at, one in known.items()}
        for at, one in known.items():
            told = {
                "relation": one.kind,
                "sure": one.confidence,
                "distance": proposals.images[at].distance,
                "inliers": proposals.images[at].inliers,
            }
            if one.evidence is not None:
                told |= {
                    key: value
                    for key, value in vars(one.evidence).items()
                    if isinstance(value, float | bool)
                }
            found.details[at] = told
        found.duplicates = self.duplicates(picture, query)
        return found

    def duplicates(self, picture: Picture, query: QuerySide) -> list[int]:
        phash = self.extractors["phash"]
        eight = Query(phash.extract_variants(picture.view(phash.view), "dihedral"))
        index, proposals = self.indexes["phash"], Proposals()
        proposals.add(index.search(eight, index.Params.parse({"distance_threshold": 64})))
        known = relations(query, proposals, self.previews)
        same = [at for at, one in known.items() if one.kind == "same"]
        if same:
            return same
        proposals = Proposals()
        if query.side.is_smooth:
            color = self.extractors["color"]
            plain = color.extract(picture.view(color.view))
            asked = Query([plain, *recoloured(query.side.mosaic)])
            proposals.add(
                self.indexes["color"].search(asked, self.indexes["color"].Params.parse({"k": 32}))
            )
        else:
            local = self.extractors["local"]
            asked = Query(local.extract_variants(picture.view(local.view), "mirror"))
            params = self.indexes["local"].Params.parse({"k": 32, "aligned": True})
            proposals.add(self.indexes["local"].search(asked, params))
        known = relations(query, proposals, self.previews)
        return [at for at, one in known.items() if one.kind == "same"]
