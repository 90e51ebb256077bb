"""Annotate images that are stored already, with Ray Data, writing directly to the store.

Readers, one per core, read each image from its stored preview, its kept upload or its file, and run
the annotators that need no GPU; the others have a stage each. All commit one by one. A killed run
resumes after its last commit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from cluster.jobs.pipeline import Piece, Stage, run_stages
from cluster.jobs.settings import JobSettings
from cluster.jobs.sources import StoredPictures
from cluster.service.applications import ANNOTATOR, built_by, gpus_of
from deployments.storing import open_here
from indexes.store.annotations import annotations_of, read_annotations
from indexes.store.base import ANNOTATIONS, Image, Space, Store
from models.annotator import Annotation, Annotator, FeatureSource
from models.errors import AmbienceError, InvalidInput, RetrieverUnavailable
from models.pictures.decoder import Decoder
from models.pictures.decoding import Picture
from models.registry import make_annotator
from models.types import Pixels, View

PIECE = 8
"""Images that go through the stages together."""
LOOK = 1024
IMPORT_FOLDER = "import"
TAGS_FILE, CAPTIONS_FILE = "id_tags.txt", "id_caption.txt"


@dataclass(frozen=True, slots=True)
class AnnotatorSpec:
    """An annotator of the config: the name of its application, its class and its options."""

    name: str
    annotator: str
    options: Mapping[str, Any]
    gpus: float | None = None
    """GPUs that its replicas reserve; None where the config leaves that open."""
    source: FeatureSource | None = None
    """The retriever that makes features for the annotator."""

    def make(self) -> Annotator:
        """Make the annotator, not loaded yet."""
        annotator = make_annotator(self.annotator, self.options)
        annotator.source = self.source
        return annotator


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that could not be annotated, and the reason."""

    image_id: int
    reason: str


@dataclass(slots=True)
class Outcome:
    """The outcome of a run."""

    done: int = 0
    already: int = 0
    bad: list[BadImage] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    """Annotator → reason why it is not available."""


def annotator_specs(config: Mapping[str, Any]) -> list[AnnotatorSpec]:
    """The annotators of a config."""
    return [
        AnnotatorSpec(name, args["annotator"], args.get("options") or {}, gpus_of(config, name))
        for name, args in built_by(ANNOTATOR, config).items()
    ]


def resolve_fingerprints(specs: Sequence[AnnotatorSpec]) -> tuple[dict[str, str], dict[str, str]]:
    """By name: fingerprints of the annotators whose weights are available, and the reasons of the
    others."""
    fingerprints, unavailable = {}, {}
    for spec in specs:
        annotator = spec.make()
        try:
            annotator.find(fetch=True)
        except RetrieverUnavailable as exc:
            unavailable[spec.name] = str(exc)
        else:
            fingerprints[spec.name] = annotator.fingerprint
    return fingerprints, unavailable


def images_lacking(store: Store, fingerprints: Mapping[str, str]) -> Iterator[int]:
    """Images without the annotation of one of these annotators (name → fingerprint)."""
    after = -1
    while images := store.images(after, LOOK):
        ids = [image.image_id for image in images]
        rows = store.rows(ANNOTATIONS, ids)
        yield from (at for at in ids if _missing_annotators(rows.get(at), fingerprints))
        after = ids[-1]


def run(
    todo: Sequence[int],
    specs: Sequence[AnnotatorSpec],
    settings: JobSettings,
    progress: Callable[[Piece[list[Work]], Sequence[Stage]], None],
) -> Outcome:
    """Annotate these images; `progress` receives each finished piece, and the stages. Ray must be
    connected."""
    outcome = Outcome()
    stages = stages_of(specs, settings)
    for piece in run_stages(todo, stages, PIECE):
        for work in piece.result:
            if work.reasons:
                outcome.bad.append(BadImage(work.image_id, "; ".join(work.reasons)))
            else:
                outcome.done += 1
        progress(piece, stages)
    return outcome


def stages_of(specs: Sequence[AnnotatorSpec], settings: JobSettings) -> list[Stage]:
    """The stages of a job: readers, and one stage for each annotator that uses a GPU."""
    networks = [spec for spec in specs if spec.make().uses_gpu]
    others = [spec for spec in specs if spec not in networks]
    shares = settings.resources.network_shares([spec.gpus for spec in networks])
    describing = [
        settings.network(
            spec.name, Describer, (spec, networks[number + 1 :], settings.store), share
        )
        for number, (spec, share) in enumerate(zip(networks, shares, strict=True))
    ]
    return [settings.reading(Reader, others, networks), *describing]


@dataclass(slots=True)
class Work:
    """One image on its way through the stages."""

    image_id: int
    image: Image | None = None
    reasons: list[str] = field(default_factory=list)
    """Why annotators could not annotate it."""
    asked: set[str] = field(default_factory=set)
    """Annotators of later stages that it lacks."""
    views: dict[View, Pixels] = field(default_factory=dict)
    """What they look at, until the last of them has."""


class Reader:
    """Reads images in its own process, and annotates them by what needs no GPU."""

    def __init__(
        self,
        specs: Sequence[AnnotatorSpec],
        networks: Sequence[AnnotatorSpec],
        settings: JobSettings,
    ) -> None:
        self.store = open_here(settings.store)
        self._stored = StoredPictures(self.store, Decoder(settings.limits))
        self.annotators: dict[str, Annotator] = {}
        self.unloaded: list[str] = []
        for spec in specs:
            annotator = spec.make()
            try:
                annotator.load()
            except (AmbienceError, ImportError) as exc:
                self.unloaded.append(f"{spec.name}: {exc}")
            else:
                self.annotators[spec.name] = annotator
        later = {spec.name: spec.make() for spec in networks}
        self.views = {name: one.view for name, one in (self.annotators | later).items()}
        self.later = later.keys()
        self.fingerprints = {
            name: one.fingerprint for name, one in (self.annotators | later).items()
        }
        self.reads = {
            name: Space(*reads)
            for name, one in self.annotators.items()
            if (reads := one.reads()) is not None
        }
        self._pace = settings.pace_of_reader

    def __call__(self, pieces: Sequence[Sequence[int]]) -> list[list[Work]]:
        """Takes image ids."""
        return [self._annotated(ids) for ids in pieces]

    def _annotated(self, ids: Sequence[int]) -> list[Work]:
        images, rows = self.store.images_by_id(ids), self.store.rows(ANNOTATIONS, ids)
        works = {image_id: Work(image_id, images.get(image_id)) for image_id in ids}
        asked: dict[str, list[tuple[Image, Picture]]] = {name: [] for name in self.annotators}
        for image in images.values():
            self._pace.wait()
            work = works[image.image_id]
            unsaid = _missing_annotators(rows.get(image.image_id), self.fingerprints)
            without = [name for name in unsaid & self.reads.keys() if not self._read(name, image)]
            pictures, faults = self._pictures(image, unsaid - self.reads.keys())
            faults += [f"{name}: no features of {self.reads[name].kind} yet" for name in without]
            work.reasons = [*self.unloaded, *faults]
            for name, picture in pictures.items():
                if name in self.later:
                    work.asked.add(name)
                    work.views[self.views[name]] = picture.view(self.views[name])
                else:
                    asked[name].append((image, picture))
        for name, pictures_of in asked.items():
            self._annotate(name, pictures_of)
        return list(works.values())

    def _read(self, name: str, image: Image) -> bool:
        """Annotate an image by its stored features. Returns False where it has none."""
        row = self.store.rows(self.reads[name], [image.image_id]).get(image.image_id)
        if row is None:
            return False
        annotator = self.annotators[name]
        keep(self.store, name, annotator, image, annotator.annotate_features([row])[0])
        return True

    def _annotate(self, name: str, pictures: Sequence[tuple[Image, Picture]]) -> None:
        annotator = self.annotators[name]
        views = [picture.view(annotator.view) for _, picture in pictures]
        for (image, _), annotation in zip(pictures, in_batches(annotator, views), strict=True):
            keep(self.store, name, annotator, image, annotation)

    def _pictures(self, image: Image, names: Set[str]) -> tuple[dict[str, Picture], list[str]]:
        """For each annotator the picture, decoded once, and the reasons of annotators without
        one."""
        small = {name for name in names if self.views[name] == "preview"}
        faults: list[str] = []
        if whole := names - small:
            try:
                return dict.fromkeys(names, self._stored.whole(image)), []
            except InvalidInput as exc:
                faults.append(f"{', '.join(sorted(whole))}: {exc}")
        if not small:
            return {}, faults
        try:
            picture = self._stored.small(image)
        except InvalidInput as exc:
            return {}, [*faults, f"{', '.join(sorted(small))}: {exc}"]
        return dict.fromkeys(small, picture), faults


class Describer:
    """Annotates by one neural annotator, in batches across images."""

    def __init__(self, spec: AnnotatorSpec, later: Sequence[AnnotatorSpec], store: str) -> None:
        self.store = open_here(store)
        self.name = spec.name
        self.annotator = spec.make()
        self._later = frozenset(one.name for one in later)
        self._unavailable: str | None = None
        try:
            self.annotator.load()
        except (AmbienceError, ImportError) as exc:
            self._unavailable = f"{spec.name}: {exc}"

    def __call__(self, pieces: list[list[Work]]) -> list[list[Work]]:
        """Adds reasons, and drops the views that no `later` annotator needs."""
        asked = [work for piece in pieces for work in piece if self.name in work.asked]
        if self._unavailable is not None:
            for work in asked:
                work.reasons.append(self._unavailable)
        else:
            views = [work.views[self.annotator.view] for work in asked]
            for work, annotation in zip(asked, in_batches(self.annotator, views), strict=True):
                assert work.image is not None
                keep(self.store, self.name, self.annotator, work.image, annotation)
        for work in asked:
            if self._later.isdisjoint(work.asked):
                work.views.clear()
        return pieces


def in_batches(annotator: Annotator, views: Sequence[Pixels]) -> Iterator[Annotation]:
    """Annotations of all views, `batch` of them in one pass."""
    for begin in range(0, len(views), annotator.batch):
        yield from annotator.annotate_many(views[begin : begin + annotator.batch])


def keep(
    store: Store, name: str, annotator: Annotator, image: Image, annotation: Annotation
) -> None:
    """Store a machine's annotation, unless the image was replaced meanwhile."""
    said = {**annotation.row(), "fingerprint": annotator.fingerprint}
    store.annotate(image.image_id, image.generation, {name: said}, "machine")


def write_files(store: Store, folder: Path) -> dict[str, int]:
    """Write `id_tags.txt` and `id_caption.txt` for a gallery's importers. Returns the number of
    entries by path.

    A gallery's importers read its folder `import`; if the folder has one, the files go there. The
    tags are those of all annotators, the caption is that of `caption`. Images without either
    are left out.
    """
    tags, captions = [], []
    after = -1
    while images := store.images(after, LOOK):
        ids = [image.image_id for image in images]
        for image_id, said in annotations_of(store, ids).items():
            found = [tag for one in said.values() for tag in one.get("tags", ())]
            if found:
                tags.append({"id": image_id, "tags": list(dict.fromkeys(found))})
            if text := said.get("caption", {}).get("text"):
                captions.append({"id": image_id, "caption": text})
        after = ids[-1]
    if (folder / IMPORT_FOLDER).is_dir():
        folder = folder / IMPORT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / TAGS_FILE: tags, folder / CAPTIONS_FILE: captions}
    for path, entries in files.items():
        _write(path, entries)
    return {str(path): len(entries) for path, entries in files.items()}


def _missing_annotators(row: bytes | None, fingerprints: Mapping[str, str]) -> set[str]:
    """Annotators without an annotation, or with one of another fingerprint."""
    said = read_annotations(row)
    return {
        name
        for name, fingerprint in fingerprints.items()
        if name not in said
        or (said[name]["by"] == "machine" and said[name].get("fingerprint") != fingerprint)
    }


def _write(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write beside the target, then rename, so that no importer reads a partial file."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(orjson.dumps(entries))
    part.chmod(0o644)  # The gallery may run as another user.
    os.replace(part, path)
