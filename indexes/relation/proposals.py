"""Relations of a query to the images that retrievers propose, by their previews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from indexes.base import Hit, Support
from indexes.relation.alignment import Matrix, rescaled
from indexes.relation.judging import LIKE, SHARED, Relation, relate
from indexes.relation.side import Side
from indexes.store.base import Preview
from models.pictures.views import Picture, gray_lengths

SURE_DISTANCE = 24
"""Distance below which pictures count as the same without being compared."""
SURE_INLIERS, SURE_RARE, SURE_VISIBLE, SURE_SPREAD = 12, 3.0, 0.3, 0.3
"""Number of inliers, and support, from which the keypoints tell of one picture."""
SCENE_RARE, SCENE_VISIBLE, SCENE_BEND = 11.0, 0.1, 0.03
"""Support from which photographs show one scene from two viewpoints."""
SCENE_INLIERS = 12
"""Number of inliers from which they may."""
SCENE_CONFIDENCE, MAYBE_CONFIDENCE = 0.8, 0.5
"""Confidence of the ones and the others, which are not verified, but stay hits."""
MAX_COMPARED = 12
"""Images that are compared with one query, at most."""
MISSES, SURE_MISSES = 2, 4
"""Images in a row that are not verified, after which only likely ones are compared, and none."""


@dataclass(slots=True)
class Proposal:
    """What retrievers say of one image."""

    distance: float | None = None
    inliers: int = 0
    homography: Matrix | None = None
    """From the query's grey view to the image's."""
    support: Support | None = None

    @property
    def key(self) -> float:
        """Sort key: what is most likely the same comes first."""
        near = 64.0 if self.distance is None else self.distance
        rare, visible, *_ = self.support or Support(self.inliers, 0.0, 0.0, 0.0)
        return near - 2 * rare - 100 * visible

    @property
    def is_likely(self) -> bool:
        """Whether the hash or the keypoints alone tell of one picture or scene."""
        near = self.distance is not None and self.distance < SURE_DISTANCE
        return near or self.is_supported or self.is_scene

    @property
    def is_supported(self) -> bool:
        """Whether the keypoints tell of one picture."""
        if self.support is None or self.inliers < SURE_INLIERS:
            return False
        rare, visible, spread, *_ = self.support
        return rare >= SURE_RARE and visible >= SURE_VISIBLE and spread >= SURE_SPREAD

    @property
    def is_scene(self) -> bool:
        """Whether the keypoints of two photographs tell of one scene from two viewpoints."""
        return (
            self.support is not None
            and self.support.rare >= SCENE_RARE
            and self.support.visible >= SCENE_VISIBLE
            and self.support.bend >= SCENE_BEND
        )

    @property
    def may_be_scene(self) -> bool:
        bent = self.support is not None and self.support.bend >= SCENE_BEND
        return bent and self.inliers >= SCENE_INLIERS

    def without_pixels(self) -> Relation:
        """The relation as far as the hash and the keypoints tell it."""
        near = 64.0 if self.distance is None else self.distance
        if near < SURE_DISTANCE or (near < 64 and self.is_supported):
            return Relation("same", 0.9)
        return Relation("part", 0.8) if self.is_supported else self.unlikely()

    def unlikely(self) -> Relation:
        """The relation if it is not compared because likelier ones are not verified."""
        return Relation("shares", SHARED) if self.inliers else LIKE


@dataclass(frozen=True, slots=True)
class QuerySide:
    """A query picture as it is compared."""

    side: Side
    factor: float
    """Side of the preview as a factor of the grey view's."""
    long_side: float
    """Long side of the original in pixels."""

    @property
    def smooth(self) -> bool:
        return self.side.is_smooth

    @classmethod
    def of(cls, picture: Picture) -> QuerySide:
        factor = max(picture.preview.shape[:2]) / max(picture.gray.shape)
        return cls(Side.of(picture.preview), factor, max(picture.width, picture.height))


def stored_sides(preview: Preview) -> list[QuerySide]:
    """A stored image as a query, for each size that its grey view may have."""
    side = Side.read(preview.jpeg)
    if side is None:
        return []
    lengths = gray_lengths(preview.width, preview.height)
    original = max(preview.width, preview.height)
    return [QuerySide(side, max(side.shape) / length, original) for length in lengths]


@dataclass(slots=True)
class Proposals:
    """The images that retrievers propose as copies of one query picture."""

    images: dict[int, Proposal] = field(default_factory=dict)

    def add(self, hits: Sequence[Hit]) -> None:
        """Add the hits of a verifying retriever."""
        for hit in hits:
            found = self.images.setdefault(hit.image_id, Proposal())
            if hit.distance is not None and (
                found.distance is None or hit.distance < found.distance
            ):
                found.distance = hit.distance
            if hit.homography is not None and (hit.inliers or 0) > found.inliers:
                found.inliers, found.homography = hit.inliers or 0, np.array(hit.homography)
                found.support = hit.support

    def compared(self) -> list[int]:
        """Ids of the images that are worth a comparison, at most MAX_COMPARED."""
        order = sorted(self.images, key=lambda at: (self.images[at].key, at))
        return order[:MAX_COMPARED]


def relations(
    query: QuerySide | None, proposals: Proposals, previews: Mapping[int, Preview]
) -> dict[int, Relation]:
    """The relations to all proposed images.

    Images are compared in the order of their evidence, until several in a row are not verified;
    then those with less evidence are not, either. Without previews, relations follow from the hash
    and the keypoints.
    """
    found: dict[int, Relation] = {}
    misses = 0
    for image_id in proposals.compared():
        proposal, preview = proposals.images[image_id], previews.get(image_id)
        if query is None or preview is None:
            continue
        # Colours alone propose smooth pictures, and are compared at little cost.
        enough = SURE_MISSES if proposal.is_likely else MISSES
        if misses >= enough and not query.smooth:
            continue
        found[image_id] = relation_to(query, proposal, preview)
        misses = 0 if found[image_id].is_verified else misses + 1
    for image_id, proposal in proposals.images.items():
        if image_id not in found:
            missed = misses >= MISSES
            found[image_id] = proposal.unlikely() if missed else proposal.without_pixels()
    return found


def better(one: Relation | None, other: Relation) -> Relation:
    """The relation that verifies more."""
    if one is None or _strength(other) > _strength(one):
        return other
    return one


def _strength(relation: Relation) -> tuple[bool, float, float]:
    return relation.is_verified, relation.confidence, relation.explained


def relation_to(
    query: QuerySide, proposal: Proposal, preview: Preview, *, whole: bool = False
) -> Relation:
    """The relation of a query to one image; `whole` aligns whole pictures whatever the hash
    says."""
    image = Side.read(preview.jpeg)
    if image is None:
        return LIKE
    matrices = []
    if proposal.homography is not None:
        long_side = max(image.shape)
        for gray_long in gray_lengths(preview.width, preview.height):
            factor = long_side / gray_long
            matrices.append(rescaled(proposal.homography, query.factor, factor))
    relation = relate(
        query.side,
        image,
        matrices,
        whole=whole or proposal.distance is not None,
        supported=proposal.is_supported,
    )
    drawn = min(query.side.plain, image.plain) > 0.5
    if proposal.is_scene and not (drawn or relation.is_verified):
        relation = Relation("part", SCENE_CONFIDENCE)
    elif proposal.may_be_scene and not (drawn or relation.is_verified):
        relation = Relation("like", MAYBE_CONFIDENCE)
    return relation.enlarged(
        query.long_side / max(query.side.shape),
        max(preview.width, preview.height) / max(image.shape),
    )
