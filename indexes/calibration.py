"""Calibration: the confidence of a hit, from the distances of random pairs of images.

The pairs come from the owner's own collection. This is an a-contrario model (Desolneux, Moisan and
Morel, "From Gestalt Theory to Image Analysis", 2008): a hit is accepted if few unrelated images are
expected to lie as near by chance. Small distances of unrelated images follow a power law: they grow
in number like the volume of a ball whose dimension is the intrinsic dimension of the images (Levina
and Bickel, "Maximum Likelihood Estimation of Intrinsic Dimension", 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PRIOR = 0.02
"""Prior number of true matches of a query; confidence is 0.5 if as many chance hits are
expected."""
TAIL = 0.01
"""Share of the nearest random pairs to which the power law is fitted."""
MIN_PAIRS = 1000
NEIGHBOURS = 2
"""Number of neighbours for score normalisation, as in the evaluation by Pizzi et al."""


@dataclass(frozen=True, slots=True)
class BackgroundModel:
    """Power law of unrelated pairs: a share TAIL lies nearer than `near`, and below that the share
    falls as (d / near)^dimensions."""

    near: float
    dimensions: float

    @property
    def law(self) -> BackgroundModel:
        """The power law alone, without any sample."""
        return BackgroundModel(self.near, self.dimensions)

    @classmethod
    def of(cls, distances: npt.NDArray[Any]) -> BackgroundModel:
        """Fit the power law to distances (n,) of random pairs, n ≥ LEAST_PAIRS.

        The median of the tail is used instead of the mean, because a few pairs may be true matches.
        """
        near = max(float(np.quantile(distances, TAIL)), 1e-12)
        tail = np.maximum(distances[distances < near], 1e-9 * near)
        shrinking = float(np.median(np.log(near / tail))) if tail.size else log(2)
        return cls(near, log(2) / max(shrinking, 1e-3))

    def confidence(self, distances: npt.NDArray[Any], count: int) -> Floats:
        """Probability (n,) that hits at these distances (n,) among `count` images are true."""
        everywhere = TAIL ** (-1 / self.dimensions)
        nearness = np.minimum(np.asarray(distances, np.float64) / self.near, everywhere)
        return confidence_of(count * TAIL * nearness**self.dimensions)


@dataclass(frozen=True, slots=True)
class VectorBackgroundModel(BackgroundModel):
    """Background model of unit vectors, with a sample of them."""

    sample: npt.NDArray[np.float32]
    """Unit vectors (n, d)."""

    @classmethod
    def of_vectors(cls, sample: npt.NDArray[np.float32]) -> VectorBackgroundModel:
        """Fit to unit vectors (n, d) of random images."""
        fitted = BackgroundModel.of(pairs(sample, "cosine"))
        return cls(fitted.near, fitted.dimensions, sample)

    def chances(self, distances: npt.NDArray[Any], query: npt.NDArray[np.float32]) -> Floats:
        """`chances` (n,) for distances (n,) to a unit vector (d,) that does not come from one
        picture, such as that of a text."""
        return chances(distances, 1 - self.sample @ query)


@dataclass(frozen=True, slots=True)
class NormalisedBackgroundModel(VectorBackgroundModel):
    """Background model of normalised distances.

    Distances are normalised like the scores of Pizzi et al. ("A Self-Supervised Descriptor for
    Image Copy Detection", CVPR 2022): the normalised distance is 1 - cosine plus β times the
    query's mean cosine to its NEIGHBOURS nearest unrelated images. A query that resembles many
    images therefore needs a nearer hit for the same confidence. The unrelated images are a sample
    of the owner's own collection without probable copies of the query.
    """

    raw: BackgroundModel
    beta: float

    @classmethod
    def normalised_by(
        cls, beta: float, sample: npt.NDArray[np.float32]
    ) -> NormalisedBackgroundModel:
        """Fit to unit vectors (n, d) of random images, n > NEIGHBOURS + 1."""
        cosines = (sample @ sample.T).astype(np.float64)
        apart = ~np.eye(len(sample), dtype=bool)
        raw = BackgroundModel.of(1 - cosines[apart])
        unrelated = _unrelated(np.where(apart, cosines, -np.inf), raw)
        nearest = np.sort(unrelated, axis=1)[:, ::-1][:, : NEIGHBOURS + 1]
        # A query is not in the sample, so the other member of a pair is not counted as a
        # neighbour.
        among = unrelated >= nearest[:, NEIGHBOURS - 1 : NEIGHBOURS]
        without = (nearest.sum(axis=1, keepdims=True) - unrelated) / NEIGHBOURS
        means = np.where(among, without, nearest[:, :NEIGHBOURS].mean(axis=1, keepdims=True))
        fitted = BackgroundModel.of(np.maximum(1 - cosines + beta * means, 0)[apart])
        return cls(fitted.near, fitted.dimensions, sample, raw, beta)

    def normalised(self, distances: npt.NDArray[Any], queries: npt.NDArray[np.float32]) -> Floats:
        """Normalise distances (n,), each measured from the unit vector in its row of `queries` (n,
        d)."""
        asked, which = np.unique(queries, axis=0, return_inverse=True)
        unrelated = _unrelated(asked.astype(np.float64) @ self.sample.T, self.raw)
        means = np.sort(unrelated, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
        normalised = np.asarray(distances, np.float64) + self.beta * means[which]
        return np.asarray(np.maximum(normalised, 0), np.float64)


def _unrelated(cosines: Floats, raw: BackgroundModel) -> Floats:
    """Cosines (m, n) to a sample, with those of probable copies set to 0, the typical value."""
    distances = np.clip(1 - cosines, 0, 2)  # Rounding can make a copy's distance negative.
    copies = raw.confidence(distances, cosines.shape[1]) >= 0.5
    return np.asarray(np.where(copies | np.isneginf(cosines), 0, cosines), np.float64)


@dataclass(frozen=True, slots=True)
class FalseDiscoveryRate:
    """Confidence for queries that may have many true matches.

    The number of hits expected by chance is divided by the hit's rank. This controls the false
    discovery rate with the adjustment of Benjamini and Hochberg, "Controlling the False Discovery
    Rate", 1995. If a query has no true match, its answer contains an accepted hit with probability
    PRIOR.
    """

    def confidence(self, chances: npt.NDArray[Any], count: int) -> Floats:
        """Probability (n,) that the hits of a whole answer, best first, are true matches.

        `chances` (n,) are the probabilities that an unrelated image lies as near; `count` is the
        number of images searched.
        """
        rates = count * np.asarray(chances, np.float64) / np.arange(1, len(chances) + 1)
        return confidence_of(np.minimum.accumulate(rates[::-1])[::-1])


ConfidenceModel = BackgroundModel | FalseDiscoveryRate
"""A model that computes the confidence of hits."""


def chances(distances: npt.NDArray[Any], sample: npt.NDArray[Any]) -> Floats:
    """Probability (n,) that an unrelated image lies as near to a query as `distances` (n,).

    The null distribution is empirical (Efron, "Large-Scale Simultaneous Hypothesis Testing: The
    Choice of a Null Hypothesis", 2004). It is a normal distribution, fitted to the farther half of
    the query's distances to a sample (m,) of the collection, which has no true matches, and widened
    by two standard errors.
    """
    from scipy.special import ndtr

    middle = np.median(sample)
    far = sample[sample > middle] - middle
    spread = float(np.sqrt(np.mean(far**2))) if far.size else 0.0
    spread = max(spread * (1 + 2 / np.sqrt(2 * max(far.size, 1))), 1e-9)
    return np.asarray(ndtr((np.asarray(distances, np.float64) - middle) / spread), np.float64)


def pairs(sample: npt.NDArray[Any], metric: str) -> Floats:
    """Distances (n (n - 1) / 2,) of all pairs of rows (n, d) by one of scipy's metrics."""
    # Imported here, because a replica does not need it to start.
    from scipy.spatial.distance import pdist

    return np.asarray(pdist(sample, metric), np.float64)


def confidence_of(chance_hits: npt.NDArray[Any]) -> Floats:
    """Probability (n,) of a true match, given the number of hits (n,) expected by chance."""
    return np.asarray(PRIOR / (PRIOR + np.asarray(chance_hits, np.float64)), np.float64)
