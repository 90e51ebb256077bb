"""The gateway: everything that the routes share, that is, the store, the directory, adds and
searches."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt
from starlette.requests import Request

from deployments.directory.entry import DirectoryEntry
from deployments.directory.retrievers import RetrieverDirectory
from deployments.ingress.adding import ImageWriter
from deployments.ingress.defaults import DefaultsReader
from deployments.ingress.listing.collapsing import Folding
from deployments.ingress.listing.columns import ImageColumns
from deployments.ingress.searching import Searcher, SearchScope
from deployments.queries import Filter
from deployments.settings import IngressArgs, store_url
from deployments.storing import open_here
from deployments.tombstones.index import TombstoneIndex
from deployments.wire import Kind
from indexes.relation.comparison import warm_up
from indexes.store.base import ANNOTATE, Image, Store
from indexes.store.tagged.store import TaggedStore
from models.errors import InvalidInput, StoreUnavailable
from models.pictures.decoder import Decoder

Ids = Sequence[int] | npt.NDArray[np.int64]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """The conditions of a list of images."""

    of: Filter
    file_name: str | None = None
    sha256: str | None = None


class Gateway:
    """The state of the ingress replica."""

    def __init__(self, args: IngressArgs, application: str) -> None:
        self.args = args
        self.decoder = Decoder(args.decode_limits())
        store = open_here(store_url(args.store))
        self._limited: dict[str, Gateway] = {}
        self._hold(store)
        self._direct(RetrieverDirectory(application, store.active))

    def limited_to(self, tag: str | None) -> Gateway:
        """The gateway of one request: for a key that is limited to a tag, one for which no other
        images exist."""
        if tag is None:
            return self
        if tag not in self._limited:
            self._limited[tag] = copy.copy(self)
            self._limited[tag]._hold(TaggedStore(self.store, tag))
        limited = copy.copy(self._limited[tag])
        limited._direct(self.directory.limited_to(tag))
        return limited

    def _hold(self, store: Store) -> None:
        """Use a store, with all that is kept in memory of it."""
        self.store = store
        self.defaults = DefaultsReader(store)
        self.tombstones = TombstoneIndex(store)
        self.columns = ImageColumns()
        self.folding = Folding()

    def _direct(self, directory: RetrieverDirectory) -> None:
        """Use a directory, for searches and adds."""
        args = self.args
        self.directory = directory
        self.searcher = Searcher(directory, self.decoder, args.retriever_deadline)
        self.writer = ImageWriter(
            self.store, directory, self.decoder, args.add_deadline, args.previews
        )

    async def warm_up(self) -> None:
        """Compile what compares pictures, before the first search."""
        await asyncio.to_thread(warm_up)

    def close(self) -> None:
        """End the decoder's children and close the store."""
        self.decoder.close()
        self.store.close()

    async def search_scope(
        self, wanted: Filter | None = None, min_seq: int | None = None, stale_ok: bool = False
    ) -> SearchScope:
        """The scope of a search that begins now: its deadline, the ids that its filter allows, its
        freshness.

        The head is read once for all retrievers; one that has applied it need not ask the store.
        """
        until = time.monotonic() + self.args.deadline
        allowed = await asyncio.to_thread(self._allowed, wanted) if wanted is not None else None
        if stale_ok:
            return SearchScope(until, allowed, min_seq or 0, stale_ok)
        try:
            head = await asyncio.to_thread(self.store.head)
        except StoreUnavailable as exc:
            log.warning("searches are answered from memory: %s", exc)
            return SearchScope(until, allowed, stale_ok=True, stale=True)
        return SearchScope(until, allowed, max(head, min_seq or 0))

    async def larger_than(self, scope: SearchScope, pixels: int) -> SearchScope:
        """The scope without images that have no more than so many pixels."""
        allowed = await asyncio.to_thread(self.columns.matching, self.store, Filter(), pixels)
        if scope.allowed is not None:
            allowed = np.intersect1d(allowed, scope.allowed, assume_unique=True)
        return replace(scope, allowed=allowed)

    async def unready(self) -> dict[str, str]:
        """Why /readyz fails: required parts that do not answer → reason."""
        reasons = {}
        try:
            await asyncio.to_thread(self.store.head)
        except StoreUnavailable as exc:
            reasons["store"] = str(exc)
        if self.directory.coming or not self.directory.complete:
            reasons["applications"] = "not all are deployed yet"
        there = {entry.name: entry for entry in await self.entries_named()}
        for name in self.args.required:
            incomplete_reason = there[name].incomplete_reason if name in there else "not deployed"
            if incomplete_reason is not None:
                reasons[name] = incomplete_reason
        return reasons

    async def entries_named(self, names: Sequence[str] | None = None) -> list[DirectoryEntry]:
        """Entries of these retrievers, or of all enabled ones, under the models that searches use
        now. Raises UnknownName."""
        entries = [self.directory.entry(name) for name in names or self.directory.enabled()]
        return await self.directory.with_active_models(entries)

    def pending_reason(self, image: Image, kind: str) -> str:
        """Why an image has no features, or annotations, of this kind yet."""
        name = kind.removeprefix(ANNOTATE)
        of: Kind = "annotator" if name != kind else "retriever"
        if name not in self.directory.enabled(of):
            return "not deployed"
        entry = self.directory.entry(name, of)
        if entry.reason is not None:
            return entry.reason
        views = {one.description.view for one in entry.models if one.description is not None}
        if image.has_original or (image.has_preview and "preview" in views):
            return "being completed"
        return "original needed"

    def ids_matching(self, wanted: ImageFilter) -> npt.NDArray[np.int64] | None:
        """The ids, ascending, of the images that meet all conditions; None without a condition."""
        sets = self._sets(wanted.of)
        if wanted.file_name is not None:
            sets.append(self.store.ids_by_file_name(wanted.file_name))
        if wanted.sha256 is not None:
            sets.append(self.store.ids_by_sha256(wanted.sha256.lower()))
        return _intersection(sets)

    def _allowed(self, wanted: Filter) -> npt.NDArray[np.int64] | None:
        sets, tags = self._sets(wanted), wanted.tags or []
        for tag, ids in zip(reversed(tags), reversed(sets), strict=False):
            if not len(ids):
                raise InvalidInput(f"filter.tags: no image has the tag {tag!r}", "filter.tags")
        return _intersection(sets)

    def _sets(self, wanted: Filter) -> list[Ids]:
        """For each condition, the ids of the images that meet it; those of the tags are last."""
        sets: list[Ids] = [] if wanted.ids is None else [wanted.ids]
        if wanted.metadata:
            sets.append(self.store.ids_by_metadata(wanted.metadata))
        if wanted.of_rows:
            sets.append(self.columns.matching(self.store, wanted, None))
        return sets + [self.store.ids_by_metadata({"tags": tag}) for tag in wanted.tags or ()]


def gateway_of(request: Request) -> Gateway:
    """The gateway for a request: that of the tag to which its key is limited, if it is.

    It is the only way to the store; a request that was not admitted has none.
    """
    whole: Gateway = request.app.state.unlimited_gateway
    return whole.limited_to(request.state.tag)


def _intersection(sets: Sequence[Ids]) -> npt.NDArray[np.int64] | None:
    return (
        reduce(np.intersect1d, [np.unique(np.asarray(ids, np.int64)) for ids in sets])
        if sets
        else None
    )
