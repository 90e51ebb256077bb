"""Confirms candidates by comparing their stored previews."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np

from cluster.jobs.duplicates.candidates import Candidate
from indexes.duplicates.facts import Facts
from indexes.duplicates.levels import Evidence, level_of
from indexes.duplicates.pairs import Pair
from indexes.duplicates.seams import Around, around
from indexes.relation.enlargement import is_enlarged
from indexes.relation.judging import LIKE, Relation
from indexes.relation.proposals import Proposal, better, relation_to, stored_sides
from indexes.relation.side import Side
from indexes.store.base import Preview

NEAR_DISTANCE = 40
"""Distance of hashes below which pictures that are not verified are still similar."""
PART_AREA = 0.95
"""Share of a container's area up to which something lies around a part."""
ENLARGED_FROM = 0.5
"""Side of a picture, as a share of the preview of a larger one, up to which that tells whether it
was only enlarged. From 0.55 on some photographs are mistaken for enlarged ones."""


def confirm(
    candidate: Candidate, facts: Mapping[int, Facts], previews: Mapping[int, Preview]
) -> Pair | None:
    """The pair that two images are; None if they are unrelated."""
    one, other = facts[candidate.a], facts[candidate.b]
    contents = one.image.sha256, other.image.sha256
    if contents[0] == contents[1]:
        overlap = (1.0, 1.0)
        return Pair(candidate.a, candidate.b, contents, "bytes", "identical", 1.0, (), overlap)
    relation = _relation(candidate, previews)
    level = level_of(relation, _evidence(candidate, relation, one, other, previews))
    if level is None:
        return None
    kind = "identical" if level == "pixels" else relation.kind
    return Pair(
        candidate.a,
        candidate.b,
        contents,
        level,
        kind,
        relation.confidence,
        relation.changes,
        relation.overlap,
        relation.regions if level not in ("pixels", "burst", "similar") else (),
        _enlarged(relation, one, other, previews),
    )


def _relation(candidate: Candidate, previews: Mapping[int, Preview]) -> Relation:
    """The relation of `a`, as the query, to `b`."""
    a, b = previews.get(candidate.a), previews.get(candidate.b)
    proposal = candidate.proposal
    if a is None or b is None:
        return proposal.without_pixels()
    if candidate.query == candidate.b and proposal.homography is not None:
        proposal = replace(proposal, homography=_inverse(proposal))
    best: Relation | None = None
    for side in stored_sides(a):
        best = better(best, relation_to(side, proposal, b))
    return best or LIKE


def _inverse(proposal: Proposal) -> np.ndarray[tuple[int, int], np.dtype[np.float64]] | None:
    determinant, inverse = cv2.invert(np.asarray(proposal.homography, np.float64))
    return np.asarray(inverse, np.float64) if determinant else None


def _evidence(
    candidate: Candidate,
    relation: Relation,
    one: Facts,
    other: Facts,
    previews: Mapping[int, Preview],
) -> Evidence:
    a, b = previews.get(candidate.a), previews.get(candidate.b)
    dates = one.taken, other.taken
    return Evidence(
        ((one.image.width, one.image.height), (other.image.width, other.image.height)),
        same_preview=a is not None and b is not None and a.jpeg == b.jpeg,
        around=None if a is None or b is None else _around(relation, a, b),
        raw=one.is_raw != other.is_raw,
        seconds=None if None in dates else abs((dates[0] or 0.0) - (dates[1] or 0.0)),
        near=candidate.close or _hashes_are_near(candidate, a),
    )


def _hashes_are_near(candidate: Candidate, preview: Preview | None) -> bool:
    """Whether the hashes call two pictures similar; those of pictures without edges say nothing."""
    distance = candidate.proposal.distance
    if preview is None or distance is None or distance >= NEAR_DISTANCE:
        return False
    side = Side.read(preview.jpeg)
    return side is not None and not side.is_smooth


def _enlarged(
    relation: Relation, one: Facts, other: Facts, previews: Mapping[int, Preview]
) -> int | None:
    """The id of the one that shows nothing more than the other, smaller one, if its preview tells:
    that holds more than the smaller one could show."""
    smaller, larger = sorted((one, other), key=lambda facts: facts.pixels)
    preview = previews.get(larger.image.image_id)
    if relation.kind != "same" or "bordered" in relation.changes or preview is None:
        return None
    side = Side.read(preview.jpeg)
    if side is None or side.is_smooth or smaller.pixels == larger.pixels:
        return None
    scale = max(smaller.image.width, smaller.image.height) / max(side.shape)
    enlarged = scale <= ENLARGED_FROM and is_enlarged(side.gray, scale)
    return larger.image.image_id if enlarged else None


def _around(relation: Relation, a: Preview, b: Preview) -> Around | None:
    """What lies around the one that is a part of the other."""
    found, overlap = relation.evidence, relation.overlap
    if relation.kind != "part" or found is None or overlap is None or min(overlap) > PART_AREA:
        return None
    query, image = Side.read(a.jpeg), Side.read(b.jpeg)
    determinant, inverse = cv2.invert(found.matrix)
    if query is None or image is None or not determinant:
        return None
    if overlap[0] >= overlap[1]:
        return around(query, image, found.matrix)
    return around(image, query, np.asarray(inverse, np.float64))
