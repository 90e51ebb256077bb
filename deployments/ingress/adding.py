"""Adds and deletes. The store alone acknowledges them, once they are durable."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from deployments.directory.entry import DirectoryEntry
from deployments.directory.retrievers import RetrieverDirectory
from deployments.ingress.report import Report
from indexes.store.base import ANNOTATE, Guard, Image, ImageWrite, Receipt, Space, Store
from models.errors import (
    AlreadyIndexed,
    AmbienceError,
    Conflict,
    InvalidInput,
    KeyLimited,
    Unavailable,
)
from models.pictures.decoder import Decoder
from models.pictures.decoding import Picture
from models.types import MAX_IMAGE_ID, FileFacts, Pixels, View

State = Literal["indexed", "pending"]
KEY_SECONDS = 24 * 3600.0
"""Seconds for which an idempotency key is kept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one retriever's features."""

    state: State
    reason: str | None = None

    def row(self) -> dict[str, str]:
        return {"state": self.state} | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True)
class Added:
    receipt: Receipt
    retrievers: Mapping[str, Outcome]


@dataclass(frozen=True, slots=True)
class ReadyWrite:
    """An add that is ready to be written, and the outcomes that follow when it is."""

    write: ImageWrite
    retrievers: Mapping[str, Outcome]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the worker thread makes of an upload in one call."""

    width: int
    height: int
    preview: bytes | None
    rows: Mapping[Space, bytes]
    facts: FileFacts | None
    views: Mapping[View, Pixels]


class CheckAgain(AmbienceError):
    """What was added during a check must be checked, too."""


class AddCheck(Protocol):
    """A check that may refuse an add."""

    def extract(self, picture: Picture) -> None:
        """Extract from the decoded picture what the check needs."""

    async def search(self) -> Guard | None:
        """Check what is stored. Returns the guard of the write, if it needs one, which raises
        CheckAgain if the check must be repeated; or raises an error to refuse."""


@dataclass(frozen=True, slots=True)
class AddOptions:
    """What an add keeps beside the picture, and on which conditions it is written."""

    metadata: Mapping[str, Any] | None = None
    upload_name: str | None = None
    check: AddCheck | None = None
    if_version: int | None = None
    """See `ImageWrite.if_version`."""


class ImageWriter:
    """Writes images and their features to the store."""

    def __init__(
        self,
        store: Store,
        directory: RetrieverDirectory,
        decoder: Decoder,
        add_deadline: float,
        previews: bool,
    ) -> None:
        self.store = store
        self.directory = directory
        self.decoder = decoder
        self.add_deadline = add_deadline
        self.previews = previews

    async def add(
        self,
        image_id: int | None,
        data: bytes,
        report: Report,
        options: AddOptions = AddOptions(),
    ) -> Added:
        """Add or replace an image, with the features of every enabled retriever.

        Waits up to `add_deadline` for retrievers that are ready; missing features, and all
        annotations, are completed later. Raises InvalidInput for an id out of range or a picture
        that can't be decoded, and Unavailable while no retriever is known.
        """
        ready = await self.prepare(image_id, data, report, options)
        if isinstance(ready, Added):
            return ready
        return await self._written(ready, report, options.check)

    async def prepare(
        self,
        image_id: int | None,
        data: bytes,
        report: Report,
        options: AddOptions = AddOptions(),
    ) -> Added | ReadyWrite:
        """Everything of an add but its write; `Added` where there is nothing to write. Raises what
        `add` raises, but for errors of its write."""
        check_id(image_id)
        wanted = self.directory.wanted()
        if not wanted:  # Acknowledged now, it would never be indexed.
            raise Unavailable("no retriever is known yet; try again in a second")
        annotators = self.directory.annotators()
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        if image_id is not None and options.metadata is None and options.if_version is None:
            there = await asyncio.to_thread(self.store.image, image_id)
            kinds = [*wanted, *_kinds(annotators)]
            if there is not None and _complete(there, sha256, kinds):
                receipt = Receipt(image_id, there.generation, there.generation, "unchanged")
                return Added(receipt, {name: Outcome("indexed") for name in wanted})
        return await self._ready(image_id, data, sha256, wanted, report, options, annotators)

    async def put_group(self, group: Sequence[ReadyWrite]) -> list[Added | AmbienceError]:
        """Write adds without checks in one transaction, in order, or all of them fail; only if one
        of them can't be written, each is written by itself."""
        try:
            receipts = await asyncio.to_thread(self.store.put_many, [one.write for one in group])
        except (InvalidInput, KeyLimited) as exc:
            if len(group) == 1:
                return [exc]
            return [added for one in group for added in await self.put_group([one])]
        except AmbienceError as exc:
            return [exc for _ in group]
        pairs = zip(receipts, group, strict=True)
        return [Added(receipt, one.retrievers) for receipt, one in pairs]

    async def add_kind(self, image_id: int, data: bytes, kind: str, report: Report) -> Added:
        """Add one kind of features.

        Raises AlreadyIndexed if the image has them, and Conflict if the id holds another picture.
        """
        check_id(image_id)
        self.directory.entry(kind)
        sha256 = hashlib.sha256(data).hexdigest()
        there = await asyncio.to_thread(self.store.image, image_id)
        if there is not None and kind in there.wanted:
            raise AlreadyIndexed("Image with the same id is already in the db", "image_id")
        if there is not None and there.sha256 != sha256:
            raise Conflict(f"id {image_id} holds another picture; delete it first", "image_id")
        ready = await self._ready(image_id, data, sha256, [kind], report)
        return await self._written(ready, report)

    async def claim_id(self, key: str, data: bytes) -> int:
        """The id under which this picture is added for an idempotency key. Raises KeyReused."""
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        return await asyncio.to_thread(self.store.claim_id, key, sha256, KEY_SECONDS)

    async def delete(self, image_id: int, if_version: int | None = None) -> bool:
        """Remove an image. Returns whether it existed."""
        check_id(image_id)
        return await asyncio.to_thread(self.store.delete, image_id, if_version) is not None

    async def delete_kind(self, image_id: int, kind: str) -> bool:
        """Remove one kind of features. Returns whether they existed."""
        check_id(image_id)
        return await asyncio.to_thread(self.store.delete_kind, image_id, kind) is not None

    async def _ready(
        self,
        image_id: int | None,
        data: bytes,
        sha256: str,
        wanted: Sequence[str],
        report: Report,
        options: AddOptions = AddOptions(),
        annotators: Sequence[DirectoryEntry] = (),
    ) -> ReadyWrite:
        entries = [self.directory.entry(name) for name in wanted]
        ready = [model for entry in entries for model in entry.models if _can_extract(model)]

        def prepare(picture: Picture) -> Prepared:
            report.truncated = report.truncated or picture.truncated
            if options.check is not None:
                options.check.extract(picture)
            return self._prepare(picture, ready)

        with report.timed("decode"):
            prepared = await self.decoder.decode(data, then=prepare)
        rows = dict(prepared.rows)
        reasons = await self._extract_in_replicas(prepared, ready, rows, report)
        have = await self._searchable_kinds(entries, rows)
        write = ImageWrite(
            image_id=image_id,
            sha256=sha256,
            width=prepared.width,
            height=prepared.height,
            wanted=frozenset([*wanted, *_kinds(annotators)]),
            features=rows,
            metadata=options.metadata,
            upload_name=options.upload_name,
            if_version=options.if_version,
            preview=prepared.preview,
            facts=prepared.facts,
            original=data if self._needs_original(wanted, annotators, have) else None,
        )
        return ReadyWrite(write, {name: self._outcome(name, have, reasons) for name in wanted})

    async def _written(
        self, ready: ReadyWrite, report: Report, check: AddCheck | None = None
    ) -> Added:
        with report.timed("store"):
            receipt = await self._put(ready.write, check)
        return Added(receipt, ready.retrievers)

    async def _put(self, write: ImageWrite, check: AddCheck | None) -> Receipt:
        """Write, if the check still accepts. It is repeated when a copy may have been added
        meanwhile."""
        while True:
            guard = None if check is None else await check.search()
            if guard is None:
                return await asyncio.to_thread(self.store.put, write)
            try:
                (receipt,) = await asyncio.to_thread(self.store.put_if, [write], guard)
                return receipt
            except CheckAgain:
                continue

    async def _searchable_kinds(
        self, entries: Sequence[DirectoryEntry], rows: Mapping[Space, bytes]
    ) -> set[str]:
        """Names of the retrievers that find the image; of two models, the one in use counts."""
        used = await self.directory.with_active_models(
            [entry for entry in entries if entry.next is not None]
        )
        lacking = {one.name for one in used if Space(one.name, one.fingerprint) not in rows}
        return {space.kind for space in rows} - lacking

    def _needs_original(
        self, wanted: Sequence[str], annotators: Sequence[DirectoryEntry], have: set[str]
    ) -> bool:
        """Whether what is missing needs more than the preview.

        Features always do: the preview is a JPEG, whose features differ slightly.
        """
        if not have.issuperset(wanted) or (annotators and not self.previews):
            return True
        described = (entry.description for entry in annotators)
        return any(one is None or one.view != "preview" for one in described)

    def _prepare(self, picture: Picture, ready: Sequence[DirectoryEntry]) -> Prepared:
        rows: dict[Space, bytes] = {}
        views: dict[View, Pixels] = {}
        for entry in ready:
            assert entry.description is not None
            view = entry.description.view
            if entry.extractor is None:
                views[view] = picture.view(view)
                continue
            features = entry.extractor.extract(picture.view(view))
            rows[Space(entry.name, entry.extractor.fingerprint)] = entry.extractor.to_row(features)
        preview = picture.preview_jpeg() if self.previews else None
        return Prepared(picture.width, picture.height, preview, rows, picture.facts, views)

    async def _extract_in_replicas(
        self,
        prepared: Prepared,
        ready: Sequence[DirectoryEntry],
        rows: dict[Space, bytes],
        report: Report,
    ) -> dict[str, str]:
        """Extract features in replicas, all at once. Returns the reasons of those that did not
        answer."""
        reasons: dict[str, str] = {}

        async def one(entry: DirectoryEntry) -> None:
            assert entry.description is not None
            pixels = prepared.views[entry.description.view]
            try:
                with report.timed(entry.name):
                    answer = await self.directory.extract(entry, pixels, self.add_deadline)
            except AmbienceError as exc:
                reasons[entry.name] = str(exc)
                return
            rows[Space(entry.name, answer.fingerprint)] = answer.row

        await asyncio.gather(*(one(entry) for entry in ready if entry.extractor is None))
        return reasons

    def _outcome(self, name: str, have: set[str], reasons: Mapping[str, str]) -> Outcome:
        if name in have:
            return Outcome("indexed")
        return Outcome("pending", reasons.get(name) or self.directory.entry(name).reason)


def check_id(image_id: int | None) -> None:
    """Raises InvalidInput unless the id is None or in [0, 2^47)."""
    if image_id is not None and not 0 <= image_id <= MAX_IMAGE_ID:
        raise InvalidInput(f"image_id must lie in 0..{MAX_IMAGE_ID}", "image_id")


def _kinds(annotators: Sequence[DirectoryEntry]) -> list[str]:
    return [ANNOTATE + entry.name for entry in annotators]


def _can_extract(entry: DirectoryEntry) -> bool:
    """Whether its features can be extracted now; extraction in the ingress needs no replica."""
    return entry.extractor is not None or entry.reason is None


def _complete(image: Image, sha256: str, wanted: Sequence[str]) -> bool:
    return image.sha256 == sha256 and image.wanted >= set(wanted) and image.facts is not None
