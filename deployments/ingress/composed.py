"""Composed queries over the store and the retrievers: which images their tags and exact texts
allow, and which of their parts could not be applied."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.directory.entry import DirectoryEntry
from deployments.grammar import Kind, Part, error, parse
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.ingress.searching import RetrieverCall, SearchScope
from deployments.queries import MAX_QUERIES, Filter, SearchQuery
from deployments.wire import CompositeQuery
from indexes.base import MAX_K
from indexes.store.base import ANNOTATIONS, Store
from indexes.text.words import passages_of, words_of
from models.errors import AmbienceError, RetrieverUnavailable

MOST: Mapping[Kind, tuple[int, str]] = {
    "image": (MAX_QUERIES, "images"),
    "tag": (100, "tags"),
    "exact": (8, "exact texts"),
}
"""Number of parts of a kind in one query, at most; each exact text costs a search."""
EXACTLY = {"match": ["exact"], "distance_threshold": 1e-6, "k": MAX_K}
"""Parameters of a search for images that have all of these words."""
UNREAD = "no retriever that is asked searches by words"
UNAVOIDED = "no retriever that is asked avoids words"
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Unapplied:
    """A part of a composed query that the answer does not take into account."""

    part: Part
    reason: str

    def row(self, query: str) -> dict[str, Any]:
        """The part as JSON."""
        begin, end = self.part.at
        return {"part": query[begin:end], "at": [begin, end], "reason": self.reason}


@dataclass(frozen=True, slots=True)
class ComposedQuery:
    """A composed query and its parts."""

    written: str
    parts: Sequence[Part]

    @classmethod
    def read(cls, written: str) -> ComposedQuery:
        """Raises MalformedQuery."""
        composed = cls(written, parse(written))
        for kind, (most, what) in MOST.items():
            some = [part for part in composed.parts if part.kind == kind]
            if len(some) > most:
                raise error(f"more than {most} {what}", some[most].at[0])
        return composed

    def of(self, kind: Kind, minus: bool = False) -> list[Part]:
        return [part for part in self.parts if part.kind == kind and part.minus == minus]

    @property
    def is_plain(self) -> bool:
        """Whether it is text without any marks."""
        return all(part.is_plain for part in self.parts)

    def words(self, minus: bool = False) -> str | None:
        """Its words; as they were written, with all spaces, where it is nothing else."""
        if self.is_plain:
            return self.written if self.parts and not minus else None
        return " ".join(part.text for part in self.of("word", minus)) or None

    def image_ids(self, minus: bool = False) -> list[int]:
        return [int(part.text) for part in self.of("image", minus)]

    def check_positive(self) -> None:
        """Raises MalformedQuery if there is nothing to search by."""
        if any(not part.minus and part.kind != "tag" for part in self.parts):
            return
        what = "there is nothing to search by: add words, an image such as ~123, or a quoted text"
        raise error(what, self.parts[0].at[0] if self.parts else 0)

    def merged(self, query: SearchQuery) -> SearchQuery:
        """The query with the words and images of this one as its own."""
        negative = query.negative
        avoided = " ".join(filter(None, (negative.text, self.words(minus=True)))) or None
        ids = [*negative.image_ids, *self.image_ids(minus=True)]
        changed = negative.model_copy(update={"text": avoided, "image_ids": ids})
        images = [*query.image_ids, *self.image_ids()]
        return query.model_copy(
            update={"text": self.words(), "image_ids": images, "negative": changed}
        )

    def unanswered(self, entries: Sequence[DirectoryEntry], report: Report) -> list[Unapplied]:
        """Its words that no retriever took into account, and why."""
        readers = [entry for entry in entries if may_read_text(entry)]
        adding = [entry for entry in readers if entry.description and entry.description.additive]
        asked = (
            (self.of("word"), readers, UNREAD),
            (self.of("word", minus=True), adding, UNAVOIDED),
        )
        answered = report.answered - report.missing.keys()
        return [
            Unapplied(part, _reasons(able, report) or otherwise)
            for parts, able, otherwise in asked
            if not any(entry.name in answered for entry in able)
            for part in parts
        ]


def may_read_text(entry: DirectoryEntry) -> bool:
    """Whether the retriever may read text. One that has not described itself yet is called, and
    named as missing."""
    return entry.description is None or entry.description.reads_text


async def narrowed(
    gateway: Gateway, composed: ComposedQuery, scope: SearchScope, report: Report
) -> tuple[SearchScope, list[Unapplied]]:
    """The scope without images that the tags and exact texts of a query exclude.

    Exact texts without a retriever that finds them are not applied. Raises MalformedQuery for a tag
    that no image has.
    """
    unapplied = []
    for part in composed.parts:
        if part.kind == "tag":
            ids = await asyncio.to_thread(_tagged, gateway.store, part)
        elif part.kind == "exact":
            try:
                ids = await _with_text(gateway, part.text, scope, report)
            except AmbienceError as exc:
                unapplied.append(Unapplied(part, str(exc)))
                continue
        else:
            continue
        if part.minus:
            all_ids = scope.allowed
            if all_ids is None:
                nothing = Filter()
                all_ids = await asyncio.to_thread(
                    gateway.columns.matching, gateway.store, nothing, None
                )
            allowed = np.setdiff1d(all_ids, ids)
        else:
            allowed = ids if scope.allowed is None else np.intersect1d(scope.allowed, ids)
        scope = replace(scope, allowed=allowed)
    return scope, unapplied


def check_images(store: Store, composed: ComposedQuery) -> None:
    """Raises MalformedQuery for an unknown image."""
    parts = [part for part in composed.parts if part.kind == "image"]
    there = store.images_by_id([int(part.text) for part in parts]) if parts else {}
    for part in parts:
        if int(part.text) not in there:
            raise error(f"no image {part.text}", part.at[0])


def _tagged(store: Store, part: Part) -> Ids:
    ids = store.ids_by_metadata({"tags": part.text})
    if not ids and not part.minus:
        raise error(f"no image has the tag {part.text!r}", part.at[0])
    return np.asarray(ids, np.int64)


async def _with_text(gateway: Gateway, text: str, scope: SearchScope, report: Report) -> Ids:
    """Ids, ascending, of the images in whose annotations this text stands, word by word.

    Raises AmbienceError where no retriever tells.
    """
    entries = await gateway.entries_named()
    readers = [entry for entry in entries if not entry.of_pictures]
    if not readers:
        raise RetrieverUnavailable("no retriever of annotations is deployed")
    call = RetrieverCall(readers[0], EXACTLY, composite=CompositeQuery(text=text))
    hits = await gateway.searcher.search(call, scope, report)
    ids = [hit.image_id for hit in hits]
    rows = await asyncio.to_thread(gateway.store.rows, ANNOTATIONS, ids)
    found = [at for at, row in rows.items() if stands_in(text, row)]
    return np.unique(np.asarray(found, np.int64))


def stands_in(text: str, row: bytes) -> bool:
    """Whether the words of a text follow each other in one passage of a row of annotations."""
    wanted = [word.folded for word in words_of(text)]
    for passage in passages_of(np.frombuffer(row, np.uint8)):
        words = [word.folded for word in words_of(passage.text)]
        begins = range(len(words) - len(wanted) + 1)
        if any(words[begin : begin + len(wanted)] == wanted for begin in begins):
            return True
    return False


def _reasons(able: Sequence[DirectoryEntry], report: Report) -> str:
    missing = report.missing
    return "; ".join(f"{one.name}: {missing[one.name]}" for one in able if one.name in missing)
