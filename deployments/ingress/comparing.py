"""Comparison of two pictures, each an upload or a stored image."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deployments.directory.entry import DirectoryEntry
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.wire import SearchRequest
from indexes.base import Hit
from indexes.local.ranking import MIN_INLIERS, aligned_pair
from indexes.relation.alignment import Matrix, applied, rescaled
from indexes.relation.judging import Relation
from indexes.relation.proposals import Proposal, QuerySide, better, relation_to, stored_sides
from indexes.store.base import Image, Preview
from models.errors import AmbienceError, ImageNotFound
from models.pictures.decoding import Picture
from models.pictures.views import gray_lengths
from models.types import Features, Pixels, Variants

LOCAL = "local"
MATCH_REACH = 0.02
"""Maximum distance of a match from where the homography maps it, as a share of the image's long
side."""


@dataclass(frozen=True, slots=True)
class ComparedPicture:
    """One of the two pictures."""

    width: int
    height: int
    sha256: str
    image_id: int | None
    preview: Preview | None
    """None where the store keeps no previews."""
    sides: Sequence[QuerySide]
    """The picture as a query, for each size that its grey view may have."""
    gray_longs: Sequence[float]
    """Possible long sides of the grey view."""
    gray: Pixels | None
    """The grey view of an upload."""

    @property
    def long(self) -> int:
        return max(self.width, self.height)

    def row(self) -> dict[str, int]:
        size = {"width": self.width, "height": self.height}
        return size if self.image_id is None else {**size, "image_id": self.image_id}

    @classmethod
    def uploaded(cls, picture: Picture, sha256: str) -> ComparedPicture:
        return cls(
            picture.width,
            picture.height,
            sha256,
            None,
            Preview(picture.width, picture.height, picture.preview_jpeg()),
            [QuerySide.of(picture)],
            [float(max(picture.gray.shape))],
            picture.gray,
        )

    @classmethod
    def stored(cls, image: Image, preview: Preview | None) -> ComparedPicture:
        sides = [] if preview is None else stored_sides(preview)
        longs = gray_lengths(image.width, image.height)
        size = image.width, image.height
        return cls(*size, image.sha256, image.image_id, preview, sides, longs, None)


@dataclass(frozen=True, slots=True)
class PairComparison:
    """The relation of a query picture to an image, with where they match."""

    query: ComparedPicture
    image: ComparedPicture
    relation: Relation
    homography: Matrix | None
    """From pixels of the upright query to those of the image; None if no alignment is known."""
    matches: Sequence[Sequence[float]]
    """Matched keypoints: x, y in the query, x, y in the image."""

    def row(self) -> dict[str, Any]:
        """The comparison as JSON, without what is not known."""
        row = self.relation.row() | {"confidence": self.relation.confidence}
        if self.homography is not None:
            row["homography"] = (self.homography / self.homography[2, 2]).tolist()
        if self.matches:
            row["matches"] = self.matches
        return {**row, "query": self.query.row(), "image": self.image.row()}


async def compare_pictures(
    gateway: Gateway, images: Sequence[bytes], image_ids: Sequence[int], report: Report
) -> PairComparison:
    """Compare two pictures: the uploads, then the stored images; the first is the query.

    Raises ImageNotFound, and what the decoder raises. Without `local`, which is then named as
    missing, only whole pictures are aligned.
    """
    with report.timed("decode"):
        uploads = await asyncio.gather(*(_uploaded(gateway, data, report) for data in images))
    query, image = *uploads, *await asyncio.to_thread(_stored, gateway, image_ids)
    pair = await _matched(gateway, query, image, report)
    with report.timed("relate"):
        return await gateway.decoder.run(_compared, query, image, pair)


async def _uploaded(gateway: Gateway, data: bytes, report: Report) -> ComparedPicture:
    sha256 = hashlib.sha256(data).hexdigest()

    def prepared(picture: Picture) -> ComparedPicture:
        report.truncated = report.truncated or picture.truncated
        return ComparedPicture.uploaded(picture, sha256)

    return await gateway.decoder.decode(data, then=prepared)


def _stored(gateway: Gateway, image_ids: Sequence[int]) -> list[ComparedPicture]:
    there = gateway.store.images_by_id(image_ids)
    for image_id in image_ids:
        if image_id not in there:
            raise ImageNotFound(f"no image {image_id}", "image_ids")
    previews = gateway.store.previews(image_ids)
    return [ComparedPicture.stored(there[one], previews.get(one)) for one in image_ids]


async def _matched(
    gateway: Gateway, query: ComparedPicture, image: ComparedPicture, report: Report
) -> Hit | None:
    """The alignment of both by their keypoints, in pixels of the grey views."""
    if LOCAL not in gateway.directory.enabled():
        return None
    (entry,) = await gateway.entries_named([LOCAL])
    try:
        with report.timed(LOCAL):
            variants, (features, *_) = await asyncio.gather(
                _features(gateway, entry, query, "mirror"),
                _features(gateway, entry, image, "identity"),
            )
    except AmbienceError as exc:
        report.missing[LOCAL] = str(exc)
        return None
    report.answered.add(LOCAL)
    return await gateway.decoder.run(aligned_pair, variants, features)


async def _features(
    gateway: Gateway, entry: DirectoryEntry, picture: ComparedPicture, variants: Variants
) -> Sequence[Features]:
    request = SearchRequest(
        {},
        variants,
        fingerprint=entry.fingerprint or None,
        pixels=picture.gray,
        image_id=picture.image_id,
        deadline=gateway.args.retriever_deadline,
    )
    return await gateway.directory.features(entry, request)


def _compared(query: ComparedPicture, image: ComparedPicture, pair: Hit | None) -> PairComparison:
    proposal = Proposal()
    if pair is not None:
        matrix = None if pair.homography is None else np.array(pair.homography)
        proposal = Proposal(None, pair.inliers or 0, matrix, pair.support)
    relation: Relation | None = None
    if image.preview is not None:
        for side in query.sides:
            relation = better(relation, relation_to(side, proposal, image.preview, whole=True))
    if relation is None:
        same_file = query.sha256 == image.sha256
        relation = Relation("same", 1.0) if same_file else proposal.without_pixels()
    homography = relation.homography if relation.is_verified else None
    scales = _scales(query, image, pair, homography)
    if homography is None and pair is not None and (pair.inliers or 0) >= MIN_INLIERS:
        homography = rescaled(np.array(pair.homography), *scales)
    points = np.array(pair.points if pair is not None and pair.points else []).reshape(-1, 4)
    factors = np.repeat(scales, 2)
    matches = points * factors + (0.5 * factors - 0.5)
    if homography is not None and len(matches):
        # The keypoints of a negative, or of a pattern that repeats, may match at other places.
        apart = np.linalg.norm(applied(homography, matches[:, :2]) - matches[:, 2:], axis=1)
        matches = matches[apart <= MATCH_REACH * max(image.width, image.height)]
    return PairComparison(query, image, relation, homography, np.round(matches, 2).tolist())


def _scales(
    query: ComparedPicture, image: ComparedPicture, pair: Hit | None, homography: Matrix | None
) -> tuple[float, float]:
    """Factors from the grey views to the pictures; of several, those that fit the homography."""
    tried = [
        (query.long / one, image.long / other)
        for one in query.gray_longs
        for other in image.gray_longs
    ]
    if pair is None or pair.homography is None or homography is None:
        return tried[0]
    centre = np.array([query.width / 2, query.height / 2, 1])
    wanted = homography @ centre

    def error(scales: tuple[float, float]) -> float:
        found = rescaled(np.array(pair.homography), *scales) @ centre
        return float(np.hypot(*(found[:2] / found[2] - wanted[:2] / wanted[2])))

    return min(tried, key=error)
