"""Training on stored features; the indexes of a running service pick up the results by
themselves."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from cluster.jobs.failures import Failure
from cluster.service.applications import RETRIEVER, built_by
from deployments.settings import (
    RetrieverArgs,
    Trainable,
    store_url,
    training_file,
    with_training_files,
)
from indexes.base import Index
from indexes.inverted import trained
from indexes.inverted.file import POINTS_PER_LIST, list_count
from indexes.inverted.learning import Step, TrainingState, learn
from indexes.registry import make_index
from indexes.replica.applier import row_reader
from indexes.replica.sharding import stored_ids
from indexes.store.base import Space, Store
from indexes.store.url import open_store
from indexes.vectors import whitening
from models.base import Extractor
from models.errors import InvalidInput, UnknownName
from models.registry import make_extractor

Points = npt.NDArray[np.float32]
FEWEST = 256 * POINTS_PER_LIST
"""Minimum number of points: each quantiser of 8 bits has 256 centroids."""
BATCH = 256
"""Images read at a time."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a training."""

    path: Path
    version: int
    pictures: int
    dimensions: int


@dataclass(frozen=True, slots=True)
class Lists:
    """The outcome of training inverted lists."""

    path: Path
    version: int
    pictures: int
    points: int
    lists: int


def train_whitening(config: Mapping[str, Any], name: str, dimensions: int | None = None) -> Trained:
    """Fit a whitening to all stored features of a retriever and write its next version.

    Reads the features once, row by row, with the covariance in memory. Raises UnknownName,
    InvalidInput, RetrieverUnavailable where the weights that define the feature space are missing,
    and StoreUnavailable.
    """
    args, space, path = training_target("whitening", config, name)
    extractor = make_extractor(args.extractor, args.options)
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


def train_lists(
    config: Mapping[str, Any], name: str, note: Callable[[Step], None] = lambda _: None
) -> Lists:
    """Train the inverted lists of a retriever in a Ray task and write their next version.

    The sample and the intermediate results are kept beside the file, and an interrupted training
    resumes from them. Raises like train_whitening, and InvalidInput for too few features.
    """
    args, space, path = training_target("trained", config, name)
    steps: Any = ray.remote(num_cpus=1)(_errors_as_values).remote(args, name, space, path)
    for step in steps:
        done = ray.get(step)
        if isinstance(done, Failure):
            raise done.error
        if isinstance(done, Lists):
            return done
        note(done)
    raise AssertionError("a training ends with what it made")


def training_target(
    what: Trainable, config: Mapping[str, Any], name: str
) -> tuple[RetrieverArgs, Space, Path]:
    """A retriever's arguments, its feature space, and the path of the trained file.

    Raises UnknownName, InvalidInput where its index is not trained in this way, and
    RetrieverUnavailable.
    """
    args = _arguments(config, name)
    extractor = make_extractor(args.extractor, args.options)
    if what == "whitening" and (extractor.index != "vectors" or extractor.reads_text):
        raise InvalidInput(f"{name} is not whitened: only vectors of pictures alone are")
    if make_index(extractor.index, {}, lambda _: {}).training_method(1) is None:
        raise InvalidInput(f"{name} is not trained: its index of kind {extractor.index} is exact")
    if not args.index.get(what):
        raise InvalidInput(f"set `index: {{{what}: auto}}` in the arguments of {name} first")
    space = Space(name, extractor.fingerprint)
    return args, space, training_file(what, args.index[what], name, space.fingerprint)


def _errors_as_values(
    args: RetrieverArgs, name: str, space: Space, path: Path
) -> Iterator[Step | Lists | Failure]:
    try:
        yield from training_steps(args, name, space, path)
    except Exception as exc:  # noqa: BLE001 (the command raises it again)
        yield Failure.of(exc)


def training_steps(
    args: RetrieverArgs, name: str, space: Space, path: Path
) -> Iterator[Step | Lists]:
    """Yields the steps of `train_lists` in its task, and finally the outcome. Raises
    InvalidInput."""
    extractor = make_extractor(args.extractor, args.options)
    store = open_store(store_url(args.store))
    try:
        index = make_index(
            extractor.index,
            with_training_files({**args.index, "trained": None}, name, space.fingerprint),
            row_reader(store, space, extractor.from_row),
        )
        before = trained.load(path)
        version = 1 + (before.version if before else 0)
        work = TrainingState(path.with_suffix(".partial"), {"version": version, **index.depends_on})
        pictures = stored_ids(store, space)
        sample = work.load("sample")
        if sample is None:
            sample, lists = yield from _draw_sample(index, name, pictures)
            work.save("sample", sample, lists=lists)
    finally:
        store.close()
    lists = work.state["lists"]
    method = index.training_method(sample.shape[1])
    assert method is not None
    learnt = yield from learn(sample, lists, method, work)
    made = index.depends_on.get("whitening")
    trained.save(path, trained.Trained(version, len(sample), len(pictures), made, learnt))
    work.remove()
    yield "codes", 1, 1
    yield Lists(path, version, len(pictures), len(sample), lists)


def _draw_sample(
    index: Index, name: str, pictures: npt.NDArray[np.int64]
) -> Generator[Step, None, tuple[Points, int]]:
    """Rows of randomly drawn images, enough for the number of lists that suits all rows."""
    order = np.random.default_rng(0).permutation(pictures)
    parts: list[Points] = []
    size, lists = 0, 1
    for start in range(0, len(order), BATCH):
        rows = index.rows(order[start : start + BATCH].tolist())
        if rows:
            parts.append(index.training_vectors(list(rows.values())))
        size = sum(map(len, parts))
        lists = list_count(size * len(order) // min(start + BATCH, len(order)))
        wanted = max(FEWEST, lists * POINTS_PER_LIST)
        yield "sample", min(size, wanted), wanted
        if size >= wanted:
            break
    if size < FEWEST:
        raise InvalidInput(
            f"{name} has {size} features of {len(order)} pictures: training needs {FEWEST} at "
            "least, and below that an exact search is faster"
        )
    return np.concatenate(parts), min(lists, size // POINTS_PER_LIST)


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
