"""Change a retriever's model: compare it with the next one, make the features that stored images
lack, switch, remove the old one.

A replica completes image after image; the job does it in the stages of a backfill, on all cores and
GPUs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cluster.jobs.backfill import Plan, Reader, RetrieverSpec, Work, retriever_specs, spaces_of
from cluster.jobs.sources import StoredPictures
from cluster.service.applications import RETRIEVER, built_by
from deployments.settings import RetrieverArgs, store_url, with_training_files
from indexes.base import Query
from indexes.registry import make_index
from indexes.replica.applier import row_reader
from indexes.replica.follower import Follower
from indexes.store.base import ImageWrite, Space, Store
from indexes.store.spaces import lacking, missing_spaces
from indexes.store.url import open_store
from models.base import Extractor
from models.errors import Conflict, InvalidInput, UnknownName
from models.registry import make_extractor

DEPTH = 10
"""Number of nearest images that are compared."""
SHOWN = 10
"""Number of queries with the largest changes that are reported."""

State = Mapping[str, Any]
"""State of one retriever, as returned by GET /v1/retrievers."""


@dataclass(frozen=True, slots=True)
class QueryChange:
    """What one stored image finds, as a query, under both models."""

    image_id: int
    overlap: float
    """Share of the 10 nearest images that both models find."""
    own: Sequence[int]
    next: Sequence[int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison over the queries of a sample."""

    pictures: int
    """Number of images with features of both models."""
    sample: int
    overlap: float
    """Mean share over the sample."""
    changed: Sequence[QueryChange]
    """The queries with the largest changes, the most changed first."""
    names: Mapping[int, str]
    """File names of all images in `changed`."""


@dataclass(frozen=True, slots=True)
class Switched:
    """The model that searches use now."""

    fingerprint: str
    lacking: int
    """Number of images that searches do not find, because they have no features of the model."""


def compare(config: Mapping[str, Any], name: str, sample: int) -> Comparison:
    """Search with stored images under both models, over indexes built here.

    Raises UnknownName, InvalidInput, RetrieverUnavailable without the weights of both models,
    Conflict while no image has features of both, and StoreUnavailable.
    """
    args = _arguments(config, name)
    with _opened(args) as store, contextlib.ExitStack() as stack:
        own, following = (
            stack.enter_context(_indexed(store, name, model)) for model in _both_models(args, name)
        )
        chosen, pictures = _sample(own, following, sample)
        if not chosen:
            raise Conflict(
                f"no picture has features of both models of {name}: run `ambience model "
                f"complete {name}`"
            )
        changed = [_changed(image_id, own, following) for image_id in chosen]
        overlap = float(np.mean([one.overlap for one in changed]))
        most = sorted(changed, key=lambda one: (one.overlap, one.image_id))[:SHOWN]
        shown = {at for one in most for at in (one.image_id, *one.own, *one.next)}
        names = {at: image.file_name for at, image in store.images_by_id(sorted(shown)).items()}
    return Comparison(pictures, len(chosen), overlap, most, names)


def specs_of(config: Mapping[str, Any], name: str) -> list[RetrieverSpec]:
    """The retriever's models. Raises UnknownName when it has no features of pictures."""
    kinds = retriever_specs(config)
    if name not in (known := [kind.name for kind in kinds]):
        names = ", ".join(dict.fromkeys(known)) or "none"
        raise UnknownName(f"no retriever {name!r} has features of pictures; there are {names}")
    return [kind for kind in kinds if kind.name == name]


def completion(store: Store, kinds: Sequence[RetrieverSpec]) -> Plan:
    """Plan to make the features of these models that stored images lack.

    Raises RetrieverUnavailable with the reason when none of the models has its weights.
    """
    spaces = spaces_of(kinds)
    if not spaces:
        kinds[0].make().find(fetch=False)
    lacks = [image.image_id for page in lacking(store, spaces) for image, _ in page]
    return Plan([(f"image {at}", at) for at in lacks], store.count() - len(lacks), [])


class StoredReader(Reader):
    """Reads stored images in its own process, and extracts what needs no network."""

    def work_of(self, path: str, image_id: int | None) -> Work:
        """The features that a stored image lacks; the reason where some can't be made.

        Raises InvalidInput when none can.
        """
        image = None if image_id is None else self.store.image(image_id)
        if image is None:
            return Work(path, already=True)
        missing = missing_spaces(self.store, self.spaces, [image.image_id])
        lacks = missing.get(image.image_id)
        if not lacks:
            return Work(path, already=True)
        of_whole = {at for at, one in self.extractors.items() if one.view != "preview"} & lacks
        reason = ""
        try:
            # An upload goes as soon as nothing is pending, so it serves all models at once.
            is_whole = bool(of_whole) or image.has_original
            picture = self._stored.whole(image) if is_whole else self._stored.small(image)
        except InvalidInput as exc:
            lacks -= of_whole
            if not lacks:
                raise
            reason = str(exc) if of_whole else ""
            picture = self._stored.small(image)
        left = tuple(space for space in lacks if space not in self.extractors)
        write = ImageWrite(
            image.image_id,
            image.sha256,
            image.width,
            image.height,
            image.wanted,
            self._features(picture, lacks),
            source=image.source,
        )
        preview = picture.preview if left else None
        return Work(path, reason, write, left, preview, generation=image.generation)

    @cached_property
    def _stored(self) -> StoredPictures:
        return StoredPictures(self.store, self.decoder)


def switch(
    config: Mapping[str, Any], name: str, back: bool, force: bool, state: State | None
) -> Switched:
    """Let searches use the next model or, with `back`, the retriever's own: one write to the store.

    `state` is the state in the running service; None when no service runs. Raises Conflict with the
    reason when that model is in use already, is not ready in every replica or, without `force`,
    while images lack features of it. Raises UnknownName, InvalidInput and RetrieverUnavailable like
    `compare`.
    """
    args = _arguments(config, name)
    own, following = (_extractor(model).fingerprint for model in _both_models(args, name))
    wanted = own if back else following
    with _opened(args) as store:
        if store.active().get(name, own) == wanted:
            raise Conflict(f"searches of {name} use {wanted} already")
        _check_replicas(name, wanted, state)
        missing = sum(map(len, lacking(store, [Space(name, wanted)])))
        if missing and not force:
            raise Conflict(
                f"{missing} pictures have no features of {wanted} yet: run `ambience model "
                f"complete {name}`, or switch with --force; then it finds them once they have"
            )
        store.activate(name, wanted)
    return Switched(wanted, missing)


def drop(config: Mapping[str, Any], name: str, state: State | None) -> int:
    """Remove the features of models that the config no longer names. Returns their number.

    Raises Conflict with the reason when there are none, or when they are still in use.
    """
    args = _arguments(config, name)
    kept = {_extractor(model).fingerprint for model in args.models()}
    with _opened(args) as store:
        if store.active().get(name) not in (None, *kept):
            raise Conflict(f"searches of {name} use a model that its arguments don't have")
        old = [space for space in store.spaces() if space.kind == name]
        old = [space for space in old if space.fingerprint not in kept]
        if not old and args.next is not None:
            raise Conflict(
                f"the arguments of {name} have both models: leave only the one to keep, as "
                "`extractor` and `options`, run `ambience deploy`, then this again"
            )
        if not old:
            raise Conflict(f"there are no features of {name} but those of its model")
        if state is not None and {space.fingerprint for space in old} & _running(state):
            raise Conflict(f"the service still runs {name} with it: run `ambience deploy` first")
        return sum(store.drop_space(space) for space in old)


def _arguments(config: Mapping[str, Any], name: str) -> RetrieverArgs:
    retrievers = built_by(RETRIEVER, config)
    if name not in retrievers:
        raise UnknownName(f"no retriever {name!r}; there are {', '.join(sorted(retrievers))}")
    return RetrieverArgs.model_validate(retrievers[name])


def _both_models(args: RetrieverArgs, name: str) -> tuple[RetrieverArgs, ...]:
    if args.next is None:
        raise InvalidInput(f"give the other model as `next` in the arguments of {name} and deploy")
    return args.models()


def _extractor(args: RetrieverArgs) -> Extractor:
    return make_extractor(args.extractor, args.options)


@contextlib.contextmanager
def _opened(args: RetrieverArgs) -> Iterator[Store]:
    store = open_store(store_url(args.store))
    try:
        yield store
    finally:
        store.close()


@contextlib.contextmanager
def _indexed(store: Store, name: str, args: RetrieverArgs) -> Iterator[Follower]:
    """The index that a replica would have, filled."""
    extractor = _extractor(args)
    extractor.load()
    space = Space(name, extractor.fingerprint)
    options = with_training_files(args.index, name, space.fingerprint)
    rows = row_reader(store, space, extractor.from_row)
    index = make_index(extractor.index, options, rows)
    follower = Follower(store, space, index, extractor.from_row)
    try:
        follower.rebuild()
        yield follower
    finally:
        follower.close()


def _sample(own: Follower, following: Follower, size: int) -> tuple[list[int], int]:
    """Ids of images with features of both models, a fixed pseudo-random sample, and the number of
    such images."""
    held = []
    for follower in (own, following):
        with follower.store.scan(follower.space) as scan:
            held.append({image_id for batch in scan.batches for image_id, _ in batch})
    both = sorted(held[0] & held[1])
    chosen = np.random.default_rng(0).permutation(len(both))[:size]
    return sorted(both[at] for at in chosen), len(both)


def _changed(image_id: int, own: Follower, following: Follower) -> QueryChange:
    before, after = _nearest(own, image_id), _nearest(following, image_id)
    most = max(len(before), len(after))
    overlap = len({*before} & {*after}) / most if most else 1.0
    return QueryChange(image_id, overlap, before, after)


def _nearest(follower: Follower, image_id: int) -> list[int]:
    def work(index: Any) -> list[int]:
        features = index.rows([image_id])[image_id]
        hits = index.search(Query([features]), index.Params.parse({"k": DEPTH + 1}))
        return [hit.image_id for hit in hits if hit.image_id != image_id][:DEPTH]

    return follower.submit(work).result()


def _check_replicas(name: str, wanted: str, state: State | None) -> None:
    """Raises Conflict unless every replica of the running service can answer with this model."""
    if state is None:
        return
    for other in (state.get("next"), state.get("previous")):
        if other is not None and other.get("fingerprint") == wanted:
            if other["state"] == "ready":
                return
            raise Conflict(f"the model is {other['state']}: {other.get('reason')}; try again later")
    raise Conflict(f"the running service does not have this model of {name}: `ambience deploy`")


def _running(state: State) -> set[str]:
    others = [state.get("next") or {}, state.get("previous") or {}]
    return {str(one.get("fingerprint")) for one in (state, *others)}
