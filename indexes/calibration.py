"""How sure a hit is: its distance against those of random pairs of the owner's own collection.

An a-contrario model (Desolneux, Moisan and Morel, "From Gestalt Theory to Image Analysis", 2008):
a hit is believed where few of the unrelated pictures are expected to lie as near by chance. Small
distances of unrelated pictures follow a power law, the volume of a ball in as many dimensions as
the pictures fill (Levina and Bickel, "Maximum Likelihood Estimation of Intrinsic Dimension", 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PRIOR = 0.02
"""How many true matches a query is taken to have: it balances the chance hits at confidence 0.5."""
TAIL = 0.01
"""The share of the nearest random pairs from which the power law is taken."""
LEAST_PAIRS = 1000


@dataclass(frozen=True, slots=True)
class Background:
    """Of unrelated pairs a share TAIL lies nearer than `near`; below it (d / near)^dimensions."""

    near: float
    dimensions: float

    @classmethod
    def of(cls, distances: npt.NDArray[Any]) -> Background:
        """Fit distances (n,) of random pairs, n ≥ LEAST_PAIRS.

        By the median, not the mean, of the tail: a few pairs may be true matches.
        """
        near = max(float(np.quantile(distances, TAIL)), 1e-12)
        tail = np.maximum(distances[distances < near], 1e-9 * near)
        shrinking = float(np.median(np.log(near / tail))) if tail.size else log(2)
        return cls(near, log(2) / max(shrinking, 1e-3))

    def confidence(self, distances: npt.NDArray[Any], count: int) -> Floats:
        """Probability (n,) that hits at these distances, found among `count` pictures, are true."""
        everywhere = TAIL ** (-1 / self.dimensions)
        nearness = np.minimum(np.asarray(distances, np.float64) / self.near, everywhere)
        return confidence_of(count * TAIL * nearness**self.dimensions)


def pairs(sample: npt.NDArray[Any], metric: str) -> Floats:
    """Distances of all pairs of rows (n, d) by a metric of scipy's."""
    # Imported here: no replica needs it to start.
    from scipy.spatial.distance import pdist

    return np.asarray(pdist(sample, metric), np.float64)


def confidence_of(chance_hits: npt.NDArray[Any]) -> Floats:
    """Probability (n,) of a true match where so many hits (n,) are expected by chance."""
    return np.asarray(PRIOR / (PRIOR + np.asarray(chance_hits, np.float64)), np.float64)
