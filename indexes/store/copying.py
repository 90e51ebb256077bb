"""Copies one store into another, of any backends, while the source is in use.

A pass reads both stores by ascending id and writes the differences. Passes repeat until one finds
no difference; that pass verifies the copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from indexes.store.annotations import read_annotations
from indexes.store.base import ANNOTATIONS, Author, Image, ImageWrite, Space, Store
from indexes.store.checks import dump_metadata
from indexes.store.records import copy_records

BATCH = 128
"""Number of images that are read at a time and written in one transaction."""
PASSES = 10
"""Maximum number of passes over a source that keeps changing."""
_AUTHORS: tuple[Author, ...] = ("machine", "person")


@dataclass(frozen=True, slots=True)
class CompleteImage:
    """An image with everything that is stored for it, except the original."""

    image: Image
    features: dict[Space, bytes]
    """Features, including the row of annotations."""
    preview: bytes | None

    @property
    def digest(self) -> bytes:
        """Digest of everything that must be equal in a copy.

        Generations are left out, because each store assigns its own.
        """
        image = self.image
        told = [image.image_id, image.sha256, image.width, image.height, image.created]
        named = [image.source.encode("utf-8", "surrogateescape").hex(), sorted(image.wanted)]
        rows = [[*space, _hash(row)] for space, row in sorted(self.features.items())]
        parts = [*told, *named, rows, _hash(self.preview), _hash(dump_metadata(image.metadata))]
        parts.append(image.facts)
        return hashlib.blake2b(orjson.dumps(parts), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Copied:
    """The outcome of a copy."""

    images: int
    checksum: str
    """Digest of all images of the source, in hexadecimal; that of the copy is equal if
    `complete`."""
    written: int
    removed: int
    complete: bool
    """Whether the last pass found both stores equal and the source unchanged."""


def copy_store(
    source: Store, target: Store, progress: Callable[[int], None] = lambda _: None
) -> Copied:
    """Make `target` hold the images and records of `source`, and no others, under the same names.

    Equal images are not written again, so a second copy only compares the stores. Originals are
    copied if the target has room for them. `progress` receives the number of images compared in the
    current pass.
    """
    written = removed = 0
    for _ in range(PASSES):
        # The counter is copied, because ids of deleted images must not be assigned again.
        target.reserve_ids(source.reserve_ids(0))
        _copy_active(source, target)
        head = source.head()
        walk = _Pass(source, target, progress)
        walk.run()
        records = copy_records(source, target)
        written, removed = written + walk.written, removed + walk.removed
        changed = walk.written or walk.removed or records
        if not changed and source.head() == head:
            return Copied(walk.images, walk.checksum.hexdigest(), written, removed, True)
    return Copied(walk.images, walk.checksum.hexdigest(), written, removed, False)


class _Pass:
    """One pass over both stores."""

    def __init__(self, source: Store, target: Store, progress: Callable[[int], None]) -> None:
        self.source, self.target, self.progress = source, target, progress
        self.images = self.written = self.removed = 0
        self.checksum = hashlib.blake2b(digest_size=16)

    def run(self) -> None:
        after = -1
        last: int | None = after
        while last is not None:
            ours = _complete_images(self.source, after, BATCH)
            last = ours[-1].image.image_id if len(ours) == BATCH else None
            theirs = {one.image.image_id: one for one in _until(self.target, after, last)}
            self._bring_over(ours, theirs)
            self.progress(self.images)
            after = last or after

    def _bring_over(self, ours: Sequence[CompleteImage], theirs: dict[int, CompleteImage]) -> None:
        changed = []
        for whole in ours:
            digest = whole.digest
            self.checksum.update(digest)
            there = theirs.get(whole.image.image_id)
            if there is None or there.digest != digest:
                changed.append(whole)
        self.images += len(ours)
        gone = theirs.keys() - {whole.image.image_id for whole in ours}
        for image_id in sorted(gone | {whole.image.image_id for whole in changed} & theirs.keys()):
            self.target.delete(image_id)
        self.removed += len(gone)
        self.written += len(changed)
        writes = [_write(self.source, whole) for whole in changed]
        for whole, receipt in zip(changed, self.target.put_many(writes), strict=True):
            _annotate(self.target, receipt.image_id, receipt.generation, whole)


def _complete_images(store: Store, after: int, limit: int) -> list[CompleteImage]:
    """Read images in several transactions; the next pass finds what changes meanwhile."""
    images = store.images(after, limit)
    ids = [image.image_id for image in images]
    rows = {space: store.rows(space, ids) for space in store.spaces()} if ids else {}
    return [
        CompleteImage(
            image,
            {space: found[at] for space, found in rows.items() if (at := image.image_id) in found},
            store.preview(image.image_id) if image.has_preview else None,
        )
        for image in images
    ]


def _until(store: Store, after: int, last: int | None) -> Iterator[CompleteImage]:
    """Yield all images with ids above `after` and, if given, up to `last`."""
    while batch := _complete_images(store, after, BATCH):
        for whole in batch:
            if last is not None and whole.image.image_id > last:
                return
            yield whole
        after = batch[-1].image.image_id


def _copy_active(source: Store, target: Store) -> None:
    named = source.active()
    for kind in target.active().keys() | named.keys():
        target.activate(kind, named.get(kind))


def _write(source: Store, whole: CompleteImage) -> ImageWrite:
    image = whole.image
    original = source.original(image.image_id, image.generation) if image.has_original else None
    return ImageWrite(
        image.image_id,
        image.sha256,
        image.width,
        image.height,
        image.wanted,
        {space: row for space, row in whole.features.items() if space != ANNOTATIONS},
        source=image.source,
        upload_name=image.upload_name,
        metadata=image.metadata,
        preview=whole.preview,
        original=original,
        created=image.created,
        facts=image.facts,
    )


def _annotate(target: Store, image_id: int, generation: int, whole: CompleteImage) -> None:
    said = read_annotations(whole.features.get(ANNOTATIONS))
    for author in _AUTHORS:
        by: dict[str, dict[str, Any] | None] = {}
        for name, one in said.items():
            if one["by"] == author:
                # A removal by a person is stored as an annotation with
                # only `by`.
                removal = author == "person" and len(one) == 1
                by[name] = None if removal else {key: one[key] for key in one if key != "by"}
        if by:
            target.annotate(image_id, generation, by, author)


def _hash(row: bytes | None) -> str | None:
    return None if row is None else hashlib.blake2b(row, digest_size=16).hexdigest()
