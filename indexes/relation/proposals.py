"""Relations of a query to the images that retrievers propose, by their previews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from indexes.base import Hit
from indexes.relation.alignment import Matrix, is_copied, rescaled
from indexes.relation.judging import LIKE, Relation, relate
from indexes.relation.side import Side
from indexes.store.base import Preview
from models.pictures.views import Picture, gray_lengths

SURE_DISTANCE, SURE_INLIERS = 24, 25
"""Distance below which, and inliers from which, pictures count as related without being compared.
"""
SCENE_INLIERS, SCENE_CONFIDENCE = 12, 0.6
"""Inliers from which photographs may show one scene from two viewpoints, and the confidence."""
MAX_COMPARED = 24
"""Images that are compared with one query, at most."""
MISSES = 6
"""Images in a row that are not verified, after which no others are compared."""


@dataclass(slots=True)
class Proposal:
    """What retrievers say of one image."""

    distance: float | None = None
    inliers: int = 0
    homography: Matrix | None = None
    """From the query's grey view to the image's."""

    @property
    def key(self) -> tuple[bool, float, int]:
        """Sort key: what is most likely the same comes first."""
        near = 64.0 if self.distance is None else self.distance
        return self.inliers < 12 and near >= 48, near - 2 * self.inliers, 0

    def without_pixels(self) -> Relation:
        """The relation as far as the hash and the inliers tell it."""
        near = 64.0 if self.distance is None else self.distance
        if near < SURE_DISTANCE or (near < 64 and self.inliers >= SURE_INLIERS):
            return Relation("same", 0.9)
        if self.inliers >= SURE_INLIERS:
            return Relation("part", 0.7)
        return Relation("shares", 0.3) if self.inliers else LIKE


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
        preview = previews.get(image_id)
        if query is None or preview is None:
            continue
        if misses >= MISSES:
            break
        found[image_id] = relation_to(query, proposals.images[image_id], preview)
        misses = 0 if found[image_id].is_verified else misses + 1
    for image_id, proposal in proposals.images.items():
        if image_id not in found:
            relation = proposal.without_pixels()
            unlikely = misses >= MISSES and relation.is_verified
            found[image_id] = Relation("shares", 0.3) if unlikely else relation
    return found


def better(one: Relation | None, other: Relation) -> Relation:
    """The relation that verifies more."""
    if one is None or _strength(other) > _strength(one):
        return other
    return one


def _strength(relation: Relation) -> tuple[bool, float, float]:
    return relation.is_verified, relation.confidence, relation.explained


def relation_to(query: QuerySide, proposal: Proposal, preview: Preview) -> Relation:
    """The relation of a query to one image."""
    image = Side.read(preview.jpeg)
    if image is None:
        return LIKE
    matrices = []
    if proposal.homography is not None:
        long_side = max(image.shape)
        for gray_long in gray_lengths(preview.width, preview.height):
            factor = long_side / gray_long
            matrices.append(rescaled(proposal.homography, query.factor, factor))
    relation = relate(query.side, image, matrices, whole=proposal.distance is not None)
    if not relation.is_verified and _is_scene(query.side, image, matrices, proposal.inliers):
        relation = Relation("like", SCENE_CONFIDENCE)
    return relation.enlarged(
        query.long_side / max(query.side.shape),
        max(preview.width, preview.height) / max(image.shape),
    )


def _is_scene(query: Side, image: Side, matrices: Sequence[Matrix], inliers: int) -> bool:
    """Whether the inliers tell of another photograph of one scene, whose pixels differ."""
    if inliers < SCENE_INLIERS or not matrices or max(query.plain, image.plain) > 0.5:
        return False
    height, width = query.shape
    return not is_copied(matrices[0], (width / 2, height / 2))
