"""Exact cosine search over unit vectors: a scan of codes leaves few rows to be compared.

A distance is 1 - cosine: 0 for the same direction, 1 for orthogonal ones, 2 for opposite ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from indexes.base import DistanceParams, Hit, Index, Query, Rows, SearchParams
from indexes.calibration import Background, NormalisedBackground, VectorBackground
from indexes.frozen import Frozen, Saved
from indexes.rows import GATHER_BELOW, Column, Positions, RowArrays
from indexes.selection import at_places, best_first
from indexes.vector_codes import CodedQuery, code_columns, encode, kth_largest
from indexes.whitening import load, unit
from models.errors import InvalidInput
from models.types import Features, Options

Vectors = npt.NDArray[np.float32]
AUTO = "auto"

COSINE_ERROR = np.float32(1e-4)
"""Cosines in float32 are nearer than this to the exact ones up to 1,600 dimensions."""
DECIMALS = 7
"""Of a distance: no more than float32 features carry."""
RERANK_BATCH = 1 << 12


class VectorParams(DistanceParams):
    """Also α query expansion (αQE), by `aqe_n` and `aqe_alpha` together."""

    aqe_n: int | None = Field(
        None, ge=1, le=1000, description="Expand the query by this many nearest pictures."
    )
    aqe_alpha: float | None = Field(
        None, ge=0, le=100, description="Weigh each of them by its cosine to this power."
    )

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        params = super().parse(given)
        for name, other in (("aqe_n", params.aqe_alpha), ("aqe_alpha", params.aqe_n)):
            if getattr(params, name) is None and other is not None:
                raise InvalidInput(f"{name}: give both aqe_n and aqe_alpha, or neither", name)
        return params


class Neighbours(NamedTuple):
    """Of one vector, nearest first, ties by image id: so their sum is the same however sharded."""

    image_ids: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]
    rows: Vectors


class VectorIndex(Index):
    """Flat index of float32 vectors (d,), all of one length d, which the first one sets.

    Rows and queries are brought to unit length here, and whitened where there is a whitening; a
    vector of zeros is at distance 1 from all.
    """

    class Config(Options):
        whitening: str | None = Field(
            None, description="A file of `ambience train whitening`; `auto`: this retriever's own."
        )
        score_norm: float | None = Field(
            None, gt=0, le=2, description="β of score normalisation, which confidence then heeds."
        )

    Params = VectorParams
    state_version = 2
    options: Config

    def __init__(self, options: Config, rows: Rows) -> None:
        """Raises RetrieverUnavailable for a damaged whitening; one that is not there is none."""
        super().__init__(options, rows)
        given = options.whitening
        self._whitening = None if given is None or given == AUTO else load(Path(given))
        self._rows = RowArrays({})
        self._width = 0
        self._bounds = np.empty((2, 0), np.float32)
        _warm_up()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._bounds.nbytes

    @property
    def kind(self) -> str:
        if self._whitening is None:
            return "cosine-flat"
        return f"cosine-flat, whitening {self._whitening.version}"

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        """See Index.apply. Raises InvalidInput, with nothing applied, for what does not fit."""
        kept = {key: row for key, row in changes.items() if row is not None}
        if kept and not self._width:
            self._width = next(iter(kept.values())).size
        vectors = self._stack(list(kept.values()))
        gone = [key for key, row in changes.items() if row is None]
        self._rows.remove(np.array(gone, np.int64))
        if kept:
            if not len(self._rows):
                self._rows = RowArrays(_columns(vectors.shape[1]))
            rows = {"vector": vectors, **encode(vectors)}
            self._rows.put(np.array(list(kept), np.int64), rows)

    def freeze(self) -> Frozen:
        return Frozen({"width": self._width}, *self._rows.freeze())

    def restore(self, saved: Saved) -> None:
        self._width = saved.scalars["width"]
        if saved.shape("ids")[0]:
            self._rows = RowArrays.restored(_columns(saved.shape("vector")[1]), saved)

    @property
    def made_with(self) -> Mapping[str, Any]:
        return {"whitening": self._whitening and self._whitening.checksum}

    def image_ids(self) -> npt.NDArray[np.int64]:
        return self._rows.ids.copy()

    def background_of(self, sample: npt.NDArray[Any]) -> Background:
        vectors = self._stack(list(sample))
        if self.options.score_norm is None:
            return VectorBackground.of_vectors(vectors)
        return NormalisedBackground.normalised_by(self.options.score_norm, vectors)

    def _judged(self, hits: Sequence[Hit], query: Query) -> npt.NDArray[np.float64] | None:
        if not isinstance(self.background, VectorBackground):
            return super()._judged(hits, query)
        distances = np.array([hit.distance for hit in hits], np.float64)
        asked = self._stack(query.variants)
        if not query.of_a_picture:
            return self.background.chances(distances, asked[0])
        if not isinstance(self.background, NormalisedBackground):
            return distances
        return self.background.normalised(
            distances, asked[[int(hit.mirrored or 0) for hit in hits]]
        )

    def _search(self, query: Query, params: SearchParams) -> list[Hit]:
        assert isinstance(params, VectorParams)
        positions = None if query.allowed is None else self._rows.positions(query.allowed)
        variants = self._stack(query.variants)
        if params.aqe_n is not None and params.aqe_alpha is not None:
            found = query.agreed
            if found is None:
                found = self._neighbours(variants, positions, params.aqe_n)
            variants = _expanded(variants, found, params.aqe_alpha)
        near = self._near(variants, positions, params)
        where, distances, variant = self._exact(variants, near)
        if params.distance_threshold is not None:
            inside = distances < params.distance_threshold
            where, distances, variant = where[inside], distances[inside], variant[inside]
        order = best_first(distances, self._rows.ids[where], params.k)
        found = zip(self._rows.ids[where[order]], distances[order], variant[order], strict=True)
        several = len(variants) > 1
        return [
            Hit(int(key), distance=float(gap), mirrored=bool(number % 2) if several else None)
            for key, gap, number in found
        ]

    def _say(self, query: Query, params: SearchParams) -> list[Neighbours] | None:
        assert isinstance(params, VectorParams)
        if params.aqe_n is None:
            return None
        positions = None if query.allowed is None else self._rows.positions(query.allowed)
        return self._neighbours(self._stack(query.variants), positions, params.aqe_n)

    @classmethod
    def agree(
        cls, said: Sequence[list[Neighbours]], _: Query, params: SearchParams
    ) -> list[Neighbours]:
        """The nearest pictures of all shards, for each variant."""
        assert isinstance(params, VectorParams)
        agreed = []
        for parts in zip(*said, strict=True):
            ids, distances, rows = map(np.concatenate, zip(*parts, strict=True))
            order = best_first(distances, ids, params.aqe_n)
            agreed.append(Neighbours(ids[order], distances[order], rows[order]))
        return agreed

    def _neighbours(
        self, variants: Vectors, positions: Positions | None, count: int
    ) -> list[Neighbours]:
        """The `count` nearest rows of each variant."""
        found = []
        params = VectorParams(k=count)
        for variant in variants:
            one = variant[np.newaxis]
            where, distances, _ = self._exact(one, self._near(one, positions, params))
            order = best_first(distances, self._rows.ids[where], count)
            nearest = where[order]
            ascending = np.argsort(nearest)
            rows = np.empty((len(nearest), variants.shape[1]), np.float32)
            rows[ascending] = self._rows.take("vector", nearest[ascending])
            found.append(Neighbours(self._rows.ids[nearest], distances[order], rows))
        return found

    def _near(
        self, variants: Vectors, positions: Positions | None, params: SearchParams
    ) -> Positions:
        """Positions, ascending, of all rows that can be hits by their cosine in float32."""
        if positions is None or len(positions) * GATHER_BELOW >= len(self):
            lower, upper = self._scan(variants)
            if positions is not None:
                lower, upper = lower[positions], upper[positions]
            positions = at_places(_possible(lower, upper, params), positions)
        parts = [
            _nearest(self._rows.take("vector", positions[start : start + RERANK_BATCH]), variants)
            for start in range(0, len(positions), RERANK_BATCH)
        ]
        cosines = np.concatenate([np.empty(0, np.float32), *parts])
        return positions[_possible(cosines - COSINE_ERROR, cosines + COSINE_ERROR, params)]

    def _scan(self, variants: Vectors) -> tuple[Vectors, Vectors]:
        """What the cosine (n,) of each row and the nearest variant lies between.

        The next scan overwrites it.
        """
        if self._bounds.shape[1] < len(self):
            self._bounds = np.empty((2, len(self) + len(self) // 8), np.float32)
        lower, upper = self._bounds[:, : len(self)]
        query = CodedQuery(variants)
        both = zip(self._rows.used("code"), self._rows.used("scale"), strict=True)
        for (start, code), (_, scale) in both:
            here = slice(start, start + len(code))
            query.bound(code, scale, lower[here], upper[here])
        return lower, upper

    def _exact(
        self, variants: Vectors, positions: Positions
    ) -> tuple[Positions, npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """These positions, their distances in float64 and the number of the nearest variant.

        Summed row by row, so that equal features have equal distances wherever they lie.
        """
        queries = unit(variants.astype(np.float64))
        distances = np.empty((len(positions), len(queries)))
        for start in range(0, len(positions), RERANK_BATCH):
            here = slice(start, start + RERANK_BATCH)
            rows = unit(self._rows.take("vector", positions[here]).astype(np.float64))
            for number, query in enumerate(queries):
                distances[here, number] = 1 - (rows * query).sum(axis=1)
        distances = np.maximum(np.round(distances, DECIMALS), 0)
        best = distances.argmin(axis=1)
        return positions, distances[np.arange(len(best)), best], best

    def _stack(self, vectors: Sequence[Features]) -> Vectors:
        """Vectors, each float32 (d,), as one array of unit rows: (n, d), or whitened (n, m)."""
        for vector in vectors:
            if vector.shape != (self._width,) or vector.dtype != np.float32:
                raise InvalidInput(
                    f"a vector is float32 ({self._width},), not {vector.dtype} {vector.shape}"
                )
        stacked = np.array(vectors, np.float32).reshape(len(vectors), self._width)
        if not np.isfinite(stacked).all():
            raise InvalidInput("a vector's values are finite numbers")
        if self._whitening is not None and vectors:
            return self._whitening.apply(stacked).astype(np.float32)
        return unit(stacked).astype(np.float32)


def _expanded(variants: Vectors, found: Sequence[Neighbours], alpha: float) -> Vectors:
    """αQE (Radenović, Tolias & Chum, "Fine-tuning CNN Image Retrieval", 2018).

    Each query plus its nearest rows, weighted by cosine^alpha, renormalised. Rows of negative
    cosine weigh nothing.
    """
    expanded = []
    for variant, neighbours in zip(variants, found, strict=True):
        rows = neighbours.rows.astype(np.float64)
        cosines = rows @ variant.astype(np.float64)
        weights = np.where(cosines > 0, np.maximum(cosines, 0) ** alpha, 0)
        expanded.append(variant + weights @ rows)
    return unit(np.array(expanded)).astype(np.float32)


def _nearest(rows: Vectors, variants: Vectors) -> Vectors:
    several: Vectors = rows @ variants.T
    return several.max(axis=1) if len(variants) > 1 else several[:, 0]


def _possible(lower: Vectors, upper: Vectors, params: SearchParams) -> npt.NDArray[np.intp]:
    """Places, ascending, of those that can be hits, by what their cosines lie between."""
    least = np.float32(-np.inf)
    if params.distance_threshold is not None:
        least = np.float32(1 - params.distance_threshold)
    if params.k is not None and params.k < len(lower):
        least = max(least, kth_largest(lower, np.empty(params.k, np.float32)))
    return np.flatnonzero(upper >= least)


def _columns(width: int) -> dict[str, Column]:
    return {"vector": Column(np.float32, width), **code_columns(width)}


def _warm_up() -> None:
    """Compile, or load from the cache, every kernel before the first query."""
    blank = np.zeros((1, 1), np.float32)
    coded = encode(blank)
    bounds = np.empty((2, 1), np.float32)
    CodedQuery(blank).bound(coded["code"], coded["scale"], bounds[0], bounds[1])
    kth_largest(bounds[0], np.empty(1, np.float32))


INDEX = VectorIndex
