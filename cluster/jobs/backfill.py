"""Backfill: make features of existing pictures with Ray Data, writing directly to the store.

Workers read, decode, extract and commit in batches. A killed run resumes after its last commit. A
running service follows the same log and needs no restart.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cluster.jobs.batches import map_batches
from cluster.jobs.sources import (
    IGNORED,
    NEW,
    Bad,
    Ids,
    Listing,
    list_source,
    modified,
    read_bytes,
    with_ids,
)
from cluster.service.applications import RETRIEVER, built_by
from deployments.storing import open_here
from indexes.store.base import Image, ImageWrite, Space, Store
from indexes.store.spaces import missing_spaces
from models.base import Extractor
from models.errors import InvalidInput, RetrieverUnavailable
from models.pictures.decoder import Decoder
from models.pictures.decoding import Picture
from models.pictures.limits import DecodeLimits
from models.registry import make_extractor

BATCH = 32
CUT_SHORT = "indexed, but the file is cut short or damaged and shows only a part"
LOOK = 4096


@dataclass(frozen=True, slots=True)
class RetrieverSpec:
    """A retriever to fill, under one of its models: its name and its extractor."""

    name: str
    extractor: str
    options: Mapping[str, Any]

    def make(self) -> Extractor:
        """Make the extractor, not loaded yet."""
        return make_extractor(self.extractor, self.options)


@dataclass(slots=True)
class Outcome:
    """The outcome of a backfill."""

    done: int = 0
    already: int = 0
    bad: list[Bad] = field(default_factory=list)
    notes: list[Bad] = field(default_factory=list)
    """Files that are indexed though they are cut short, and videos and the like."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Number of files that are no pictures, by kind."""
    ignored: int = 0
    """Number of files and folders with names that are to be ignored."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The remaining work, given what the store has."""

    todo: list[tuple[str, int]]
    already: int
    bad: list[Bad]
    listing: Listing = field(default_factory=Listing)

    def outcome(self) -> Outcome:
        """The outcome before anything is indexed."""
        listing = self.listing
        bad, notes = [*listing.bad, *self.bad], list(listing.notes)
        return Outcome(0, self.already, bad, notes, dict(listing.left_out), listing.ignored)


def retriever_specs(config: Mapping[str, Any]) -> list[RetrieverSpec]:
    """The retrievers of a config that have features of pictures."""
    kinds = [
        RetrieverSpec(name, model["extractor"], model.get("options") or {})
        for name, args in built_by(RETRIEVER, config).items()
        for model in (args, args.get("next"))
        if model
    ]
    return [kind for kind in kinds if kind.make().of_pictures]


def spaces_of(kinds: Sequence[RetrieverSpec]) -> list[Space]:
    """Their feature spaces, without those whose weights are not available, because nothing can be
    extracted for them."""
    spaces = []
    for kind in kinds:
        extractor = kind.make()
        with contextlib.suppress(RetrieverUnavailable):
            extractor.find(fetch=True)
            spaces.append(Space(kind.name, extractor.fingerprint))
    return spaces


def plan(
    source: str,
    ids: Ids,
    store: Store,
    spaces: Collection[Space],
    ignore: Sequence[str] = IGNORED,
) -> Plan:
    """List the source and leave out images that lack nothing, unless their file is newer."""
    listing = list_source(source, ignore)
    named, bad = with_ids(listing.paths, ids)
    known = store.ids_by_source()
    located = [
        (path, known.get(path, NEW) if image_id == NEW else image_id) for path, image_id in named
    ]
    todo: list[tuple[str, int]] = []
    for begin in range(0, len(located), LOOK):
        part = located[begin : begin + LOOK]
        there = [image_id for path, image_id in part if known.get(path) == image_id]
        missing = missing_spaces(store, spaces, there)
        complete = {image_id for image_id in there if not missing.get(image_id, {"gone"})}
        complete -= _rewritten(store, [(path, at) for path, at in part if at in complete])
        todo += [(path, image_id) for path, image_id in part if image_id not in complete]
    return Plan(todo, len(located) - len(todo), bad, listing)


def _rewritten(store: Store, located: Sequence[tuple[str, int]]) -> set[int]:
    """Images whose file was modified after they were stored; its content then decides."""
    images = store.images_by_id([image_id for _, image_id in located])
    return {at for path, at in located if at in images and modified(path) > images[at].created}


def run(
    plan: Plan,
    kinds: Sequence[RetrieverSpec],
    store: str,
    workers: int,
    progress: Callable[[int], None],
    limits: DecodeLimits | None = None,
) -> Outcome:
    """Index what the plan holds; `progress` receives the size of each finished batch.

    Ray must be connected. Files that can't be read are listed and do not stop the run.
    """
    outcome = plan.outcome()
    if not plan.todo:
        return outcome
    items = [{"path": path, "image_id": image_id} for path, image_id in plan.todo]
    for rows in map_batches(items, Worker, (list(kinds), store, limits), BATCH, workers):
        reasons = zip(rows["path"], rows["reason"], strict=True)
        bad = [Bad(str(path), str(reason)) for path, reason in reasons if reason]
        outcome.bad += bad
        outcome.notes += [
            Bad(str(path), CUT_SHORT)
            for path, truncated in zip(rows["path"], rows["truncated"], strict=True)
            if truncated
        ]
        already = int(rows["already"].sum())
        outcome.already += already
        outcome.done += len(rows["path"]) - len(bad) - already
        progress(len(rows["path"]))
    return outcome


def write_bad_files(path: Path, bad: Sequence[Bad]) -> None:
    """Write one line per file: path, tab, reason."""
    lines = [f"{one.path}\t{' '.join(one.reason.split())}\n" for one in bad]
    path.write_text("".join(lines))


class Worker:
    """Reads, decodes, extracts and stores batches of paths in its own process."""

    def __init__(
        self, kinds: Sequence[RetrieverSpec], store: str, limits: DecodeLimits | None = None
    ) -> None:
        cv2.setNumThreads(1)
        self.store = open_here(store)
        self.decoder = Decoder(limits)
        self.truncated: set[str] = set()
        self.wanted = frozenset(kind.name for kind in kinds)
        self.extractors: dict[Space, Extractor] = {}
        for kind in kinds:
            extractor = kind.make()
            try:
                extractor.load()
            except RetrieverUnavailable:
                continue  # Its features stay pending; the service says why.
            self.extractors[Space(kind.name, extractor.fingerprint)] = extractor

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Takes the columns `path` and `image_id`; returns `path`, `reason`, which is empty on
        success, `already`, whether the image lacked nothing but the path, and `truncated`."""
        paths = [str(path) for path in batch["path"]]
        reasons, already = [""] * len(paths), [False] * len(paths)
        writes: list[ImageWrite] = []
        for at, (path, image_id) in enumerate(zip(paths, batch["image_id"], strict=True)):
            try:
                write = self.write_of(path, None if image_id == NEW else int(image_id))
                already[at] = not write.features
                writes.append(write)
            except InvalidInput as exc:
                reasons[at] = str(exc)
        self.store.put_many(writes)
        return {
            "path": np.array(paths, object),
            "reason": np.array(reasons, object),
            "already": np.array(already),
            "truncated": np.array([path in self.truncated for path in paths]),
        }

    def _same_file(self, sha256: str, image_id: int | None, path: str) -> Image | None:
        """An image of the same file, from this path or uploaded: under this id or, without one,
        under any."""
        ids = self.store.ids_by_sha256(sha256) if image_id is None else [image_id]
        images = self.store.images_by_id(ids).values()
        same = (one for one in images if one.sha256 == sha256 and one.source in ("online", path))
        return next(same, None)

    def write_of(self, path: str, image_id: int | None) -> ImageWrite:
        """Row and features of one picture; without features if the same file is stored and lacks
        nothing. Raises InvalidInput."""
        try:
            data = read_bytes(path, self.decoder.limits.max_bytes)
        except OSError as exc:
            raise InvalidInput(f"can't be read: {exc.strerror or exc}") from exc
        sha256 = hashlib.sha256(data).hexdigest()
        there = self._same_file(sha256, image_id, path)
        if there is not None:
            image_id = there.image_id
            missing = missing_spaces(self.store, self.extractors, [image_id])
            if there.has_preview and not missing.get(image_id, {"gone"}):
                size = there.width, there.height
                return ImageWrite(image_id, sha256, *size, self.wanted, {}, source=path)
        picture = self.decoder.decode_blocking(data)
        if picture.truncated:
            self.truncated.add(path)
        return ImageWrite(
            image_id=image_id,
            sha256=sha256,
            width=picture.width,
            height=picture.height,
            wanted=self.wanted,
            features=self._features(picture, self._lacking(image_id, sha256)),
            source=path,
            preview=picture.preview_jpeg(),
        )

    def _lacking(self, image_id: int | None, sha256: str) -> Collection[Space]:
        """All spaces or, for a stored image, those in which it has no features."""
        image = None if image_id is None else self.store.image(image_id)
        if image is None or image.sha256 != sha256:
            return self.extractors
        missing = missing_spaces(self.store, self.extractors, [image.image_id])
        return missing.get(image.image_id, self.extractors)

    def _features(self, picture: Picture, spaces: Collection[Space]) -> dict[Space, bytes]:
        rows = {}
        for space in spaces:
            extractor = self.extractors[space]
            rows[space] = extractor.to_row(extractor.extract(picture.view(extractor.view)))
        return rows
