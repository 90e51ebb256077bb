"""An inverted file of product-quantised rows (Jégou et al. 2011), by FAISS."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.arrays.frozen import Frozen, FrozenArray, Saved
from indexes.inverted.kernels import least_gaps
from indexes.inverted.lists import ListRows
from models.errors import SnapshotRejected

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Bitmap = npt.NDArray[np.uint8]
TrainedIndex = npt.NDArray[np.uint8]
"""A trained empty index, as FAISS serialises it."""


@dataclass(frozen=True, slots=True)
class Method:
    """How lists and codes are trained."""

    factory: str
    """A FAISS factory string with a placeholder for the number of {lists}, such as
    "IVF{lists},PQ64x4fs": 64 quantisers of 4 bits, looked up 32 rows at a time in registers (André
    et al. 2017)."""
    inner_product: bool
    """Whether the metric is the inner product; otherwise squared L2."""
    residual: bool
    """Whether codes are of the residuals to the list's centroid. Otherwise one table of distances
    serves all lists that a query visits."""


MANY = 20
"""Number of queries from which FAISS uses a matrix product, and this module does, too."""
CENTROIDS_AT_ONCE = 512
"""Centroids per block; their products with some hundred queries fit into the processor's cache."""
POINTS_PER_LIST = 40
"""Training points per list; FAISS warns below 39."""
ITERATIONS = 10
"""Iterations of k-means; more change little."""


def list_count(rows: int) -> int:
    """Number of inverted lists for so many rows: the power of two nearest to 4 √n."""
    return int(2 ** round(math.log2(4 * math.sqrt(max(1, rows)))))


ROTATION_POINTS = 1 << 14
"""Points of the sample for the rotation, which is the slowest step."""


def rotation_of(sample: Floats, method: Method) -> Floats | None:
    """The rotation (d, d) that spreads the rows' variance evenly over the codes.

    Ge et al., "Optimized Product Quantization", 2013. None for a method without a rotation.
    """
    faiss = _faiss()
    faiss.omp_set_num_threads(1)
    index = _empty(sample.shape[1], 1, method)
    if not isinstance(index, faiss.IndexPreTransform):
        return None
    rotation = faiss.downcast_VectorTransform(index.chain.at(0))
    rotation.niter, rotation.niter_pq = ITERATIONS, 4
    rotation.train(sample[:ROTATION_POINTS])
    matrix: Floats = faiss.vector_to_array(rotation.A).reshape(rotation.d_out, rotation.d_in)
    return matrix


def improve_centroids(sample: Floats, lists: int, method: Method, before: Floats | None) -> Floats:
    """One iteration of k-means, or the first one: centroids (lists, d), on one core."""
    faiss = _faiss()
    # OpenMP keeps this setting per thread, so the searching thread is not affected.
    faiss.omp_set_num_threads(1)
    kmeans = faiss.Kmeans(
        sample.shape[1],
        lists,
        niter=1,
        seed=0,
        spherical=method.inner_product,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )
    kmeans.train(sample, init_centroids=before)
    centroids: Floats = kmeans.centroids
    return centroids


def train(
    sample: Floats,
    lists: int,
    method: Method,
    centroids: Floats | None = None,
    rotation: Floats | None = None,
) -> TrainedIndex:
    """Train the codes on a sample (n, d), and the lists and the rotation unless they are given.

    Takes seconds to minutes on one core.
    """
    faiss = _faiss()
    faiss.omp_set_num_threads(1)
    index = _empty(sample.shape[1], lists, method)
    if rotation is not None:
        given = faiss.downcast_VectorTransform(index.chain.at(0))
        faiss.copy_array_to_vector(rotation.ravel(), given.A)
        given.is_trained = given.is_orthonormal = True
    if centroids is not None:
        faiss.extract_index_ivf(index).quantizer.add(centroids)
    index.train(sample)
    learnt: TrainedIndex = faiss.serialize_index(index)
    return learnt


def _empty(width: int, lists: int, method: Method) -> Any:
    faiss = _faiss()
    metric = faiss.METRIC_INNER_PRODUCT if method.inner_product else faiss.METRIC_L2
    index = faiss.index_factory(width, method.factory.format(lists=lists), metric)
    ivf = faiss.extract_index_ivf(index)
    ivf.by_residual = method.residual
    ivf.cp.niter = ITERATIONS
    return index


class FlatCentroids:
    """Centroids (m, d) that are compared with queries directly, by squared L2 distance."""

    def __init__(self, centroids: Floats) -> None:
        self._centroids = centroids
        self._halves = np.einsum("ij,ij->i", centroids, centroids) / 2
        # Compile the kernel, or load it from the cache, before the first query.
        self.nearest(centroids[:1], 1)

    def nearest(self, queries: Floats, probes: int) -> tuple[Ids, Floats]:
        """The lists (n, probes), probes ≤ m, nearest to each query, nearest first.

        Also returns half their squared distances, less half the query's own squared length. FAISS's
        search of many queries takes three times as long.
        """
        lists = np.empty((len(queries), probes), np.int64)
        gaps = np.full((len(queries), probes), np.inf, np.float32)
        # One reused buffer: memory that is new to a process costs as much as the product.
        space = np.empty(len(queries) * min(CENTROIDS_AT_ONCE, len(self._centroids)), np.float32)
        for first in range(0, len(self._centroids), CENTROIDS_AT_ONCE):
            some = slice(first, first + CENTROIDS_AT_ONCE)
            centroids, halves = self._centroids[some], self._halves[some]
            products = space[: len(queries) * len(centroids)].reshape(len(queries), -1)
            np.matmul(queries, centroids.T, out=products)
            least_gaps(products, halves, first, lists, gaps)
        return lists, gaps


class InvertedFile:
    """Rows are only ever added, each under its own id from 0. The caller knows which ids are
    live."""

    def __init__(self, trained: TrainedIndex, probes: int) -> None:
        self._trained = trained
        self._index = _faiss().deserialize_index(trained)
        self._ivf = _faiss().extract_index_ivf(self._index)
        self._ivf.nprobe = min(probes, self._ivf.nlist)
        self._centroids = self._flat_centroids()

    def __len__(self) -> int:
        """Number of rows, dead ones included."""
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        return int(self._index.d)

    @property
    def nbytes(self) -> int:
        per_row = int(self._ivf.code_size) + 8
        centroids = int(self._ivf.nlist) * self.width * 4
        return len(self) * per_row + centroids + self._trained.nbytes

    def add(self, ids: Ids, rows: Floats) -> None:
        self._index.add_with_ids(rows, ids)

    def search(self, queries: Floats, k: int, wanted: Bitmap | None) -> tuple[Floats, Ids]:
        """Distances, or products, (n, k) and ids (n, k), best first, -1 where there are fewer.

        `wanted` has one bit for each id, lowest first; ids after its end are not found.
        """
        queries = np.ascontiguousarray(queries)
        params = None if wanted is None else self._only(wanted)
        if self._centroids is None or len(queries) < MANY:
            distances, ids = self._index.search(queries, k, params=params)
            return distances, ids
        lists, gaps = self._centroids.nearest(queries, self._ivf.nprobe)
        distances = np.empty((len(queries), k), np.float32)
        ids = np.empty((len(queries), k), np.int64)
        # FAISS's Python wrapper takes no parameters.
        at = _faiss().swig_ptr
        self._ivf.search_preassigned_c(
            len(queries), at(queries), k, at(lists), at(gaps), at(distances), at(ids), False, params
        )
        return distances, ids

    def _flat_centroids(self) -> FlatCentroids | None:
        """None where FAISS transforms queries first, or compares them in another way."""
        faiss = _faiss()
        flat = faiss.downcast_index(self._ivf.quantizer)
        pretransformed = isinstance(self._index, faiss.IndexPreTransform)
        if pretransformed or self._ivf.by_residual or not isinstance(flat, faiss.IndexFlatL2):
            return None
        # A view of FAISS's own memory, which lives as long as its index here.
        rows = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d)
        return FlatCentroids(rows.reshape(flat.ntotal, flat.d))

    def renumber(self, new_ids: Callable[[Ids], Ids]) -> bool:
        """Replace each row's id by `new_ids` of it. Returns whether any became -1.

        Rows of id -1 stay in place, because FAISS's 4-bit lists corrupt rows that are added after a
        removal.
        """
        lists = self._ivf.invlists
        any_dead = False
        for number in range(self._ivf.nlist):
            size = lists.list_size(number)
            if size:
                ids = _faiss().rev_swig_ptr(lists.get_ids(number), size)
                ids[:] = new_ids(ids)
                any_dead |= bool((ids < 0).any())
        return any_dead

    def freeze(self) -> Frozen:
        """See Index.freeze. It stays valid while rows are added, until they are renumbered."""
        trained = {"trained": FrozenArray.of(self._trained)}
        rows = ListRows(self._ivf, _faiss()).freeze()
        return Frozen({"faiss": _faiss().__version__}, trained | rows)

    @classmethod
    def restored(cls, saved: Saved, probes: int) -> InvertedFile:
        """Raises SnapshotRejected for a layout of another FAISS version."""
        if saved.scalars["faiss"] != _faiss().__version__:
            raise SnapshotRejected(f"it was made with FAISS {saved.scalars['faiss']}")
        made = cls(saved.array("trained"), probes)
        ListRows(made._ivf, _faiss()).restore(saved)
        made._index.ntotal = made._ivf.ntotal
        return made

    def _only(self, wanted: Bitmap) -> Any:
        faiss = _faiss()
        selector = faiss.IDSelectorBitmap(wanted)
        inner = faiss.IVFSearchParameters(sel=selector, nprobe=self._ivf.nprobe)
        if not isinstance(self._index, faiss.IndexPreTransform):
            return inner
        return faiss.SearchParametersPreTransform(index_params=inner)


def _faiss() -> Any:
    """FAISS, untyped, because its stubs have pointers where its Python side takes arrays."""
    import faiss

    return faiss
