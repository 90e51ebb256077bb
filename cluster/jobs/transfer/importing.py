"""Brings the features of an old service into the store, under the same ids, without recomputing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.jobs.sources import Bad, read_bytes
from cluster.jobs.transfer.environments import OldImage, from_old_bytes
from indexes.store.base import Image, ImageWrite, Space, Store
from models.base import Extractor
from models.errors import InvalidInput
from models.pictures.decoding import read_header
from models.pictures.limits import DecodeLimits

ONLINE = ".online"


@dataclass(slots=True)
class Outcome:
    """The outcome of an import."""

    added: int = 0
    """Images that the store did not have."""
    extended: int = 0
    """Images that had no features of this retriever."""
    already: int = 0
    bad: list[Bad] = field(default_factory=list)
    """Images that were left out, by id, and why."""


@dataclass(frozen=True, slots=True)
class Importer:
    """Imports features into one space."""

    store: Store
    space: Space
    converted: Callable[[bytes], bytes]
    """From an old service's bytes to a stored row. Raises InvalidInput."""
    pictures: Path | None
    """The folder in which the file names are looked for. Without it, an image's content is unknown
    until a backfill or an add of its file, which replaces what was imported."""
    limits: DecodeLimits

    def run(
        self, batches: Iterable[Sequence[OldImage]], progress: Callable[[int], None]
    ) -> Outcome:
        """Import all images of an old service. Run it again to resume.

        An image that is there under the same id is extended if it has the same file name.
        `progress` receives the number of images so far.
        """
        outcome = Outcome()
        done = 0
        for batch in batches:
            self._bring_in(batch, outcome)
            done += len(batch)
            progress(done)
        return outcome

    def _bring_in(self, batch: Sequence[OldImage], outcome: Outcome) -> None:
        ids = [one.image_id for one in batch]
        there = self.store.images_by_id(ids)
        complete = self.store.rows(self.space, ids).keys()
        writes = []
        for one in batch:
            if one.image_id in complete and _same(there[one.image_id], one):
                outcome.already += 1
                continue
            try:
                writes.append(self._write(one, there.get(one.image_id)))
            except InvalidInput as exc:
                outcome.bad.append(Bad(f"{one.image_id} ({one.file_name})", str(exc)))
        for receipt in self.store.put_many(writes):
            if receipt.outcome == "created":
                outcome.added += 1
            else:
                outcome.extended += 1

    def _write(self, one: OldImage, image: Image | None) -> ImageWrite:
        rows = {self.space: self.converted(one.features)}
        wanted = frozenset({self.space.kind})
        if image is None:
            return self._new(one, wanted, rows)
        if not _same(image, one):
            raise InvalidInput(f"the store has another image under this id: {image.file_name}")
        return ImageWrite(
            image.image_id,
            image.sha256,
            image.width,
            image.height,
            wanted,
            rows,
            source=image.source,
            if_version=image.version,
        )

    def _new(self, one: OldImage, wanted: frozenset[str], rows: dict[Space, bytes]) -> ImageWrite:
        if one.file_name == f"{one.image_id}{ONLINE}" or self.pictures is None:
            source = "online" if one.file_name.endswith(ONLINE) else one.file_name
            return ImageWrite(
                one.image_id, unknown_content(one), 0, 0, wanted, rows, source=source, if_version=0
            )
        path = str((self.pictures / one.file_name).absolute())
        try:
            data = read_bytes(path, self.limits.max_bytes)
        except OSError as exc:
            raise InvalidInput(f"{path} can't be read: {exc.strerror or exc}") from exc
        header = read_header(data, self.limits)
        return ImageWrite(
            one.image_id,
            hashlib.sha256(data).hexdigest(),
            *header.size,
            wanted,
            rows,
            source=path,
            if_version=0,
            facts=header.facts,
        )


def row_from(extractor: Extractor) -> Callable[[bytes], bytes]:
    """How an old service's bytes become a row of this extractor."""
    return lambda row: extractor.to_row(from_old_bytes(extractor, row))


def unknown_content(one: OldImage) -> str:
    """What stands for the SHA-256 of a file that is not at hand; no file has it."""
    return hashlib.sha256(f"imported {one.image_id} {one.file_name!r}".encode()).hexdigest()


def _same(image: Image, one: OldImage) -> bool:
    return image.file_name == one.file_name
