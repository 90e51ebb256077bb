"""Search by local features: votes of nearest descriptors, then geometric verification.

Sivic & Zisserman 2003 (votes), Jégou et al. 2008 (weak geometric consistency), Philbin et al. 2007
(spatial verification). Small collections are searched exactly. Above `train_above` descriptors a
thread trains and fills an IVF-PQ index, which takes over when it is complete. With a file of
`ambience train` the index is IVF-PQ from the start, alike in all replicas and shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from indexes.arrays.frozen import Frozen, Saved
from indexes.base import Hit, Index, Query, Rows, SearchParams
from indexes.calibration import ConfidenceModel, confidence_of
from indexes.inverted.file import InvertedFile, Method, list_count
from indexes.inverted.trained import AUTO, load
from indexes.local.descriptors import (
    Descriptors,
    DescriptorSearch,
    FlatSearch,
    IvfPqSearch,
    Wanted,
    descriptor_ids,
    method,
    unit,
)
from indexes.local.ranking import (
    DEFAULT_K,
    MIN_INLIERS,
    LocalParams,
    chosen,
    score,
    verified_hits,
)
from indexes.local.slots import SlotTable, quantise_geometry
from indexes.local.support import with_rarity
from indexes.local.training import Training
from indexes.local.voting import (
    SHORTLIST,
    NearestDescriptors,
    by_votes,
    candidates_of,
    nearest,
    shortlist,
)
from indexes.local.warming import warm_up
from models.errors import InvalidInput
from models.lightglue import LightGlue, LightGlueOptions, shared
from models.types import Features, Options
from models.weights import Weights

LONGEST_SHORTLIST = 512
AT_ONCE = 64
"""Images that are added together; assigning many rows to lists at once takes a fraction of the
time."""
DEAD_AT_LEAST = 1024
"""Dead slots above which the index is compacted, provided that they outnumber the live ones."""
RETRY_GROWTH = 1.1
"""After a failed training, the next one begins when the index has grown by this factor."""
CHANCE = 1e-4
"""Probability that an unrelated pair reaches MIN_INLIERS (none of 7,813 did); each further inlier
halves it."""


class LocalIndex(Index):
    """Index of structured arrays (n,), n ≤ 256: x, y, scale, angle, descriptor (d,).

    Descriptors are uint8 or int8 of any length; only their directions are compared. Keypoints
    without a scale (0) are exempt from the checks of scale and angle.

    A query's second variant is its mirror image, with an x axis that points left.
    """

    class Config(Options):
        train_above: int = Field(
            30_000, ge=1000, description="Number of descriptors above which IVF-PQ is trained."
        )
        factory: str = Field(
            "IVF{lists},PQ64x4fs", description="FAISS factory string of the trained index."
        )
        probes: int = Field(16, ge=1, description="Inverted lists searched for a descriptor.")
        voters: int = Field(
            256,
            ge=1,
            description="Number of the query's strongest keypoints that vote; all are matched.",
        )
        trained: str | None = Field(
            None, description="A file of `ambience train`; `auto`: this retriever's own."
        )
        retrain_growth: float = Field(
            4, gt=1, description="The index is trained again when it has grown by this factor."
        )
        lightglue: LightGlueOptions | None = Field(
            None,
            description="Match the candidates that geometry leaves unsure by LightGlue.",
            exclude=True,  # Snapshots do not depend on it.
        )

    options: Config
    Params: ClassVar[type[SearchParams]] = LocalParams
    verifying = True
    fused: ClassVar[Mapping[str, Any]] = {"k": 200, "aligned": True, "min_inliers": 5}
    """Fewer inliers suffice, because a fused search compares the pictures."""

    def __init__(self, options: Config, rows: Rows) -> None:
        super().__init__(options, rows)
        self._table = SlotTable()
        given = options.trained
        self._trained = None if given in (None, AUTO) else load(Path(str(given)))
        self._search_by = self._no_rows()
        self._training: Training | None = None
        self._matcher = None if options.lightglue is None else shared(options.lightglue)
        self._train_at = options.train_above
        self._renew_at = DEAD_AT_LEAST
        warm_up()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        return self._table.nbytes + self._search_by.nbytes

    @property
    def kind(self) -> str:
        kind = self._search_by.kind
        if self._trained is not None:
            kind += f", training {self._trained.version}"
        if self._matcher is None:
            return kind
        reason = self._matcher.reason
        return f"{kind}, LightGlue" if reason is None else f"{kind}, without LightGlue: {reason}"

    @property
    def needs_compaction(self) -> bool:
        return self._trained is not None and self._table.dead > self._renew_at

    @property
    def has_learnt(self) -> bool:
        return self._trained is None and isinstance(self._search_by, IvfPqSearch)

    @property
    def depends_on(self) -> Mapping[str, Any]:
        return {"trained": self._trained and self._trained.checksum}

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        """See Index.apply. Raises InvalidInput, and applies nothing, for more than 256 rows."""
        for image_id, features in changes.items():
            if features is not None and len(features) > 256:
                raise InvalidInput(f"image {image_id} has {len(features)} keypoints, 256 at most")
        self._adopt()
        added: list[tuple[int, Features]] = []
        for image_id, features in changes.items():
            self._table.drop(image_id)
            if features is not None:
                slot = self._table.add(image_id, features)
                added.append((slot, features))
                if self._training is not None:
                    self._training.late.append((slot, image_id))
        for start in range(0, len(added), AT_ONCE):
            some = added[start : start + AT_ONCE]
            ids = np.concatenate([descriptor_ids(slot, len(features)) for slot, features in some])
            descriptors = np.concatenate([features["descriptor"] for _, features in some])
            self._search_by.add(ids, unit(descriptors))
        self._maintain()

    def maintain(self) -> bool:
        """Switch to the index of a finished training; begin to load what searches need."""
        if self._matcher is not None:
            self._matcher.start()
        if self._training is not None and not self._training.is_alive():
            self._adopt()
            self._maintain()
        return False

    @classmethod
    def weights(cls, options: Options) -> Sequence[Weights]:
        assert isinstance(options, LocalIndex.Config)
        return () if options.lightglue is None else LightGlue.weights(options.lightglue)

    def check_dtype(self, dtype: np.dtype[Any]) -> None:
        if self._matcher is not None and not self._matcher.suits(dtype):
            raise InvalidInput(
                "LightGlue matches rootsift: remove `lightglue` from the options of the index, or "
                "`descriptor` from those of the extractor"
            )
        self._search_by.check_width(dtype["descriptor"].shape[0])

    def training_method(self, _: int) -> Method:
        return method(self.options.factory)

    def training_vectors(self, features: Sequence[Features]) -> Descriptors:
        return unit(np.concatenate([row["descriptor"] for row in features]))

    def freeze(self) -> Frozen:
        """See Index.freeze. A training in progress is not saved; it begins again after a
        restart."""
        search = self._search_by.freeze()
        renewal = {
            "train_at": self._train_at if self._training is None else 0,
            "renew_at": self._renew_at,
        }
        return Frozen({**search.scalars, **renewal}, {**self._table.freeze(), **search.arrays})

    def restore(self, saved: Saved) -> None:
        search: DescriptorSearch
        if saved.scalars["search"] == FlatSearch.kind:
            search = FlatSearch.restored(saved)
        else:
            search = IvfPqSearch.restored(saved, self.options.probes)
        self._table, self._search_by = SlotTable.restored(saved), search
        self._train_at, self._renew_at = saved.scalars["train_at"], saved.scalars["renew_at"]
        self._maintain()

    def wait_for_training(self) -> None:
        """Wait for a training in progress and switch to its index."""
        while self._training is not None:
            self._training.join()
            self._adopt()
            self._maintain()

    # --- changing over ---------------------------------------------------------------------------

    def _no_rows(self) -> DescriptorSearch:
        if self._trained is None:
            return FlatSearch()
        return IvfPqSearch(InvertedFile(self._trained.learnt, self.options.probes))

    def _maintain(self) -> None:
        if self._trained is not None:
            return  # Its owner sees that it is worn, and builds another.
        if self._training is not None and self._table.live_keypoints > self._train_at:
            # A bulk load outruns the training: without waiting, the exact index would
            # fill the memory.
            self._training.join()
            self._adopt()
        if self._training is None and self._table.live_keypoints > self._train_at:
            self._train()
        elif self._training is None and self._table.dead > self._renew_at:
            if isinstance(self._search_by, FlatSearch):
                self._compact()
            else:
                self._train()

    def _train(self) -> None:
        table = self._table
        self._training = Training(
            self.options.factory,
            self.options.probes,
            self.rows,
            table.image_ids.copy(),
            list_count(table.live_keypoints),
        )
        self._train_at = int(table.live_keypoints * self.options.retrain_growth)
        self._training.start()

    def _adopt(self) -> None:
        """Switch to the index of a finished training and add the images that came too late for
        it."""
        training = self._training
        if training is None or training.is_alive():
            return
        self._training = None
        if training.result is None:
            self._train_at = int(self._table.live_keypoints * RETRY_GROWTH)
            self._renew_at = int(self._table.dead * RETRY_GROWTH) + DEAD_AT_LEAST
            return
        training.add_late(training.result)
        self._search_by = training.result
        self._compact()

    def _compact(self) -> None:
        self._search_by.renumber(self._table.compact())
        self._renew_at = max(DEAD_AT_LEAST, len(self._table))

    # --- searching -------------------------------------------------------------------------------

    def _search(self, query: Query, params: SearchParams) -> list[Hit]:
        assert isinstance(params, LocalParams)
        candidates = query.candidates
        if candidates is None:
            candidates = self.merge_candidates([self._candidates(query, params)], query, params)
        mine = [one for one in candidates if self._table.has(one[0])]
        if params.verifies:
            stored = self.rows(sorted({image_id for image_id, _ in mine}))
            mine = verified_hits(query.variants, stored, mine, params, self._matcher)
        return mine[: params.k or DEFAULT_K]

    def _candidates(self, query: Query, params: SearchParams) -> list[NearestDescriptors]:
        """Nearest descriptors of each variant's descriptors."""
        assert isinstance(params, LocalParams)
        asked = [features[: self.options.voters] for features in query.variants]
        # One search for all variants, because each search has a fixed cost.
        descriptors = unit(np.concatenate([features["descriptor"] for features in asked]))
        found = self._search_by.search(descriptors, params.k_clusters, self._wanted(query))
        voters = []
        for features in asked:
            count = len(features)
            voters.append(self._voters(features, found[0][:count], found[1][:count], params))
            found = found[0][count:], found[1][count:]
        return voters

    @classmethod
    def merge_candidates(
        cls, said: Sequence[list[NearestDescriptors]], _: Query, params: SearchParams
    ) -> list[Hit] | list[tuple[int, int]]:
        """The candidates that most likely verify, as image id and variant; without verification,
        the hits."""
        assert isinstance(params, LocalParams)
        merged = [nearest(list(parts), params.k_clusters) for parts in zip(*said, strict=True)]
        parts = [
            candidates_of(variant, one, params.knn_min_matches)
            for variant, one in enumerate(merged)
        ]
        candidates = np.concatenate(parts)
        k = params.k or DEFAULT_K
        if not params.verifies:
            return by_votes(candidates, len(parts) > 1)[:k]
        return shortlist(candidates, min(max(SHORTLIST, k), LONGEST_SHORTLIST))

    @classmethod
    def with_confidence(
        cls,
        hits: list[Hit],
        evidence: npt.NDArray[np.float64] | None,
        count: int,
        _: ConfidenceModel | None,
    ) -> list[Hit]:
        """Evidence by inliers; votes alone do not tell what is true."""
        if evidence is None:
            return hits
        chance = min(count, SHORTLIST) * CHANCE * 0.5 ** np.maximum(evidence - MIN_INLIERS, 0)
        sure = confidence_of(chance).round(4).tolist()
        return [
            hit if hit.inliers is None else hit._replace(confidence=one)
            for hit, one in zip(hits, sure, strict=True)
        ]

    def _evidence(self, hits: Sequence[Hit], _: Query) -> npt.NDArray[np.float64]:
        return np.array([hit.inliers or 0 for hit in hits], np.float64)

    @classmethod
    def finished(cls, hits: list[Hit], params: SearchParams) -> list[Hit]:
        assert isinstance(params, LocalParams)
        if not params.proposes:
            return hits
        kept = with_rarity(chosen(hits))
        return kept if params.explain else [hit._replace(points=None) for hit in kept]

    @classmethod
    def max_hits(cls, params: SearchParams) -> int:
        return super().max_hits(params) or DEFAULT_K

    @staticmethod
    def sort_key(hit: Hit) -> tuple[float, int]:
        return -score(hit), hit.image_id

    def _wanted(self, query: Query) -> Wanted:
        live = self._table.image_ids
        if query.allowed is None:
            return live
        chosen = np.full(len(live), -1, np.int64)
        slots = self._table.of(query.allowed)
        chosen[slots] = live[slots]
        return chosen

    def _voters(
        self,
        features: Features,
        distances: npt.NDArray[np.float32],
        ids: npt.NDArray[np.int64],
        params: LocalParams,
    ) -> NearestDescriptors:
        near = (ids >= 0) & (distances < params.matching_threshold)
        slots, keypoints = np.where(near, ids >> 8, 0), np.where(near, ids & 255, 0)
        geometry = np.zeros((*ids.shape, 2), np.uint8)
        table = self._table
        geometry[near] = table.geometry[table.starts[slots[near]] + keypoints[near]]
        image_ids = np.full(ids.shape, -1, np.int64)
        image_ids[near] = table.image_ids[slots[near]]
        return NearestDescriptors(
            np.where(near, distances, np.inf),
            image_ids,
            keypoints.astype(np.uint8),
            geometry,
            quantise_geometry(features),
        )


INDEX = LocalIndex
