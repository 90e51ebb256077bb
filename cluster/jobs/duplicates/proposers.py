"""What proposes candidates: hashes, local features and vectors, each by its own index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.jobs.duplicates.candidates import Candidates
from cluster.service.applications import RETRIEVER, built_by
from deployments.settings import with_training_files
from indexes.base import Query
from indexes.duplicates.hash_join import BYTES, HashTables, classes
from indexes.local.index import LocalIndex
from indexes.local.ranking import LocalParams
from indexes.local.voting import CHANCE_VOTES, candidates_of, shortlist
from indexes.registry import make_index
from indexes.store.base import Space, Store
from models.base import Extractor
from models.registry import make_extractor
from models.types import Features

ROWS = 256
"""Rows that are read at a time."""
QUERIES = 128
"""Hashes that one thread looks up at a time."""
CLOSE = {"sscd": 0.75, "clip": 0.93}
"""Cosines from which the vectors of an extractor call two pictures close."""
NEIGHBOURS, PROBES = 6, 8
MIRRORED_VOTERS = 128
"""Keypoints of the mirror image, the strongest, for which near ones are sought. They are half of
all: the hash finds what was mirrored whole, so that only mirrored parts are left."""
VERIFIED, FEW = 16, 8
"""Images whose local features are matched with those of one: those with more agreeing votes than
chance often gives, and of the others those that stand out."""
KEYPOINTS = 256
"""Keypoints of an image, about."""
TRAINED_AT, GROWTH, FIRST_AT_MOST = 1 / 8, 16.0, 500_000
"""Share of all descriptors at which the index is trained for the last time while it is filled, by
what factor it then grows until the next time, and descriptors up to which it is trained first.

It has half as many lists as that of a retriever, of which half as many are searched. So as many
descriptors are looked at, and training, filling and choosing the lists take a half to a quarter.
"""
LISTS_PROBED = 8
"""Inverted lists searched for a descriptor."""
EXACT_UP_TO = 20_000
"""Number of vectors up to which all are compared; above, those of the nearest lists."""


def make_proposers(config: Mapping[str, Any], store: Store) -> list[Proposer]:
    """The proposers of the retrievers of a config that have rows in the store. No weights are
    needed."""
    there, active = store.spaces(), store.active()
    found: list[Proposer] = []
    for name, args in built_by(RETRIEVER, config).items():
        spaces = [space for space in there if space.kind == name]
        used = [space for space in spaces if space.fingerprint == active.get(name)] or spaces
        if len(used) != 1:
            continue
        extractor = make_extractor(args["extractor"], args.get("options"))
        if args["extractor"] == "phash":
            found.append(HashProposer(used[0], extractor))
        elif extractor.index == "local":
            found.append(LocalProposer(used[0], extractor, args.get("index") or {}, store))
        elif args["extractor"] in CLOSE:
            found.append(VectorProposer(used[0], extractor, CLOSE[args["extractor"]]))
    return found


class Proposer(ABC):
    """Holds the features of one space and proposes pairs among them."""

    def __init__(self, space: Space, extractor: Extractor) -> None:
        self.space = space
        self.extractor = extractor
        self.ids: set[int] = set()
        """Images with features."""

    def update(self, rows: Mapping[int, bytes | None]) -> None:
        """Replace the features of these images; None removes them."""
        for image_id, row in rows.items():
            if row is None:
                self.ids.discard(image_id)
            else:
                self.ids.add(image_id)
        self._update(rows)

    @abstractmethod
    def _update(self, rows: Mapping[int, bytes | None]) -> None: ...

    @abstractmethod
    def propose(
        self,
        image_ids: Sequence[int],
        allowed: Collection[int],
        candidates: Candidates,
        threads: ThreadPoolExecutor,
    ) -> None:
        """Add candidates between these images and allowed ones."""

    def load(self, store: Store) -> None:
        """Read all features."""
        with store.scan(self.space, ROWS) as scan:
            for batch in scan.batches:
                self.update(dict(batch))

    def follow(self, store: Store, image_ids: Sequence[int]) -> None:
        """Read the features of images that changed."""
        for start in range(0, len(image_ids), ROWS):
            some = image_ids[start : start + ROWS]
            rows = store.rows(self.space, some)
            self.update({at: rows.get(at) for at in some})


class HashProposer(Proposer):
    """Pairs of near hashes under all flips and rotations.

    Images with equal hashes, of which there may be many, are one class: the first one stands for
    all beside other classes, and among themselves they are a chain in the order of their ids.
    """

    def __init__(self, space: Space, extractor: Extractor) -> None:
        super().__init__(space, extractor)
        self._codes: dict[int, bytes] = {}
        self._built: tuple[list[list[int]], npt.NDArray[np.uint8], HashTables] | None = None

    def _update(self, rows: Mapping[int, bytes | None]) -> None:
        self._built = None
        for image_id, row in rows.items():
            if row is None:
                self._codes.pop(image_id, None)
            else:
                self._codes[image_id] = row

    def propose(
        self,
        image_ids: Sequence[int],
        allowed: Collection[int],
        candidates: Candidates,
        threads: ThreadPoolExecutor,
    ) -> None:
        members, codes, tables = self._tables()
        of = {at: number for number, ids in enumerate(members) for at in ids}
        firsts = [next((at for at in ids if at in allowed), -1) for ids in members]
        open_rows = np.array(firsts, np.int64) >= 0
        asked: dict[int, list[int]] = {}
        for at in image_ids:
            if at in of:
                asked.setdefault(of[at], []).append(at)
        places = np.array(list(asked), np.int64)
        parts = [places[at : at + QUERIES] for at in range(0, len(places), QUERIES)]
        looked = threads.map(lambda part: tables.near(part, codes[part], open_rows), parts)
        for found in looked:
            for one, other, distance in found.tolist():
                for at in asked[one]:
                    candidates.add_hash(at, firsts[other], distance)
        for number, wanted in asked.items():
            chain = [at for at in members[number] if at in allowed]
            for one, other in pairwise(chain):
                if one in wanted or other in wanted:
                    candidates.add_hash(one, other, 0)

    def _tables(self) -> tuple[list[list[int]], npt.NDArray[np.uint8], HashTables]:
        """The ids of each class, the codes of the classes, and their tables."""
        if self._built is None:
            ids = sorted(self._codes)
            data = b"".join(self._codes[at] for at in ids)
            codes = np.frombuffer(data, np.uint8).reshape(-1, BYTES)
            members = classes(codes)
            distinct = codes[np.array([places[0] for places in members], np.int64)]
            named = [[ids[place] for place in places] for places in members]
            self._built = named, distinct, HashTables(distinct)
        return self._built


class LocalProposer(Proposer):
    """Pairs with local features in common, aligned by a homography."""

    def __init__(
        self, space: Space, extractor: Extractor, options: Mapping[str, Any], store: Store
    ) -> None:
        super().__init__(space, extractor)
        trained = with_training_files(options, space.kind, space.fingerprint)
        own = {
            "train_above": first_training(store.count() * KEYPOINTS),
            "retrain_growth": GROWTH,
            "probes": LISTS_PROBED,
        }
        self._store = store
        index = make_index("local", {**trained, **own}, self._features)
        assert isinstance(index, LocalIndex)
        self._index = index
        self._params = LocalParams(k=32, aligned=True, min_inliers=5)

    def _update(self, rows: Mapping[int, bytes | None]) -> None:
        self._index.apply(
            {at: None if row is None else self.extractor.from_row(row) for at, row in rows.items()}
        )
        # What comes during a training would fill the memory, and be added again to its index.
        self._index.wait_for_training()

    def propose(
        self,
        image_ids: Sequence[int],
        allowed: Collection[int],
        candidates: Candidates,
        threads: ThreadPoolExecutor,
    ) -> None:
        def search(image_id: int) -> tuple[int, list[Any]]:
            return image_id, self._search(image_id, allowed, candidates)

        for image_id, hits in threads.map(search, [at for at in image_ids if at in self.ids]):
            for hit in hits:
                candidates.add_hit(image_id, hit)

    def _search(self, image_id: int, allowed: Collection[int], known: Candidates) -> list[Any]:
        features = self._features([image_id]).get(image_id)
        if features is None or not len(features):
            return []
        mirrored = self.extractor.mirrored(features)
        variants = [features] if mirrored is None else [features, mirrored]
        asked = [features, *(one[:MIRRORED_VOTERS] for one in variants[1:])]
        # As among shards: the image itself is left out between both rounds, because it would take
        # away the rarity of all its keypoints.
        voters = self._index.part(Query(asked, sharded=True), self._params).candidates
        voted = np.concatenate([candidates_of(at, one, 1) for at, one in enumerate(voters)])
        others = [
            at != image_id and at in allowed and not known.are_near(image_id, at)
            for at in voted["image_id"].tolist()
        ]
        voted = voted[np.array(others, np.bool_)]
        sure = int((voted["agreeing"] >= CHANCE_VOTES).sum())
        chosen = shortlist(voted, min(max(FEW, sure), VERIFIED))
        if not chosen:
            return []
        return self._index.search(Query(variants, candidates=chosen), self._params)

    def _features(self, image_ids: Sequence[int]) -> dict[int, Features]:
        rows = self._store.rows(self.space, image_ids)
        return {at: self.extractor.from_row(row) for at, row in rows.items()}


def first_training(descriptors: int) -> int:
    """Number of descriptors at which an index of so many is trained first."""
    first = descriptors * TRAINED_AT
    while first > FIRST_AT_MOST:
        first /= GROWTH
    return max(int(first), LocalIndex.Config().train_above)


class VectorProposer(Proposer):
    """Pairs of close vectors."""

    def __init__(self, space: Space, extractor: Extractor, least: float) -> None:
        super().__init__(space, extractor)
        self._least = least
        self._vectors: dict[int, npt.NDArray[np.float32]] = {}
        self._built: tuple[npt.NDArray[np.int64], Any] | None = None

    def _update(self, rows: Mapping[int, bytes | None]) -> None:
        self._built = None
        for image_id, row in rows.items():
            if row is None:
                self._vectors.pop(image_id, None)
            else:
                # The shape is known only once the model has loaded, which is not needed here.
                vector = np.frombuffer(row, self.extractor.dtype)
                self._vectors[image_id] = vector.astype(np.float32)

    def propose(
        self,
        image_ids: Sequence[int],
        allowed: Collection[int],
        candidates: Candidates,
        threads: ThreadPoolExecutor,  # noqa: ARG002
    ) -> None:
        ids = [at for at in image_ids if at in self._vectors]
        if not ids:
            return
        known, index = self._index()
        queries = np.stack([self._vectors[at] for at in ids])
        cosines, places = index.search(queries, NEIGHBOURS + 1)
        for one, near, found in zip(ids, cosines, places, strict=True):
            for cosine, place in zip(near.tolist(), found.tolist(), strict=True):
                other = int(known[place])
                if place >= 0 and cosine >= self._least and other != one and other in allowed:
                    candidates.between(one, other).close = True

    def _index(self) -> tuple[npt.NDArray[np.int64], Any]:
        import faiss

        if self._built is None:
            ids = np.array(sorted(self._vectors), np.int64)
            vectors = np.stack([self._vectors[at] for at in ids.tolist()])
            lists = int(4 * len(ids) ** 0.5)
            kind = "Flat" if len(ids) <= EXACT_UP_TO else f"IVF{lists},Flat"
            index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
            if kind != "Flat":
                chosen = np.random.default_rng(0).permutation(len(ids))[: 40 * lists]
                index.train(vectors[chosen])
                faiss.ParameterSpace().set_index_parameter(index, "nprobe", PROBES)
            index.add(vectors)
            self._built = ids, index
        return self._built
