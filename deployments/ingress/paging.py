"""Pages of the hits of a fused search: their order, their cursors, and hits folded into others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from deployments.ingress.gateway import Gateway
from deployments.ingress.listing.collapsing import PHASH
from deployments.ingress.listing.cursors import packed, unpacked
from deployments.ingress.listing.rows import facts_row, iso_time
from deployments.ingress.report import Report
from deployments.queries import SearchQuery, Sort
from indexes.ranking.fusion import FusedHit
from indexes.store.base import Image
from models.errors import InvalidInput, StoreUnavailable

log = logging.getLogger(__name__)
MAX_OFFSET = 10_000


class Place(NamedTuple):
    """Where an image stands in an order by date."""

    seconds: float
    image_id: int


Start = int | Place
"""Where a page begins: by relevance at an offset; by date after the last hit of the page before."""


@dataclass(frozen=True, slots=True)
class HitPage:
    """One page of hits."""

    hits: Sequence[FusedHit]
    images: Mapping[int, Image]
    """Their rows; those of images that were deleted meanwhile, or can't be read, are left out."""
    copies: Mapping[int, Sequence[int]]
    """By id, the ids of the hits that are folded into a hit."""
    next_cursor: str | None
    unapplied: Sequence[Mapping[str, Any]] = ()
    """Parts of a composed query that are not taken into account."""

    def row(self) -> dict[str, Any]:
        """The page as JSON."""
        more = {"unapplied": self.unapplied} if self.unapplied else {}
        hits = [self._hit(hit) for hit in self.hits]
        return {"hits": hits, "next_cursor": self.next_cursor, **more}

    def _hit(self, hit: FusedHit) -> dict[str, Any]:
        row = hit.row()
        image = self.images.get(hit.image_id)
        if image is not None:
            told = facts_row(image.facts)
            row |= {name: told[name] for name in ("format", "bytes", "taken") if name in told}
            row |= {"width": image.width, "height": image.height, "file_name": image.file_name}
            row["created"] = iso_time(image.created)
        if copies := self.copies.get(hit.image_id):
            row["copies"] = {"count": len(copies), "image_ids": list(copies)}
        return row


async def paged(
    gateway: Gateway, query: SearchQuery, start: Start, hits: Sequence[FusedHit], report: Report
) -> HitPage:
    """The page of these hits, best first, that begins at `start`.

    Hits are folded from the first on, so that a later page does not show what an earlier one
    folded. Raises StoreUnavailable where the order or the folding needs the store.
    """
    images: Mapping[int, Image] = {}
    if query.sort != "relevance" or query.collapse:
        ids = [hit.image_id for hit in hits]
        images = await asyncio.to_thread(gateway.store.images_by_id, ids)
    if query.sort != "relevance":
        hits = _by_date([hit for hit in hits if hit.image_id in images], images, query.sort)
    by_id = {hit.image_id: hit for hit in hits}
    folded: Iterable[tuple[int, Sequence[int]]] = ((at, ()) for at in by_id)
    if query.collapse:
        folded = gateway.folding.folded(
            gateway.store, list(by_id), images, await _fingerprint_of_hashes(gateway)
        )
    after = folded
    if isinstance(start, Place):
        after = (one for one in folded if _is_after(_place(images[one[0]]), start, query.sort))
    else:
        after = islice(folded, start, None)
    if query.collapse:
        with report.timed("collapse"):
            taken = await gateway.decoder.run(lambda: list(islice(after, query.k + 1)))
    else:
        taken = list(islice(after, query.k + 1))
    shown = taken[: query.k]
    if not images:
        images = await _rows(gateway, [at for at, _ in shown])
    cursor = None
    if len(taken) > query.k:
        cursor = (
            encode_cursor(start + query.k)
            if isinstance(start, int) and query.sort == "relevance"
            else _encoded(_place(images[shown[-1][0]]), query.sort)
        )
    return HitPage([by_id[at] for at, _ in shown], images, dict(shown), cursor)


async def _fingerprint_of_hashes(gateway: Gateway) -> str | None:
    if PHASH not in gateway.directory.enabled():
        return None
    (entry,) = await gateway.entries_named([PHASH])
    return None if entry.description is None else entry.description.fingerprint


async def _rows(gateway: Gateway, image_ids: Sequence[int]) -> Mapping[int, Image]:
    """Image rows by id; none while the store does not answer, which costs the hits no place."""
    try:
        return await asyncio.to_thread(gateway.store.images_by_id, image_ids)
    except StoreUnavailable as exc:
        log.warning("hits are shown without their rows: %s", exc)
        return {}


def _place(image: Image) -> Place:
    """By the date taken, else that of the add."""
    taken = None if image.facts is None else image.facts.taken
    return Place(image.created if taken is None else taken, image.image_id)


def _by_date(
    hits: Sequence[FusedHit], images: Mapping[int, Image], sort: Sort
) -> Sequence[FusedHit]:
    return sorted(hits, key=lambda hit: _place(images[hit.image_id]), reverse=sort == "newest")


def _is_after(place: Place, start: Place, sort: Sort) -> bool:
    return place < start if sort == "newest" else place > start


def encode_cursor(offset: int) -> str:
    """An opaque cursor for the next page's offset."""
    return packed(f"o{offset}")


def decode_cursor(cursor: str | None) -> int:
    """The offset of a cursor. Raises InvalidInput for a cursor that `encode_cursor` did not
    make."""
    start = decode_start(cursor, "relevance")
    assert isinstance(start, int)
    return start


def decode_start(cursor: str | None, sort: Sort) -> Start:
    """Where the page of a cursor begins. Raises InvalidInput for a cursor that does not come from
    an answer in this order."""
    if cursor is None:
        return 0
    text = unpacked(cursor) or ""
    kind, rest = text[:1], text[1:]
    try:
        if kind == "o" and sort == "relevance" and 0 <= int(rest) <= MAX_OFFSET:
            return int(rest)
        if kind == sort[0] and sort != "relevance":
            seconds, _, image_id = rest.partition(":")
            return Place(float.fromhex(seconds), int(image_id))
    except (ValueError, OverflowError) as exc:
        raise _foreign() from exc
    raise _foreign()


def _encoded(place: Place, sort: Sort) -> str:
    return packed(f"{sort[0]}{place.seconds.hex()}:{place.image_id}")


def _foreign() -> InvalidInput:
    return InvalidInput(
        "cursor: pass on the next_cursor of a previous answer, with the same sort", "cursor"
    )
