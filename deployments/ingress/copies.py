"""Copies of a picture among the stored ones, by pHash, and adds that a stored copy refuses."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from deployments.directory.entry import DirectoryEntry
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.ingress.searching import QueryPicture, RetrieverCall, SearchScope
from indexes.base import Hit
from indexes.store.base import Guard, Space
from models.errors import DuplicatePicture
from models.pictures.decoding import Picture

PHASH = "phash"
COPY_DISTANCE = 64
"""Copies differ in fewer than this many of 576 bits."""


async def find_copies(gateway: Gateway, data: bytes, report: Report, until: float) -> list[Hit]:
    """Stored copies of a picture under all 8 flips and rotations, nearest first.

    Waits for phash until a monotonic time. Raises Unavailable.
    """
    entry = await _ready_entry(gateway, until)
    picture = await gateway.searcher.prepare(data, [entry], "dihedral", report)
    return await _search(gateway, entry, picture, await gateway.search_scope(), report)


async def copy_check(gateway: Gateway, image_id: int | None, report: Report) -> CopyCheck:
    """The check of an add under this id. Waits for phash; raises Unavailable."""
    until = time.monotonic() + gateway.args.deadline
    return CopyCheck(gateway, await _ready_entry(gateway, until), image_id, report)


class CopyCheck:
    """Refuses to add a picture of which there is a copy, also one that is added meanwhile."""

    def __init__(
        self, gateway: Gateway, entry: DirectoryEntry, image_id: int | None, report: Report
    ) -> None:
        self._gateway = gateway
        self._entry = entry
        self._image_id = image_id
        """Id of the image that is replaced; it may be a copy."""
        self._report = report
        self._picture: QueryPicture | None = None

    def extract(self, picture: Picture) -> None:
        """Extract the picture's hashes under all 8 flips and rotations."""
        self._picture = self._gateway.searcher.query_picture(picture, [self._entry], "dihedral")

    async def search(self) -> Guard:
        """Search for copies; the guard then checks what is added after the search.

        Raises DuplicatePicture.
        """
        assert self._picture is not None
        scope = await self._gateway.search_scope()
        hits = await _search(self._gateway, self._entry, self._picture, scope, self._report)
        self._refuse({hit.image_id: int(hit.distance or 0) for hit in hits})
        space = Space(PHASH, self._picture.fingerprints[PHASH])
        return Guard(space, scope.min_seq, self._check)

    def _check(self, rows: Mapping[int, bytes]) -> None:
        assert self._picture is not None
        variants = np.stack(self._picture.features[PHASH])
        near = {}
        for image_id, row in rows.items():
            code = np.frombuffer(row, np.uint8)
            near[image_id] = int(np.bitwise_count(variants ^ code).sum(axis=1).min())
        self._refuse({at: distance for at, distance in near.items() if distance < COPY_DISTANCE})

    def _refuse(self, near: Mapping[int, int]) -> None:
        """Raises DuplicatePicture for the nearest of these images, other than the replaced one."""
        others = {at: distance for at, distance in near.items() if at != self._image_id}
        if others:
            image_id = min(others, key=lambda at: (others[at], at))
            raise DuplicatePicture(
                f"image {image_id} is the same picture ({others[image_id]} of 576 bits differ)",
                "image",
                image_id,
            )


async def _ready_entry(gateway: Gateway, until: float) -> DirectoryEntry:
    await gateway.directory.wait_ready(PHASH, until)
    (entry,) = await gateway.entries_named([PHASH])
    return entry


async def _search(
    gateway: Gateway,
    entry: DirectoryEntry,
    picture: QueryPicture,
    scope: SearchScope,
    report: Report,
) -> list[Hit]:
    call = RetrieverCall(entry, {"distance_threshold": COPY_DISTANCE}, picture=picture)
    return await gateway.searcher.search(call, scope, report)
