"""Exact cosine search over unit vectors: a scan of codes leaves few candidates to compare.

A distance is 1 - cosine: 0 for the same direction, 1 for orthogonal ones, 2 for opposite ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from indexes.arrays.frozen import Frozen, Saved
from indexes.arrays.selection import best_first
from indexes.base import DistanceParams, Hit, Index, Query, Rows, SearchParams
from indexes.calibration import BackgroundModel, NormalisedBackgroundModel, VectorBackgroundModel
from indexes.inverted.file import Method
from indexes.inverted.trained import AUTO
from indexes.inverted.trained import load as load_trained
from indexes.vectors.codes import scale_rows
from indexes.vectors.lists import ListedRows
from indexes.vectors.rows import BATCH, CodedRows, Ids, VectorRows, Vectors, warm_up
from indexes.vectors.whitening import load, unit
from models.errors import InvalidInput
from models.types import Features, Options

FLOAT = np.dtype(np.float32)
DECIMALS = 7
"""Decimals of a distance; float32 features carry no more."""


class VectorParams(DistanceParams):
    """Parameters, including α query expansion (αQE) by `aqe_n` and `aqe_alpha` together."""

    aqe_n: int | None = Field(
        None, ge=1, le=1000, description="Expand the query by this many nearest images."
    )
    aqe_alpha: float | None = Field(
        None, ge=0, le=100, description="Weight each of them by its cosine to this power."
    )

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        params = super().parse(given)
        for name, other in (("aqe_n", params.aqe_alpha), ("aqe_alpha", params.aqe_n)):
            if getattr(params, name) is None and other is not None:
                raise InvalidInput(f"{name}: give both aqe_n and aqe_alpha, or neither", name)
        return params


class Neighbours(NamedTuple):
    """Nearest neighbours of one vector, nearest first, ties by image id, so that their sum does not
    depend on shards."""

    image_ids: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]
    rows: Vectors


class VectorIndex(Index):
    """Index of float32 vectors (d,), all of one length d, which the first one sets.

    Rows and queries are normalised to unit length here, and whitened where there is a whitening. A
    vector of zeros has the distance 1 to all. The search is exact unless lists were trained.
    """

    class Config(Options):
        whitening: str | None = Field(
            None, description="A file of `ambience train whitening`; `auto`: this retriever's own."
        )
        trained: str | None = Field(
            None, description="A file of `ambience train`; `auto`: this retriever's own."
        )
        probes: int = Field(
            256, ge=1, description="Number of trained inverted lists that are searched."
        )
        rerank: int = Field(
            5, ge=1, description="Candidates that are re-ranked exactly, as a multiple of k."
        )
        score_norm: float | None = Field(
            None,
            gt=0,
            le=2,
            description="β of score normalisation; confidence then uses normalised scores.",
        )

    Params = VectorParams
    state_version = 2
    options: Config

    def __init__(self, options: Config, rows: Rows) -> None:
        """Raises RetrieverUnavailable for a damaged whitening; a missing one means none."""
        super().__init__(options, rows)
        whitening, trained = options.whitening, options.trained
        self._whitening = None if whitening in (None, AUTO) else load(Path(str(whitening)))
        self._trained = None if trained in (None, AUTO) else load_trained(Path(str(trained)))
        self._rows: VectorRows = CodedRows(1)
        self._width = 0
        warm_up()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes

    @property
    def kind(self) -> str:
        said = self._rows.kind
        if self._whitening is not None:
            said += f", whitening {self._whitening.version}"
        if self._trained is not None:
            said += f", training {self._trained.version}"
            if not self._fits:
                said += " is of another whitening: train again"
        return said

    @property
    def needs_compaction(self) -> bool:
        return self._rows.needs_compaction

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        """See Index.apply. Raises InvalidInput, and applies nothing, for a vector of the wrong
        shape."""
        kept = {key: row for key, row in changes.items() if row is not None}
        if kept and not self._width:
            self._width = next(iter(kept.values())).size
        vectors = self._stack(list(kept.values()))
        gone = [key for key, row in changes.items() if row is None]
        self._rows.remove(np.array(gone, np.int64))
        if kept:
            if not len(self._rows):
                self._rows = self._no_rows(vectors.shape[1])
            self._rows.put(np.array(list(kept), np.int64), vectors)

    def maintain(self) -> bool:
        return self._rows.preallocate()

    def freeze(self) -> Frozen:
        rows = self._rows.freeze()
        return Frozen({**rows.scalars, "width": self._width}, rows.arrays, rows.release)

    def restore(self, saved: Saved) -> None:
        self._width = saved.scalars["width"]
        if self._width:
            self._rows = self._no_rows(self._stack([np.zeros(self._width, "f4")]).shape[1], saved)

    @property
    def depends_on(self) -> Mapping[str, Any]:
        made = (self._whitening, self._trained)
        whitening, trained = (one and one.checksum for one in made)
        return {"whitening": whitening, "trained": trained}

    def image_ids(self) -> npt.NDArray[np.int64]:
        return self._rows.image_ids()

    def training_method(self, width: int) -> Method:
        codes = max(count for count in range(1, width // 8 + 2) if width % count == 0)
        factory = f"OPQ{codes},IVF{{lists}},PQ{codes}x4fs"
        return Method(factory, inner_product=True, residual=True)

    def training_vectors(self, features: Sequence[Features]) -> Vectors:
        self._width = self._width or features[0].size
        return self._stack(features)

    def background_of(self, sample: npt.NDArray[Any]) -> BackgroundModel:
        vectors = self._stack(list(sample))
        if self.options.score_norm is None:
            return VectorBackgroundModel.of_vectors(vectors)
        return NormalisedBackgroundModel.normalised_by(self.options.score_norm, vectors)

    def _evidence(self, hits: Sequence[Hit], query: Query) -> npt.NDArray[np.float64] | None:
        if not isinstance(self.background, VectorBackgroundModel):
            return super()._evidence(hits, query)
        distances = np.array([hit.distance for hit in hits], np.float64)
        asked = self._stack(query.variants)
        if not query.is_one_picture:
            return self.background.chances(distances, asked[0])
        if not isinstance(self.background, NormalisedBackgroundModel):
            return distances
        return self.background.normalised(
            distances, asked[[int(hit.mirrored or 0) for hit in hits]]
        )

    def _search(self, query: Query, params: SearchParams) -> list[Hit]:
        assert isinstance(params, VectorParams)
        variants = self._stack(query.variants)
        if params.aqe_n is not None and params.aqe_alpha is not None:
            found = query.candidates
            if found is None:
                found = self._neighbours(variants, query.allowed, params.aqe_n)
            variants = _expanded(variants, found, params.aqe_alpha)
        ids, distances, variant = self._nearest(variants, query.allowed, params)
        if params.distance_threshold is not None:
            inside = distances < params.distance_threshold
            ids, distances, variant = ids[inside], distances[inside], variant[inside]
        order = best_first(distances, ids, params.k)
        found = zip(ids[order], distances[order], variant[order], strict=True)
        several = len(variants) > 1
        return [
            Hit(int(key), distance=float(gap), mirrored=bool(number % 2) if several else None)
            for key, gap, number in found
        ]

    def _candidates(self, query: Query, params: SearchParams) -> list[Neighbours] | None:
        assert isinstance(params, VectorParams)
        if params.aqe_n is None:
            return None
        return self._neighbours(self._stack(query.variants), query.allowed, params.aqe_n)

    @classmethod
    def merge_candidates(
        cls, said: Sequence[list[Neighbours]], _: Query, params: SearchParams
    ) -> list[Neighbours]:
        """The nearest images of all shards, for each variant."""
        assert isinstance(params, VectorParams)
        candidates = []
        for parts in zip(*said, strict=True):
            ids, distances, rows = map(np.concatenate, zip(*parts, strict=True))
            order = best_first(distances, ids, params.aqe_n)
            candidates.append(Neighbours(ids[order], distances[order], rows[order]))
        return candidates

    def _neighbours(self, variants: Vectors, allowed: Ids | None, count: int) -> list[Neighbours]:
        """The `count` nearest rows of each variant."""
        found = []
        for variant in variants:
            one = variant[np.newaxis]
            ids, distances, _ = self._nearest(one, allowed, VectorParams(k=count))
            order = best_first(distances, ids, count)
            nearest, rows = self._rows.take(ids[order])
            ascending = np.argsort(nearest)
            # Rows that were removed meanwhile are left out.
            order = order[np.isin(ids[order], nearest)]
            rows = rows[ascending[np.searchsorted(nearest[ascending], ids[order])]]
            found.append(Neighbours(ids[order], distances[order], rows))
        return found

    def _nearest(
        self, variants: Vectors, allowed: Ids | None, params: SearchParams
    ) -> tuple[Ids, npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """Ids, exact distances in float64 and the number of the nearest variant of all candidates.

        Sums run row by row, so that equal features have equal distances wherever they are stored.
        """
        queries = unit(variants.astype(np.float64))
        near = self._rows.near(variants, allowed, params)
        parts = [(np.empty(0, np.int64), np.empty((0, len(queries))))]
        for start in range(0, len(near), BATCH):
            ids, taken = self._rows.take(near[start : start + BATCH])
            rows = unit(taken.astype(np.float64))
            cosines = np.stack([(rows * query).sum(axis=1) for query in queries], axis=1)
            parts.append((ids, 1 - cosines))
        ids, distances = map(np.concatenate, zip(*parts, strict=True))
        distances = np.maximum(np.round(distances, DECIMALS), 0)
        best = distances.argmin(axis=1)
        return ids, distances[np.arange(len(best)), best], best

    @property
    def _fits(self) -> bool:
        """Whether the training matches rows as they are here."""
        whitening = self._whitening and self._whitening.checksum
        return self._trained is not None and self._trained.whitening == whitening

    def _no_rows(self, width: int, saved: Saved | None = None) -> VectorRows:
        """Row storage of this width: empty, or restored."""
        if self._trained is None or not self._fits:
            return CodedRows(width) if saved is None else CodedRows.restored(width, saved)
        options = self.options
        return ListedRows(self._trained, options.probes, options.rerank, self._stored, saved)

    def _stored(self, image_ids: Ids) -> tuple[Ids, Vectors]:
        """Rows as they are in the store now."""
        found = self.rows(image_ids.tolist())
        return np.array(list(found), np.int64), self._stack(list(found.values()))

    def _stack(self, vectors: Sequence[Features]) -> Vectors:
        """Vectors, each float32 (d,), as one array of unit rows: (n, d), or whitened (n, m)."""
        kinds = {(vector.shape, vector.dtype) for vector in vectors}
        for shape, dtype in kinds - {((self._width,), FLOAT)}:
            raise InvalidInput(f"a vector is float32 ({self._width},), not {dtype} {shape}")
        stacked = np.array(vectors, np.float32).reshape(len(vectors), self._width)
        rows = stacked if self._whitening is None else np.empty_like(stacked)
        lengths = np.empty(len(stacked))
        scale_rows(stacked, rows, lengths)
        if not np.isfinite(lengths).all():
            raise InvalidInput("a vector's values are finite numbers")
        if self._whitening is not None and vectors:
            return self._whitening.apply(stacked).astype(np.float32)
        return rows


def _expanded(variants: Vectors, found: Sequence[Neighbours], alpha: float) -> Vectors:
    """αQE (Radenović, Tolias & Chum, "Fine-tuning CNN Image Retrieval", 2018).

    Each query is added to its nearest rows, weighted by cosine^alpha, and renormalised. Rows of
    negative cosine have no weight.
    """
    expanded = []
    for variant, neighbours in zip(variants, found, strict=True):
        rows = neighbours.rows.astype(np.float64)
        cosines = rows @ variant.astype(np.float64)
        weights = np.where(cosines > 0, np.maximum(cosines, 0) ** alpha, 0)
        expanded.append(variant + weights @ rows)
    return unit(np.array(expanded)).astype(np.float32)


INDEX = VectorIndex
