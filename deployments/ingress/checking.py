"""The import check: whether a picture is new, known, better than what is there, or banned."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from deployments.directory.entry import DirectoryEntry
from deployments.ingress.banning import Ban, ban_of
from deployments.ingress.copies import Copy, blocking, search_copies
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.ingress.searching import QueryPicture
from indexes.relation.enlargement import is_enlarged
from indexes.relation.judging import VERIFIED, Kind
from indexes.store.base import Image
from models.pictures.decoding import Picture
from models.types import FileFacts, Pixels

Outcome = Literal["new", "known", "better", "banned"]
MORE_PIXELS = 1.05
"""Ratio of pixels from which a copy is larger."""
MORE_QUALITY = 5
"""By how much the quality of a JPEG exceeds that of one that is compressed more."""
MORE_BYTES = 1.25
"""Ratio of bytes from which a file of the same size and format is compressed less."""
LOSSLESS = frozenset({"PNG", "BMP", "PNM", "TIFF", "QOI", "TGA", "PSD"})


@dataclass(frozen=True, slots=True)
class CheckedPicture:
    """A picture of a check, decoded once."""

    query: QueryPicture
    width: int
    height: int
    facts: FileFacts | None
    truncated: bool
    gray: Pixels
    """All of it, with a long side of at most 2048 pixels."""

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Checked:
    """What the check says of one picture."""

    outcome: Outcome
    picture: CheckedPicture
    copy: Copy | None = None
    """The stored image that it relates to, if there is one."""
    image: Image | None = None
    ban: Ban | None = None
    why: str | None = None
    """Of a better picture: in what."""

    def row(self) -> dict[str, Any]:
        """The result as JSON, without what is not known."""
        row: dict[str, Any] = {"outcome": self.outcome}
        if self.ban is not None:
            row |= self.ban.row()
        elif self.copy is not None:
            relation = self.copy.relation
            row |= {"image_id": self.copy.hit.image_id, **relation.row()}
            row["confidence"] = relation.confidence
        if self.why is not None:
            row["why"] = self.why
        one = self.picture
        row["picture"] = _file_row(one.width, one.height, one.facts)
        if self.image is not None and self.ban is None:
            row["image"] = _file_row(self.image.width, self.image.height, self.image.facts)
        return row | ({"truncated": True} if one.truncated else {})


async def check_picture(
    gateway: Gateway,
    entries: Sequence[DirectoryEntry],
    data: bytes,
    replaced: int | None,
    report: Report,
) -> Checked:
    """Check a picture, which may replace the image `replaced`. `entries` are those of
    `copies.ready_entries`. Raises Unavailable, and what the decoder raises."""

    def prepared(picture: Picture) -> CheckedPicture:
        query = gateway.searcher.query_picture(picture, entries, "dihedral")
        gray = cv2.cvtColor(picture.full, cv2.COLOR_RGB2GRAY)
        size = picture.width, picture.height
        return CheckedPicture(query, *size, picture.facts, picture.truncated, np.asarray(gray))

    with report.timed("decode"):
        one = await gateway.decoder.decode(data, then=prepared)
    sha256 = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
    ban, query = await ban_of(gateway, one.query, sha256, report)
    if ban is not None:
        return Checked("banned", one, ban=ban)
    scope = await gateway.search_scope()
    found = await search_copies(gateway, entries, query, scope, report, VERIFIED)
    copies = [copy for copy in found if copy.hit.image_id != replaced]
    ids = [copy.hit.image_id for copy in copies]
    images = await asyncio.to_thread(gateway.store.images_by_id, ids) if ids else {}
    copies = [copy for copy in copies if copy.hit.image_id in images]
    blocks = blocking(gateway.args.import_check.blocks, truncated=one.truncated)
    return await gateway.decoder.run(judged, one, copies, images, blocks)


def judged(
    one: CheckedPicture,
    copies: Sequence[Copy],
    images: dict[int, Image],
    blocks: frozenset[Kind],
) -> Checked:
    """The outcome, given all copies, best first."""
    if not copies:
        return Checked("new", one)
    refusing = [copy for copy in copies if copy.relation.kind in blocks]
    same = [
        copy
        for copy in copies
        if copy.relation.kind == "same" and "bordered" not in copy.relation.changes
    ]
    reasons = [gain(one, images[copy.hit.image_id]) for copy in same]
    if same and None not in reasons:
        return Checked("better", one, same[0], images[same[0].hit.image_id], why=reasons[0])
    equal = [copy for copy, reason in zip(same, reasons, strict=True) if reason is None]
    named = next((copy for copy in equal if copy in refusing), (refusing or copies)[0])
    image = images[named.hit.image_id]
    return Checked("known" if refusing else "new", one, named, image)


def gain(one: CheckedPicture, image: Image) -> str | None:
    """In what a copy is better than an image: pixels first, then compression; None in nothing."""
    stored = image.width * image.height
    if one.pixels > stored * MORE_PIXELS:
        # One that was only enlarged shows nothing that the stored image does not.
        if is_enlarged(one.gray, max(image.width, image.height) / max(one.gray.shape)):
            return None
        return f"{one.width}×{one.height} pixels instead of {image.width}×{image.height}"
    if one.pixels * MORE_PIXELS < stored or one.truncated:
        return None
    return None if one.facts is None or image.facts is None else _less(one.facts, image.facts)


def _less(facts: FileFacts, other: FileFacts) -> str | None:
    """How a file shows that it is compressed less than another one of the same size."""
    if (facts.format in LOSSLESS) != (other.format in LOSSLESS):
        return f"{facts.format} instead of {other.format}" if facts.format in LOSSLESS else None
    if facts.quality is not None and other.quality is not None:
        more = facts.quality >= other.quality + MORE_QUALITY
        return f"JPEG quality {facts.quality} instead of {other.quality}" if more else None
    alike = facts.format == other.format and facts.format not in LOSSLESS
    more = alike and facts.bytes > other.bytes * MORE_BYTES
    return f"{facts.bytes:,} bytes instead of {other.bytes:,}" if more else None


def _file_row(width: int, height: int, facts: FileFacts | None) -> dict[str, Any]:
    row: dict[str, Any] = {"width": width, "height": height}
    if facts is not None:
        row |= {"format": facts.format, "bytes": facts.bytes}
        row |= {} if facts.quality is None else {"quality": facts.quality}
    return row
