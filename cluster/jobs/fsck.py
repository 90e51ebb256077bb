"""Checks that a store and a collection agree, and heals it where they do not.

Every file is read, decoded and extracted anew by what needs no network, and compared with what is
stored. Then all other stored images are looked through for files that are gone and rows that can't
be read. Healing goes the way of a backfill and of a delete.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image as Pillow

from cluster.jobs.backfill import PIECE, Reader, RetrieverSpec, Work, spaces_of, stages_of
from cluster.jobs.pipeline import Piece, Stage, run_stages
from cluster.jobs.settings import JobSettings
from cluster.jobs.sources import IGNORED, NEW, Ids, list_source, local_path, with_ids
from indexes.store.base import ANNOTATIONS, Image, Space, Store
from models.base import Extractor
from models.pictures.decoding import Picture, decode

What = Literal[
    "not indexed",
    "another file",
    "unreadable",
    "no file",
    "no features",
    "other features",
    "damaged features",
    "old model",
    "no preview",
    "damaged preview",
    "orphaned features",
]
NOT_HEALED: frozenset[What] = frozenset(
    {"unreadable", "damaged preview", "damaged features", "orphaned features"}
)
"""What needs a person: a file to be mended, or an image to be deleted and added again."""
PAGE = 512
UNIT_ERROR = 1e-3
"""By how much the length of a stored unit vector may differ from 1."""
RATIO_ERROR = 0.02
"""By how much a preview's shape may differ from its picture's, beyond the rounding to pixels."""
THUMB, MOST_DIFFERENCE = 16, 16.0
"""Side, in pixels, to which previews are reduced, and mean difference of their values from which
they show different pictures."""
MOST_BITS = 112
"""Number of bits, of 576, from which a preview has another pHash than its picture."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    what: What
    detail: str = ""
    path: str = ""
    image_id: int | None = None
    kind: str = ""
    """The retriever concerned, if one is."""


@dataclass(slots=True)
class Checked(Work):
    """One file, with what is wrong about it."""

    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """The outcome of a check."""

    files: int
    images: int
    findings: list[Finding]
    healed: bool
    """Whether what can be healed was."""

    @property
    def counts(self) -> Mapping[str, int]:
        return Counter(one.what for one in self.findings)

    @property
    def left(self) -> list[Finding]:
        """What is still wrong."""
        return [one for one in self.findings if not self.healed or one.what in NOT_HEALED]


class Checker(Reader):
    """Reads files and compares what they give with what is stored, in its own process."""

    def work_of(self, path: str, image_id: int | None) -> Checked:
        data, sha256 = self.read(path)
        if image_id is None:
            image = self.same_file(sha256, None, path)
        else:
            image = self.store.image(image_id)
        if image is None:
            return self._to_index(path, image_id, Finding("not indexed", path=path))
        image_id = image.image_id
        if image.sha256 != sha256:
            finding = Finding("another file", f"stored from {image.source}", path, image_id)
            return self._to_index(path, image_id, finding)
        picture = self.decoder.decode_blocking(data)
        findings, spaces = self._compared(image, path, picture)
        if not findings:
            return Checked(path, already=True)
        work = self.work(picture, path, image_id, sha256, spaces)
        return _checked(work, findings)

    def _to_index(self, path: str, image_id: int | None, finding: Finding) -> Checked:
        return _checked(super().work_of(path, image_id), [finding])

    def _compared(
        self, image: Image, path: str, picture: Picture
    ) -> tuple[list[Finding], set[Space]]:
        """What is wrong, and the spaces whose features are to be made anew."""
        image_id = image.image_id
        findings, wrong = [], set[Space]()
        for space in self.spaces:
            what = self._fault(space, image_id, picture)
            if what is not None:
                findings.append(Finding(what, "", path, image_id, space.kind))
                wrong.add(space)
        preview = self.store.preview(image_id)
        if preview is None:
            findings.append(Finding("no preview", "", path, image_id))
        elif fault := (
            preview_fault(preview, picture.width, picture.height)
            or difference_fault(preview, picture)
        ):
            findings.append(Finding("damaged preview", fault, path, image_id))
        return findings, wrong

    def _fault(self, space: Space, image_id: int, picture: Picture) -> What | None:
        # The rows themselves are asked for: what else the store says of them may be wrong.
        row = self.store.rows(space, [image_id]).get(image_id)
        if row is None:
            return "no features"
        extractor = self.extractors.get(space)
        if extractor is None:  # A network's; see `row_fault`.
            return None
        fresh = extractor.to_row(extractor.extract(picture.view(extractor.view)))
        return None if row == fresh else "other features"


def plan(
    source: str, ids: Ids, store: Store, ignore: Sequence[str] = IGNORED
) -> tuple[list[tuple[str, int]], list[Finding]]:
    """Paths with the ids that they should have, and what can't be read at all."""
    listing = list_source(source, ignore)
    named, bad = with_ids(listing.paths, ids)
    known = store.ids_by_source()
    todo = [(path, known.get(path, NEW) if at == NEW else at) for path, at in named]
    return todo, [Finding("unreadable", one.reason, one.path) for one in (*listing.bad, *bad)]


def run(
    todo: Sequence[tuple[str, int]],
    kinds: Sequence[RetrieverSpec],
    settings: JobSettings,
    heal: bool,
    progress: Callable[[Piece[list[Checked]], Sequence[Stage]], None],
) -> list[Finding]:
    """Check files; with `heal` also put right what is wrong about them.

    Returns what is, or was, wrong. Ray must be connected.
    """
    findings: list[Finding] = []
    if not todo:
        return findings
    stages = stages_of(kinds, settings, Checker)
    if not heal:
        del stages[1:]
    for piece in run_stages(todo, stages, PIECE):
        for work in piece.result:
            if work.reason:
                findings.append(Finding("unreadable", work.reason, work.path))
            else:
                findings += work.findings
        progress(piece, stages)
    return findings


def look_through(
    store: Store, kinds: Sequence[RetrieverSpec], folder: str | None, checked: Collection[int]
) -> Iterator[Finding]:
    """What is wrong with stored images, and with features of models that the config does not name.

    Of images in `checked`, whose files were compared, only what networks made is looked at. Others
    from under `folder` must have a file.
    """
    spaces = {space: kind.make() for space, kind in spaces_of(kinds).items()}
    yield from _old_models(store, spaces)
    yield from _orphans(store)
    after = -1
    while images := store.images(after, PAGE):
        after = images[-1].image_id
        rows = {space: store.rows(space, [image.image_id for image in images]) for space in spaces}
        for image in images:
            at, was_compared = image.image_id, image.image_id in checked
            if not was_compared and folder is not None and _is_gone(image, folder):
                yield Finding("no file", "", image.source, at)
                continue
            for space, extractor in spaces.items():
                row = rows[space].get(at)
                if was_compared and (row is None or not extractor.uses_gpu):
                    continue
                if row is not None and (fault := row_fault(extractor, row)):
                    yield Finding("damaged features", fault, image.source, at, space.kind)
                if row is None and space.kind in image.wanted - image.pending:
                    yield Finding("no features", "", image.source, at, space.kind)
            preview = store.preview(at) if image.has_preview and not was_compared else None
            hashes = {
                space: (extractor, rows[space][at])
                for space, extractor in spaces.items()
                if at in rows[space]
            }
            if preview and (
                fault := preview_fault(preview, image.width, image.height)
                or hash_fault(preview, hashes)
            ):
                yield Finding("damaged preview", fault, image.source, at)


def row_fault(extractor: Extractor, row: bytes) -> str | None:
    """Why a stored row can't be this extractor's; None if it may be."""
    try:
        features = extractor.from_row(row)
    except ValueError as exc:
        return str(exc)
    if extractor.index == "vectors":
        length = float(np.linalg.norm(features))
        if not abs(length - 1) <= UNIT_ERROR:
            return f"the vector's length is {length:.4g}, not 1"
    elif extractor.index == "histogram" and not (np.isfinite(features) & (features >= 0)).all():
        return "it holds shares that no picture has"
    return None


def preview_fault(preview: bytes, width: int, height: int) -> str | None:
    """Why a stored preview does not fit a picture of this size; None if it does, or if the size is
    unknown (0)."""
    try:
        with Pillow.open(io.BytesIO(preview)) as image:
            image.load()
            shown = image.size
    except (OSError, ValueError, SyntaxError) as exc:
        return f"it can't be decoded: {exc}"
    # Each side was rounded to whole pixels.
    allowed = RATIO_ERROR + 1 / min(shown)
    if width and height and abs(shown[0] * height / (shown[1] * width) - 1) > allowed:
        return f"{shown[0]}×{shown[1]} pixels do not fit a picture of {width}×{height}"
    return None


def difference_fault(preview: bytes, picture: Picture) -> str | None:
    """Why a stored preview does not show this picture; None if it does."""
    with Pillow.open(io.BytesIO(preview)) as image:
        stored = np.asarray(image.convert("RGB").resize((THUMB, THUMB), Pillow.Resampling.BOX))
    whole = Pillow.fromarray(picture.preview).resize((THUMB, THUMB), Pillow.Resampling.BOX)
    apart = float(np.abs(np.asarray(whole, np.float32) - stored).mean())
    return (
        f"it shows another picture: {apart:.0f} grey values off"
        if apart > MOST_DIFFERENCE
        else None
    )


def hash_fault(preview: bytes, stored: Mapping[Space, tuple[Extractor, bytes]]) -> str | None:
    """Why a preview has not the stored pHash; None if it has, or if there is none to go by."""
    for space, (extractor, row) in stored.items():
        if extractor.index != "binary" or len(row) != int(np.prod(extractor.shape)):
            continue
        (found,) = extractor.extract_variants(decode(preview).view(extractor.view), "identity")
        if len(found) != len(row):
            return None  # Many of its bits mean nothing.
        apart = int(np.bitwise_count(found ^ np.frombuffer(row, np.uint8)).sum())
        if apart > MOST_BITS:
            return f"{apart} bits differ from the {space.kind} of the picture"
    return None


def heal_store(store: Store, findings: Sequence[Finding]) -> None:
    """Delete images whose file is gone, and features of old models."""
    for one in findings:
        if one.what == "no file" and one.image_id is not None:
            store.delete(one.image_id)
        elif one.what == "old model":
            store.drop_space(Space(one.kind, one.detail))


def folder_of(source: str) -> str | None:
    """The folder that a source is; None for a list, and for what is not on this machine."""
    local = local_path(source)
    return local if local is not None and os.path.isdir(local) else None


def _old_models(store: Store, named: Collection[Space]) -> Iterator[Finding]:
    """Features of retrievers of the config, whose weights are there, under other models."""
    active, kinds = store.active(), {space.kind for space in named}
    for space in store.spaces():
        used = active.get(space.kind) == space.fingerprint
        if space != ANNOTATIONS and space.kind in kinds and space not in named and not used:
            yield Finding("old model", space.fingerprint, kind=space.kind)


def _orphans(store: Store) -> Iterator[Finding]:
    """Features of images that the store does not have."""
    for space in store.spaces():
        suspects: list[int] = []
        with store.scan(space) as scan:
            for batch in scan.batches:
                ids = [image_id for image_id, _ in batch]
                there = store.images_by_id(ids)
                suspects += [image_id for image_id in ids if image_id not in there]
        # An image that was deleted meanwhile has no features any more.
        for image_id in store.rows(space, suspects):
            yield Finding("orphaned features", space.fingerprint, "", image_id, space.kind)


def _is_gone(image: Image, folder: str) -> bool:
    inside = image.source.startswith(os.path.join(folder, ""))
    return inside and not os.path.lexists(image.source)


def _checked(work: Work, findings: list[Finding]) -> Checked:
    return Checked(
        work.path,
        work.reason,
        work.write,
        work.lacking,
        work.preview,
        truncated=work.truncated,
        findings=findings,
    )
