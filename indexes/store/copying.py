"""Copies one store into another, of any backends, while the source is in use.

A pass reads both stores by ascending id and writes the differences. Passes repeat until one finds
no difference; that pass verifies the copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from indexes.store.base import Store
from indexes.store.complete import (
    CompleteImage,
    complete_images,
    original_of,
    write_annotations,
    write_of,
)
from indexes.store.records import RecordKey, copy_records

BATCH = 128
"""Number of images that are read at a time and written in one transaction."""
PASSES = 10
"""Maximum number of passes over a source that keeps changing."""


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
    source: Store,
    target: Store,
    progress: Callable[[int], None] = lambda _: None,
    leave: RecordKey | None = None,
) -> Copied:
    """Make `target` hold the images and records of `source`, and no others, under the same names.

    Equal images are not written again, so a second copy only compares the stores. Originals are
    copied if the target has room for them. `progress` receives the number of images compared in the
    current pass, and may raise to end; a second copy goes on from there. `leave` is a record that
    is not copied: that of the copy's own job.
    """
    written = removed = 0
    for _ in range(PASSES):
        # The counter is copied, because ids of deleted images must not be assigned again.
        target.reserve_ids(source.reserve_ids(0))
        _copy_active(source, target)
        head = source.head()
        walk = _Pass(source, target, progress)
        walk.run()
        records = copy_records(source, target, leave=leave)
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
            ours = complete_images(self.source, after, BATCH)
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
        writes = [write_of(one, original_of(self.source, one.image)) for one in changed]
        for whole, receipt in zip(changed, self.target.put_many(writes), strict=True):
            write_annotations(self.target, receipt.image_id, receipt.generation, whole)


def _until(store: Store, after: int, last: int | None) -> Iterator[CompleteImage]:
    """Yield all images with ids above `after` and, if given, up to `last`."""
    while batch := complete_images(store, after, BATCH):
        for whole in batch:
            if last is not None and whole.image.image_id > last:
                return
            yield whole
        after = batch[-1].image.image_id


def _copy_active(source: Store, target: Store) -> None:
    named = source.active()
    for kind in target.active().keys() | named.keys():
        target.activate(kind, named.get(kind))
