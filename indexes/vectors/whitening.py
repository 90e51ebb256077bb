"""PCA whitening: directions that co-occur in the whole collection no longer count several times.

Jégou & Chum, "Negative evidences and co-occurrences in image retrieval: the benefit of PCA and
whitening", ECCV 2012. It is fitted to unit vectors, and whitened vectors are renormalised.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import InvalidInput, RetrieverUnavailable

SMALLEST = 1e-5
"""Directions whose variance is below this share of the largest one are noise and are dropped."""


@dataclass(frozen=True, slots=True)
class Whitening:
    """The map x → unit((unit(x) - mean) · projection)."""

    version: int
    """Version; increases with each training."""
    pictures: int
    """Number of vectors that it was fitted to."""
    mean: npt.NDArray[np.float32]
    """Mean (d,)."""
    projection: npt.NDArray[np.float32]
    """Projection (d, m): principal directions, largest variance first, each divided by its standard
    deviation."""

    def apply(self, vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Whiten rows (n, d): (n, m) float64 of unit length. Raises InvalidInput."""
        if vectors.shape[1] != len(self.mean):
            raise InvalidInput(
                f"this whitening is for vectors of {len(self.mean)} values, not {vectors.shape[1]}"
            )
        return unit((unit(vectors) - self.mean) @ self.projection)

    @property
    def checksum(self) -> str:
        """SHA-256 of the contents."""
        digest = hashlib.sha256(f"{self.version} {self.pictures}".encode())
        for array in (self.mean, self.projection):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def unit(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Rows (n, d) normalised to unit length, float64; rows of zeros stay zero."""
    wide = vectors.astype(np.float64, copy=False)
    lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return wide / np.where(lengths > 0, lengths, 1)


def fit(
    batches: Iterable[npt.NDArray[Any]], version: int = 1, dimensions: int | None = None
) -> Whitening:
    """Fit in one pass over batches (n, d) of vectors; at most `dimensions` directions are kept.

    Mean and covariance are summed in float64. Raises InvalidInput for fewer than two different
    vectors.
    """
    count, total, products = 0, np.zeros(0), np.zeros((0, 0))
    for batch in batches:
        vectors = unit(batch)
        if not count:
            total, products = np.zeros(vectors.shape[1]), np.zeros((vectors.shape[1],) * 2)
        count += len(vectors)
        total += vectors.sum(axis=0)
        products += vectors.T @ vectors
    if count < 2:
        raise InvalidInput(f"whitening needs the features of many pictures, not of {count}")
    mean = total / count
    values, directions = np.linalg.eigh(products / count - np.outer(mean, mean))
    order = np.argsort(values)[::-1][: min(count - 1, dimensions or len(values))]
    kept = order[values[order] > SMALLEST * values[order[0]]]
    if values[order[0]] < 1e-12:
        raise InvalidInput("whitening needs pictures that differ: these all have the same features")
    projection = directions[:, kept] / np.sqrt(values[kept])
    return Whitening(version, count, mean.astype(np.float32), projection.astype(np.float32))


def save(path: Path, whitening: Whitening) -> None:
    """Write beside the target, then rename, so that a reader sees the old version or this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            version=whitening.version,
            pictures=whitening.pictures,
            mean=whitening.mean,
            projection=whitening.projection,
            checksum=whitening.checksum,
        )
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def load(path: Path) -> Whitening | None:
    """Read what `save` wrote; None if there is no file. Raises RetrieverUnavailable if it is
    damaged."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            read = Whitening(
                int(file["version"]), int(file["pictures"]), file["mean"], file["projection"]
            )
            checksum = str(file["checksum"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise RetrieverUnavailable(f"{path} is no whitening: {exc}; train it again") from exc
    if checksum != read.checksum:
        raise RetrieverUnavailable(f"{path} is damaged: train it again, or delete it")
    return read
