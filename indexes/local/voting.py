"""Votes of near descriptors, and the selection of candidates for verification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from indexes.base import Hit
from indexes.local.kernels import count_votes

CANDIDATE = np.dtype(
    [("agreeing", np.int32), ("votes", np.int32), ("image_id", np.int64), ("variant", np.int64)]
)
"""An image that one variant of the query voted for; `agreeing` votes agree on scale and angle."""
Candidates = npt.NDArray[np.void]
SHORTLIST = 32
"""Number of candidates that are verified on a few votes."""
CHANCE_VOTES = 10
"""Number of agreeing votes that unrelated images of a collection often have."""


class NearestDescriptors(NamedTuple):
    """The k nearest descriptors of each of n query descriptors."""

    distances: npt.NDArray[np.float32]
    """Squared distances (n, k), ascending; infinite where there is none."""
    image_ids: npt.NDArray[np.int64]
    """Image ids (n, k); -1 where there is none."""
    keypoints: npt.NDArray[np.uint8]
    """Keypoint numbers (n, k)."""
    geometry: npt.NDArray[np.uint8]
    """Geometry (n, k, 2); see `quantise_geometry`."""
    asked: npt.NDArray[np.uint8]
    """Geometry (n, 2) of the query descriptors."""


def nearest(shards: Sequence[NearestDescriptors], k: int) -> NearestDescriptors:
    """The k nearest over all shards; ties by image id, then by keypoint."""
    if len(shards) == 1:
        return shards[0]
    distances, image_ids, keypoints, geometry = (
        np.concatenate(arrays, axis=1)
        for arrays in zip(*(shard[:-1] for shard in shards), strict=True)
    )
    order = np.lexsort((keypoints, image_ids, distances), axis=1)[:, :k]

    def kept(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.take_along_axis(values, order, axis=1)

    geometry = np.take_along_axis(geometry, order[:, :, None], axis=1)
    return NearestDescriptors(
        kept(distances), kept(image_ids), kept(keypoints), geometry, shards[0].asked
    )


def candidates_of(variant: int, voters: NearestDescriptors, least: int) -> Candidates:
    """The images that at least so many of this variant's descriptors vote for."""
    images, places = np.unique(voters.image_ids, return_inverse=True)
    places = places.reshape(voters.image_ids.shape)
    if images.size and images[0] < 0:
        images, places = images[1:], places - 1
    votes, agreeing = count_votes(
        places.astype(np.int64), voters.geometry, voters.asked, len(images)
    )
    candidates = np.empty(len(images), CANDIDATE)
    candidates["agreeing"], candidates["votes"] = agreeing, votes
    candidates["image_id"], candidates["variant"] = images, variant
    enough: Candidates = candidates[votes >= least]
    return enough


def by_votes(candidates: Candidates, mirrors: bool) -> list[Hit]:
    """Each image once, with the votes of its better variant."""
    order = np.lexsort([candidates[name] for name in ("variant", "image_id")])
    order = order[np.argsort(-candidates["votes"][order], kind="stable")]
    best: dict[int, Hit] = {}
    for _, votes, image_id, variant in candidates[order].tolist():
        mirrored = bool(variant) if mirrors else None
        best.setdefault(image_id, Hit(image_id, matches=votes, mirrored=mirrored))
    return list(best.values())


def shortlist(candidates: Candidates, length: int) -> list[tuple[int, int]]:
    """Image id and variant of the candidates that most likely verify, best first, up to a limit.

    Every image gets a few agreeing votes by chance. So beyond SHORTLIST only candidates with
    CHANCE_VOTES are verified. If more candidates than fit share a number of votes below that, the
    number tells nothing, and none of them is verified.
    """
    keys = [candidates["variant"], candidates["image_id"]]
    order = np.lexsort([*keys, -candidates["votes"], -candidates["agreeing"]])
    agreeing = candidates["agreeing"][order]
    length = min(length, max(SHORTLIST, int((agreeing >= CHANCE_VOTES).sum())))
    if len(order) > length and agreeing[length] < CHANCE_VOTES:
        length = int(np.searchsorted(-agreeing, -agreeing[length]))
    chosen = candidates[order[:length]]
    return [(image_id, variant) for _, _, image_id, variant in chosen.tolist()]
