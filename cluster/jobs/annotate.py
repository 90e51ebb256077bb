"""Annotate images that are stored already, with Ray Data, writing directly to the store.

Workers read each image from its stored preview, its kept upload or its file, and commit one by one.
A killed run resumes after its last commit.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cluster.jobs.batches import map_batches
from cluster.jobs.sources import read_bytes
from cluster.service.applications import ANNOTATOR, built_by
from deployments.storing import open_here
from indexes.store.annotations import annotations_of, read_annotations
from indexes.store.base import ANNOTATIONS, Image, Space, Store
from models.annotator import Annotation, Annotator
from models.errors import AmbienceError, InvalidInput, RetrieverUnavailable
from models.pictures.decoder import Decoder
from models.pictures.decoding import Picture
from models.pictures.limits import DecodeLimits
from models.registry import make_annotator

BATCH = 8
LOOK = 1024
IMPORT_FOLDER = "import"
TAGS_FILE, CAPTIONS_FILE = "id_tags.txt", "id_caption.txt"


@dataclass(frozen=True, slots=True)
class AnnotatorSpec:
    """An annotator of the config: the name of its application, its class and its options."""

    name: str
    annotator: str
    options: Mapping[str, Any]

    def make(self) -> Annotator:
        """Make the annotator, not loaded yet."""
        return make_annotator(self.annotator, self.options)


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
        AnnotatorSpec(name, args["annotator"], args.get("options") or {})
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
    store: str,
    workers: int,
    progress: Callable[[int], None],
    limits: DecodeLimits | None = None,
) -> Outcome:
    """Annotate these images; `progress` receives the size of each finished batch. Ray must be
    connected."""
    outcome = Outcome()
    items = [{"image_id": image_id} for image_id in todo]
    for rows in map_batches(items, Worker, (list(specs), store, limits), BATCH, workers):
        for image_id, reason in zip(rows["image_id"], rows["reason"], strict=True):
            if reason:
                outcome.bad.append(BadImage(int(image_id), str(reason)))
            else:
                outcome.done += 1
        progress(len(rows["image_id"]))
    return outcome


class Worker:
    """Annotates batches of images in its own process."""

    def __init__(
        self, specs: Sequence[AnnotatorSpec], store: str, limits: DecodeLimits | None = None
    ) -> None:
        self.store = open_here(store)
        self.decoder = Decoder(limits)
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
        self.fingerprints = {name: one.fingerprint for name, one in self.annotators.items()}
        self.reads = {
            name: Space(*reads)
            for name, one in self.annotators.items()
            if (reads := one.reads()) is not None
        }

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Takes the column `image_id`; returns `image_id` and `reason`, which is empty on
        success."""
        ids = [int(image_id) for image_id in batch["image_id"]]
        images, rows = self.store.images_by_id(ids), self.store.rows(ANNOTATIONS, ids)
        reasons = dict.fromkeys(ids, "")
        asked: dict[str, list[tuple[Image, Picture]]] = {name: [] for name in self.annotators}
        for image in images.values():
            unsaid = _missing_annotators(rows.get(image.image_id), self.fingerprints)
            images_lacking = [
                name for name in unsaid & self.reads.keys() if not self._read(name, image)
            ]
            unsaid -= self.reads.keys()
            pictures, faults = self._pictures(image, unsaid)
            faults += [
                f"{name}: no features of {self.reads[name].kind} yet" for name in images_lacking
            ]
            reasons[image.image_id] = "; ".join([*self.unloaded, *faults])
            for name, picture in pictures.items():
                asked[name].append((image, picture))
        for name, pictures_of in asked.items():
            self._annotate(name, pictures_of)
        return {
            "image_id": np.array(ids, np.int64),
            "reason": np.array([reasons[at] for at in ids], object),
        }

    def _read(self, name: str, image: Image) -> bool:
        """Annotate an image by its stored features. Returns False where it has none."""
        row = self.store.rows(self.reads[name], [image.image_id]).get(image.image_id)
        if row is None:
            return False
        annotator = self.annotators[name]
        self._candidates(name, image, annotator.annotate_features([row])[0])
        return True

    def _candidates(self, name: str, image: Image, annotation: Annotation) -> None:
        said = {**annotation.row(), "fingerprint": self.annotators[name].fingerprint}
        self.store.annotate(image.image_id, image.generation, {name: said}, "machine")

    def _annotate(self, name: str, pictures: Sequence[tuple[Image, Picture]]) -> None:
        annotator = self.annotators[name]
        for begin in range(0, len(pictures), annotator.batch):
            part = pictures[begin : begin + annotator.batch]
            views = [picture.view(annotator.view) for _, picture in part]
            for (image, _), annotation in zip(part, annotator.annotate_many(views), strict=True):
                self._candidates(name, image, annotation)

    def _pictures(self, image: Image, names: Set[str]) -> tuple[dict[str, Picture], list[str]]:
        """For each annotator the picture, decoded once, and the reasons of annotators without
        one."""
        small = {name for name in names if self.annotators[name].view == "preview"}
        faults: list[str] = []
        if whole := names - small:
            try:
                return dict.fromkeys(names, self._whole(image)), []
            except (InvalidInput, OSError) as exc:
                faults.append(f"{', '.join(sorted(whole))}: {exc}")
        if not small:
            return {}, faults
        preview = self.store.preview(image.image_id)
        try:
            picture = self.decoder.decode_blocking(preview) if preview else self._whole(image)
        except (InvalidInput, OSError) as exc:
            return {}, [*faults, f"{', '.join(sorted(small))}: {exc}"]
        return dict.fromkeys(small, picture), faults

    def _whole(self, image: Image) -> Picture:
        """The picture from the kept upload or the file. Raises InvalidInput or OSError."""
        data = self.store.original(image.image_id, image.generation)
        if data is None:
            if image.source == "online":
                raise InvalidInput("the upload is no longer kept: add the picture again")
            data = read_bytes(image.source)
            if hashlib.sha256(data).hexdigest() != image.sha256:
                raise InvalidInput(f"{image.source} is another picture now: backfill it again")
        return self.decoder.decode_blocking(data)


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
    os.replace(part, path)
