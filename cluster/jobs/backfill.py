"""Backfill: make features of existing pictures with Ray Data, writing directly to the store.

Readers, one per core, read and decode files and extract what needs no network. Each neural
retriever has a stage of its own, which batches across pictures. A writer commits. A killed run
resumes after its last commit. A running service follows the same log and needs no restart.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2

from cluster.jobs.pipeline import Piece, Stage, run_stages
from cluster.jobs.settings import JobSettings
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
from cluster.service.applications import RETRIEVER, built_by, gpus_of
from deployments.storing import open_here
from indexes.store.base import Image, ImageWrite, Space, Store
from indexes.store.spaces import missing_spaces
from models.base import Extractor
from models.errors import InvalidInput, RetrieverUnavailable
from models.pictures.decoder import Decoder
from models.pictures.decoding import Picture
from models.registry import make_extractor
from models.types import Pixels

PIECE = 16
"""Pictures that go through the stages together, and are committed together: searches wait while the
indexes take them in. Their previews take 0.6 MB each."""
EMBED = 8
"""Pieces in one call of a network's worker: two batches of a GPU, so that one is prepared while it
computes the other."""
LOOK = 4096
CUT_SHORT = "indexed, but the file is cut short or damaged and shows only a part"


@dataclass(frozen=True, slots=True)
class RetrieverSpec:
    """A retriever to fill, under one of its models: its name and its extractor."""

    name: str
    extractor: str
    options: Mapping[str, Any]
    gpus: float | None = None
    """GPUs that its replicas reserve; None where the config leaves that open."""

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
        RetrieverSpec(name, model["extractor"], model.get("options") or {}, gpus_of(config, name))
        for name, args in built_by(RETRIEVER, config).items()
        for model in (args, args.get("next"))
        if model
    ]
    return [kind for kind in kinds if kind.make().of_pictures]


def spaces_of(kinds: Sequence[RetrieverSpec]) -> dict[Space, RetrieverSpec]:
    """Their feature spaces, without those whose weights are not available, because nothing can be
    extracted for them."""
    spaces = {}
    for kind in kinds:
        extractor = kind.make()
        with contextlib.suppress(RetrieverUnavailable):
            extractor.find(fetch=True)
            spaces[Space(kind.name, extractor.fingerprint)] = kind
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
        complete -= _to_read(store, [(path, at) for path, at in part if at in complete])
        todo += [(path, image_id) for path, image_id in part if image_id not in complete]
    return Plan(todo, len(located) - len(todo), bad, listing)


def _to_read(store: Store, located: Sequence[tuple[str, int]]) -> set[int]:
    """Images whose file was modified after they were stored, whose content then decides, and those
    without the facts of their file, as older versions stored them."""
    images = store.images_by_id([image_id for _, image_id in located])
    there = [(path, images[at]) for path, at in located if at in images]
    return {
        one.image_id for path, one in there if one.facts is None or modified(path) > one.created
    }


def run(
    plan: Plan,
    kinds: Sequence[RetrieverSpec],
    settings: JobSettings,
    progress: Callable[[Piece[list[Work]], Sequence[Stage]], None],
    reader: type[Reader] | None = None,
) -> Outcome:
    """Index what the plan holds; `progress` receives each finished piece, and the stages.

    Ray must be connected. Files that can't be read are listed and do not stop the run.
    """
    outcome = plan.outcome()
    if not plan.todo:
        return outcome
    stages = stages_of(kinds, settings, reader)
    for piece in run_stages(plan.todo, stages, PIECE):
        for work in piece.result:
            if work.truncated:
                outcome.notes.append(Bad(work.path, CUT_SHORT))
            if work.reason:
                outcome.bad.append(Bad(work.path, work.reason))
            elif work.already:
                outcome.already += 1
            else:
                outcome.done += 1
        progress(piece, stages)
    return outcome


def stages_of(
    kinds: Sequence[RetrieverSpec], settings: JobSettings, reader: type[Reader] | None = None
) -> list[Stage]:
    """The stages of a backfill: readers, one stage for each network, a writer."""
    spaces = spaces_of(kinds)
    networks = {space: kind for space, kind in spaces.items() if kind.make().uses_gpu}
    others = {space: kind for space, kind in spaces.items() if space not in networks}
    wanted = frozenset(kind.name for kind in kinds)
    shares = settings.resources.network_shares([kind.gpus for kind in networks.values()])
    order = list(networks)
    embedding = [
        settings.network(kind.name, Embedder, (space, kind, order[number + 1 :]), share, EMBED)
        for number, ((space, kind), share) in enumerate(zip(networks.items(), shares, strict=True))
    ]
    # At the usual priority, because others wait while it holds the store's lock.
    writer = Stage(
        "writing",
        Writer,
        (settings.store,),
        1,
        settings.resources.writer_cpus,
        in_background=False,
    )
    return [settings.reading(reader or Reader, others, order, wanted), *embedding, writer]


def write_bad_files(path: Path, bad: Sequence[Bad]) -> None:
    """Write one line per file: path, tab, reason."""
    lines = [f"{one.path}\t{' '.join(one.reason.split())}\n" for one in bad]
    path.write_text("".join(lines))


@dataclass(slots=True)
class Work:
    """One picture on its way through the stages."""

    path: str
    reason: str = ""
    """Why it can't be indexed; empty if it can."""
    write: ImageWrite | None = None
    lacking: Collection[Space] = ()
    """Spaces of networks in which it needs features."""
    preview: Pixels | None = None
    """The view of those networks, until the last of them has seen it."""
    already: bool = False
    """Whether the image lacks nothing but its path."""
    truncated: bool = False
    """Whether the file is cut short or damaged."""
    generation: int | None = None
    """The generation of a stored image of which nothing but features is written."""


class Reader:
    """Reads and decodes files, and extracts what needs no network, in its own process."""

    def __init__(
        self,
        kinds: Mapping[Space, RetrieverSpec],
        networks: Sequence[Space],
        wanted: frozenset[str],
        settings: JobSettings,
    ) -> None:
        cv2.setNumThreads(1)
        self.store = open_here(settings.store)
        self.decoder = Decoder(settings.limits)
        self.wanted = wanted
        self.extractors: dict[Space, Extractor] = {}
        for space, kind in kinds.items():
            extractor = kind.make()
            extractor.load()
            self.extractors[space] = extractor
        self._networks = networks
        self.spaces = [*self.extractors, *networks]
        self._pace = settings.pace_of_reader

    def __call__(self, pieces: Sequence[Sequence[tuple[str, int]]]) -> list[list[Work]]:
        """Takes paths with image ids, or NEW."""
        return [[self._work(path, image_id) for path, image_id in items] for items in pieces]

    def _work(self, path: str, image_id: int) -> Work:
        self._pace.wait()
        try:
            return self.work_of(path, None if image_id == NEW else image_id)
        except InvalidInput as exc:
            return Work(path, str(exc))

    def work_of(self, path: str, image_id: int | None) -> Work:
        """Row and features of one picture; without features if the same file is stored and lacks
        nothing. Raises InvalidInput."""
        data, sha256 = self.read(path)
        there = self.same_file(sha256, image_id, path)
        if there is not None:
            image_id = there.image_id
            missing = missing_spaces(self.store, self.spaces, [image_id])
            whole = there.has_preview and there.facts is not None
            if whole and not missing.get(image_id, {"gone"}):
                size = there.width, there.height
                write = ImageWrite(image_id, sha256, *size, self.wanted, {}, source=path)
                return Work(path, write=write, already=True)
        picture = self.decoder.decode_blocking(data)
        return self.work(picture, path, image_id, sha256, self._lacking(image_id, sha256))

    def read(self, path: str) -> tuple[bytes, str]:
        """The bytes of a file and their SHA-256. Raises InvalidInput."""
        try:
            data = read_bytes(path, self.decoder.limits.max_bytes)
        except OSError as exc:
            raise InvalidInput(f"can't be read: {exc.strerror or exc}") from exc
        return data, hashlib.sha256(data).hexdigest()

    def work(
        self,
        picture: Picture,
        path: str,
        image_id: int | None,
        sha256: str,
        lacking: Collection[Space],
    ) -> Work:
        """The row of one picture, with features of the spaces that it lacks."""
        write = ImageWrite(
            image_id=image_id,
            sha256=sha256,
            width=picture.width,
            height=picture.height,
            wanted=self.wanted,
            features=self._features(picture, lacking),
            source=path,
            preview=picture.preview_jpeg(),
            facts=picture.facts,
        )
        left = tuple(space for space in self._networks if space in lacking)
        preview = picture.preview if left else None
        already = not (write.features or left)
        return Work(path, "", write, left, preview, already, picture.truncated)

    def same_file(self, sha256: str, image_id: int | None, path: str) -> Image | None:
        """An image of the same file, from this path or uploaded: under this id or, without one,
        under any."""
        ids = self.store.ids_by_sha256(sha256) if image_id is None else [image_id]
        images = self.store.images_by_id(ids).values()
        same = (one for one in images if one.sha256 == sha256 and one.source in ("online", path))
        return next(same, None)

    def _lacking(self, image_id: int | None, sha256: str) -> Collection[Space]:
        """All spaces or, for a stored image, those in which it has no features."""
        image = None if image_id is None else self.store.image(image_id)
        if image is None or image.sha256 != sha256:
            return self.spaces
        missing = missing_spaces(self.store, self.spaces, [image.image_id])
        return missing.get(image.image_id, self.spaces)

    def _features(self, picture: Picture, spaces: Collection[Space]) -> dict[Space, bytes]:
        return {
            space: extractor.to_row(extractor.extract(picture.view(extractor.view)))
            for space, extractor in self.extractors.items()
            if space in spaces
        }


class Embedder:
    """Extracts the features of one neural retriever, in batches across pictures."""

    def __init__(self, space: Space, kind: RetrieverSpec, later: Collection[Space] = ()) -> None:
        self.space = space
        self.extractor = kind.make()
        self.extractor.load()
        self._later = frozenset(later)

    def __call__(self, pieces: list[list[Work]]) -> list[list[Work]]:
        """Adds features, and drops the previews that no `later` network needs."""
        asked = [work for piece in pieces for work in piece if self.space in work.lacking]
        previews = [work.preview for work in asked if work.preview is not None]
        features = self.extractor.extract_many(previews)
        for work, found in zip(asked, features, strict=True):
            assert work.write is not None
            row = self.extractor.to_row(found)
            work.write = replace(work.write, features={**work.write.features, self.space: row})
            if self._later.isdisjoint(work.lacking):
                work.preview = None
        return pieces


class Writer:
    """Commits pieces to the store."""

    def __init__(self, store: str) -> None:
        self.store = open_here(store)

    def __call__(self, pieces: list[list[Work]]) -> list[list[Work]]:
        """Returns the work without what is stored now."""
        works = [work for piece in pieces for work in piece]
        writes = [(work.write, work.generation) for work in works if work.write is not None]
        self.store.put_many([write for write, generation in writes if generation is None])
        for write, generation in writes:
            if generation is not None and write.image_id is not None:
                self.store.complete(write.image_id, generation, write.features)
        for work in works:
            work.write = None
        return pieces
