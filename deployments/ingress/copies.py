"""Copies of a picture among the stored ones, and adds that a stored copy refuses.

The hash proposes images, under all 8 flips and rotations; comparing the pictures decides. Pictures
without edges, whose hashes mean nothing, are proposed by colour, and pictures with borders or at
other angles by local features.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deployments.directory.entry import DirectoryEntry
from deployments.ingress.adding import AddCheck, CheckAgain
from deployments.ingress.banning import BanCheck, ban_of, refuse_banned
from deployments.ingress.gateway import Gateway
from deployments.ingress.relating import NEAREST_COLORS, relate_hits
from deployments.ingress.report import Report
from deployments.ingress.searching import COLOR, QueryPicture, RetrieverCall, SearchScope
from indexes.base import Hit
from indexes.relation.judging import Kind, Relation
from indexes.store.base import Guard, Space
from models.errors import DuplicatePicture
from models.pictures.decoding import Picture

PHASH = "phash"
COPY_DISTANCE = 64
"""Copies differ in fewer than this many of 576 bits."""
CODE_BYTES = 72
LOCAL = "local"
PROPOSING: Mapping[str, Mapping[str, Any]] = {
    PHASH: {"distance_threshold": COPY_DISTANCE},
    COLOR: {"k": NEAREST_COLORS},
    LOCAL: {"k": 32, "aligned": True},
}
"""Parameters of the retrievers that propose copies."""
SAME: frozenset[Kind] = frozenset({"same"})


class Copy(NamedTuple):
    """A stored image that is a copy."""

    hit: Hit
    relation: Relation


async def find_copies(
    gateway: Gateway, data: bytes, report: Report, until: float
) -> list[Copy] | None:
    """Stored copies of a picture under all 8 flips and rotations, best first; None if there are
    none, but it was deleted to stay away.

    Copies are images with a relation that `import_check.blocks` names. Waits for phash until a
    monotonic time. Raises Unavailable.
    """
    entries = await ready_entries(gateway, until)
    picture = await gateway.searcher.prepare(data, entries, "dihedral", report)
    blocks = blocking(gateway.args.import_check.blocks, truncated=report.truncated)
    scope = await gateway.search_scope()
    copies = await search_copies(gateway, entries, picture, scope, report, blocks)
    if not copies:
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        ban, _ = await ban_of(gateway, picture, sha256, report)
        if ban is not None:
            return None
    return copies


def blocking(kinds: Collection[Kind], *, truncated: bool) -> frozenset[Kind]:
    """The relations that block. A file that is cut short differs where its rest is missing, so with
    `same` also `edited` tells of a copy."""
    return frozenset({*kinds, "edited"} if truncated and "same" in kinds else kinds)


async def add_check(
    gateway: Gateway, image_id: int | None, data: bytes, report: Report, *, unless_same: bool
) -> AddCheck | None:
    """The check of an add under this id: for copies, and for what was deleted to stay away.

    Without `unless_same` only for the latter, where the configuration says so. Waits for phash;
    raises Unavailable.
    """
    if not unless_same and not gateway.args.import_check.adds:
        return None
    until = time.monotonic() + gateway.args.deadline
    entries = await ready_entries(gateway, until)
    sha256 = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
    if unless_same:
        return CopyCheck(gateway, entries, image_id, sha256, report)
    return BanCheck(gateway, entries, sha256, report)


class CopyCheck:
    """Refuses to add a picture of which there is a copy, also one that is added meanwhile."""

    def __init__(
        self,
        gateway: Gateway,
        entries: Sequence[DirectoryEntry],
        image_id: int | None,
        sha256: str,
        report: Report,
    ) -> None:
        self._gateway = gateway
        self._entries = entries
        self._image_id = image_id
        """Id of the image that is replaced; it may be a copy."""
        self._sha256 = sha256
        self._report = report
        self._picture: QueryPicture | None = None
        self.blocks = frozenset[Kind]()
        """The relations that refuse."""

    @property
    def picture(self) -> QueryPicture:
        """The picture, once it was extracted."""
        assert self._picture is not None
        return self._picture

    @property
    def space(self) -> Space:
        """The space of its hashes."""
        return Space(PHASH, self.picture.fingerprints[PHASH])

    def extract(self, picture: Picture) -> None:
        """Extract the picture's hashes under all 8 flips and rotations."""
        self._picture = self._gateway.searcher.query_picture(picture, self._entries, "dihedral")
        self.blocks = blocking(SAME, truncated=picture.truncated)

    async def search(self) -> Guard:
        """Search for copies; the guard then checks what is added after the search, and raises
        CheckAgain if that may be a copy.

        Raises DuplicatePicture, and BannedPicture.
        """
        copies, seq = await self.find()
        if copies:
            raise duplicate(copies[0].hit.image_id, copies[0].relation)
        return Guard(self.space, seq, self._check)

    async def find(self) -> tuple[list[Copy], int]:
        """The stored copies, best first, but for the image that is replaced; and the log's head
        before they were searched for. Raises BannedPicture."""
        self._picture = await refuse_banned(self._gateway, self.picture, self._sha256, self._report)
        scope = await self._gateway.search_scope()
        copies = await search_copies(
            self._gateway, self._entries, self._picture, scope, self._report, self.blocks
        )
        return [copy for copy in copies if copy.hit.image_id != self._image_id], scope.min_seq

    def suspect(self, rows: Mapping[int, bytes]) -> int | None:
        """The id of one of these hashes, by id, that may be of a copy; None if none is."""
        variants = np.stack([code[:CODE_BYTES] for code in self.picture.features[PHASH]])
        smooth = self.picture.side is not None and self.picture.side.smooth
        for image_id, row in rows.items():
            distance = np.bitwise_count(variants ^ np.frombuffer(row, np.uint8)).sum(axis=1).min()
            if image_id != self._image_id and (smooth or distance < COPY_DISTANCE):
                return image_id
        return None

    def _check(self, rows: Mapping[int, bytes]) -> None:
        if (image_id := self.suspect(rows)) is not None:
            raise CheckAgain(f"image {image_id} may be the same picture")


def duplicate(image_id: int, relation: Relation) -> DuplicatePicture:
    """The refusal of a picture of which this image is a copy."""
    return DuplicatePicture(
        f"image {image_id} is the same picture ({relation.words})", "image", image_id
    )


async def ready_entries(gateway: Gateway, until: float) -> list[DirectoryEntry]:
    """The entries of phash and of the other retrievers that propose copies, if deployed."""
    await gateway.directory.wait_ready(PHASH, until)
    enabled = gateway.directory.enabled()
    return await gateway.entries_named([name for name in (PHASH, COLOR, LOCAL) if name in enabled])


async def search_copies(
    gateway: Gateway,
    entries: Sequence[DirectoryEntry],
    picture: QueryPicture,
    scope: SearchScope,
    report: Report,
    blocks: Collection[Kind],
) -> list[Copy]:
    """Copies that the hash proposes; if there are none, those that colour (of pictures without
    edges) or local features propose."""
    phash, *others = entries
    picture = picture.proposing()
    call = RetrieverCall(phash, PROPOSING[PHASH], picture=picture)
    hits = await gateway.searcher.search(call, scope, report)
    copies = await _related_copies(gateway, [call], [hits], report, blocks)
    wanted = COLOR if picture.side is not None and picture.side.smooth else LOCAL
    calls = [
        RetrieverCall(entry, PROPOSING[wanted], picture=picture)
        for entry in others
        if entry.name == wanted and entry.description is not None
    ]
    if copies or not calls:
        return copies
    lists = await gateway.searcher.search_all(calls, scope, report)
    return await _related_copies(gateway, calls, lists.hits, report, blocks)


async def _related_copies(
    gateway: Gateway,
    calls: Sequence[RetrieverCall],
    lists: Sequence[Sequence[Hit] | None],
    report: Report,
    blocks: Collection[Kind],
) -> list[Copy]:
    relations = await relate_hits(gateway, calls, lists, report)
    hits = {hit.image_id: hit for found in lists for hit in found or ()}
    copies = [
        Copy(hit, relations[image_id])
        for image_id, hit in hits.items()
        if image_id in relations and relations[image_id].kind in blocks
    ]
    return sorted(copies, key=lambda copy: (-copy.relation.explained, copy.hit.image_id))
