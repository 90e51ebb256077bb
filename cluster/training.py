"""Training from stored features; the indexes of a running service take it up by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.applications import RETRIEVER, built_by
from deployments.settings import RetrieverArgs, store_url, whitening_file
from indexes import whitening
from indexes.open_store import open_store
from indexes.store import Space, Store
from models.base import Extractor, make_extractor
from models.errors import InvalidInput, UnknownName


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training made."""

    path: Path
    version: int
    pictures: int
    dimensions: int


def train_whitening(config: Mapping[str, Any], name: str, dimensions: int | None = None) -> Trained:
    """Fit a whitening to all stored features of a retriever and write its next version.

    Reads the features once, row by row, with the covariance in memory. Raises UnknownName,
    InvalidInput, RetrieverUnavailable where the weights that name the feature space are not here,
    and StoreUnavailable.
    """
    args = _arguments(config, name)
    extractor = make_extractor(args.extractor, args.options)
    if extractor.index != "vectors" or extractor.reads_text:
        raise InvalidInput(f"{name} is not whitened: only vectors of pictures alone are")
    given = args.index.get("whitening")
    if not given:
        raise InvalidInput(f"set `index: {{whitening: auto}}` in the arguments of {name} first")
    space = Space(name, extractor.fingerprint)
    path = whitening_file(given, name, space.fingerprint)
    before = whitening.load(path)
    store = open_store(store_url(args.store))
    try:
        made = whitening.fit(
            _features(store, space, extractor), 1 + (before.version if before else 0), dimensions
        )
    finally:
        store.close()
    whitening.save(path, made)
    return Trained(path, made.version, made.pictures, made.projection.shape[1])


def _arguments(config: Mapping[str, Any], name: str) -> RetrieverArgs:
    retrievers = built_by(RETRIEVER, config)
    if name not in retrievers:
        raise UnknownName(f"no retriever {name!r}; there are {', '.join(sorted(retrievers))}")
    return RetrieverArgs.model_validate(retrievers[name])


def _features(
    store: Store, space: Space, extractor: Extractor
) -> Iterator[npt.NDArray[np.float32]]:
    with store.scan(space) as scan:
        for batch in scan.batches:
            if batch:
                yield np.stack([extractor.from_row(row) for _, row in batch])
