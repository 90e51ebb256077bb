"""Pictures that were deleted to stay away: remembering them, and recognising them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deployments.directory.entry import DirectoryEntry
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.ingress.searching import COLOR, QueryPicture
from deployments.tombstones import pdq, records
from deployments.tombstones.index import FeatureKind
from deployments.tombstones.records import RememberedPicture, Tombstone
from deployments.wire import SearchRequest
from indexes.relation.judging import Kind, Relation
from indexes.relation.proposals import Proposals, relations
from indexes.store.base import Guard, Image, Space
from models.errors import AmbienceError, BannedPicture, InvalidInput, PreconditionFailed
from models.pictures.decoding import Picture
from models.registry import make_extractor
from models.types import Features

log = logging.getLogger(__name__)

PHASH, LOCAL = "phash", "local"
PROPOSING: Mapping[str, Mapping[str, Any]] = {
    PHASH: {"distance_threshold": 64, "negatives": True},
    COLOR: {"k": 32},
    LOCAL: {"k": 32, "aligned": True, "min_inliers": 5},
}
"""Parameters by which tombstones are proposed."""
ATTEMPTS = 8
SAME_FILE = Relation("same", 1.0, (1.0, 1.0), 1.0)


@dataclass(frozen=True, slots=True)
class Ban:
    """The tombstone of a picture."""

    tombstone: Tombstone
    relation: Relation | None
    """None if only PDQ hashes were compared."""
    distance: int | None = None
    """Different bits of the PDQ hashes."""

    def row(self) -> dict[str, Any]:
        """What is known of it, as JSON."""
        row: dict[str, Any] = {"tombstone_id": self.tombstone.tombstone_id}
        if self.tombstone.note:
            row["note"] = self.tombstone.note
        if self.relation is not None:
            row |= self.relation.row() | {"confidence": self.relation.confidence}
        if self.distance is not None:
            row["pdq_distance"] = self.distance
        return row


async def feature_kinds(gateway: Gateway) -> dict[str, FeatureKind]:
    """The deployed retrievers that propose copies, under the models that searches use."""
    enabled = gateway.directory.enabled()
    found = {}
    for entry in await gateway.entries_named([one for one in PROPOSING if one in enabled]):
        if entry.description is None or not entry.fingerprint:
            continue
        said = entry.description
        extractor = entry.extractor or make_extractor(said.extractor, said.options)
        space = Space(entry.name, entry.fingerprint)
        found[entry.name] = FeatureKind(space, extractor, entry.extractor is not None)
    return found


async def ban_of(
    gateway: Gateway, picture: QueryPicture, sha256: str, report: Report
) -> tuple[Ban | None, QueryPicture]:
    """The tombstone that a picture is a copy of, by a relation that `import_check.bans` names; and
    the picture with the features that were extracted to find it.

    The picture has the features of `phash` under all 8 flips and rotations. Raises
    StoreUnavailable.
    """
    index = gateway.tombstones
    if not await asyncio.to_thread(index.was_used):
        return None, picture
    kinds = await feature_kinds(gateway)
    if not await asyncio.to_thread(index.follow, kinds):
        return None, picture
    if (same := index.by_file(sha256)) is not None:
        return Ban(same, SAME_FILE), picture
    with report.timed("tombstones"):
        found = await _by_hash(gateway, picture)
        if found is None and index.has(LOCAL):
            picture = await _with_local_features(gateway, picture, report)
            local = picture.features.get(LOCAL, ())
            if local and all(map(len, local)):
                queries = {LOCAL: local}
                found = await gateway.decoder.run(_related, gateway, picture, queries)
    return found, picture


async def _by_hash(gateway: Gateway, picture: QueryPicture) -> Ban | None:
    side = picture.side
    known = picture.proposing().features
    kinds = [PHASH, *([COLOR] if side is not None and side.smooth else [])]
    queries = {kind: known[kind] for kind in kinds if kind in known}
    found = await gateway.decoder.run(_related, gateway, picture, queries)
    if found is not None or not gateway.tombstones.has_pdq or side is None:
        return found
    return await gateway.decoder.run(_by_pdq, gateway, picture)


async def _with_local_features(
    gateway: Gateway, picture: QueryPicture, report: Report
) -> QueryPicture:
    """The picture with features of `local`, which searches then need not extract again."""
    (entry,) = await gateway.entries_named([LOCAL])
    pixels = None if entry.description is None else picture.views.get(entry.description.view)
    if pixels is None:  # It has appeared since the picture was decoded.
        return picture
    request = SearchRequest(
        {},
        "mirror",
        fingerprint=entry.fingerprint or None,
        pixels=pixels,
        deadline=gateway.args.retriever_deadline,
    )
    try:
        features = await gateway.directory.features(entry, request)
    except AmbienceError as exc:
        report.missing[LOCAL] = str(exc)
        return picture
    return replace(
        picture,
        features={**picture.features, LOCAL: features},
        fingerprints={**picture.fingerprints, LOCAL: entry.fingerprint},
    )


def _related(
    gateway: Gateway, picture: QueryPicture, queries: Mapping[str, Sequence[Features]]
) -> Ban | None:
    index = gateway.tombstones
    proposals = Proposals()
    for kind, variants in queries.items():
        proposals.add(index.propose(kind, variants, PROPOSING[kind]))
    previews = index.previews(proposals.compared())
    bans = frozenset[Kind](gateway.args.import_check.bans)
    best: Ban | None = None
    for number, relation in relations(picture.side, proposals, previews).items():
        tombstone = index.tombstone(number)
        if relation.kind not in bans or tombstone is None or not _is_sure(relation):
            continue
        if best is None or best.relation is None or best.relation.explained < relation.explained:
            best = Ban(tombstone, relation)
    return best


def _is_sure(relation: Relation) -> bool:
    """Whether it is by pixels: keypoints alone also tell of two photographs of one scene."""
    return relation.kind == "same" or relation.evidence is not None


def _by_pdq(gateway: Gateway, picture: QueryPicture) -> Ban | None:
    assert picture.side is not None
    found = gateway.tombstones.by_pdq(pdq.hashes(picture.side.side.rgb))
    tombstone = None if found is None else gateway.tombstones.by_id(found.tombstone_id)
    if found is None or tombstone is None:
        return None
    return Ban(tombstone, None, found.distance)


class BanCheck:
    """Refuses to add a picture that was deleted to stay away."""

    def __init__(
        self, gateway: Gateway, entries: Sequence[DirectoryEntry], sha256: str, report: Report
    ) -> None:
        self._gateway = gateway
        self._entries = entries
        self._sha256 = sha256
        self._report = report
        self._picture: QueryPicture | None = None

    def extract(self, picture: Picture) -> None:
        """Extract the picture's hashes under all 8 flips and rotations."""
        self._picture = self._gateway.searcher.query_picture(picture, self._entries, "dihedral")

    async def search(self) -> Guard | None:
        """Raises BannedPicture."""
        assert self._picture is not None
        await refuse_banned(self._gateway, self._picture, self._sha256, self._report)
        return None


async def refuse_banned(
    gateway: Gateway, picture: QueryPicture, sha256: str, report: Report
) -> QueryPicture:
    """The picture as `ban_of` returns it. Raises BannedPicture if there is a tombstone of it."""
    ban, picture = await ban_of(gateway, picture, sha256, report)
    if ban is not None:
        note = f": {ban.tombstone.note}" if ban.tombstone.note else ""
        raise BannedPicture(f"this picture was deleted to stay away{note}", "image")
    return picture


async def delete_and_remember(
    gateway: Gateway, image_id: int, note: str, if_version: int | None = None
) -> str | None:
    """Delete an image and remember it, so that it is recognised when it comes back. Returns the
    tombstone's id, or None if there is no such image.

    The tombstone is durable before the image goes. A picture that is replaced meanwhile stays
    remembered, because another request may have been told so. Raises PreconditionFailed as
    `Store.delete` does.
    """
    for _ in range(ATTEMPTS):
        image = await asyncio.to_thread(gateway.store.image, image_id)
        if image is None:
            return None
        if if_version is not None and image.version != if_version:
            raise PreconditionFailed(f"image {image_id} has changed: read it again", "image_id")
        tombstone = _tombstone(image, note)
        picture = await _remembered(gateway, image)
        await asyncio.to_thread(records.remember, gateway.store, {tombstone: picture})
        try:
            await asyncio.to_thread(gateway.store.delete, image_id, image.version)
        except PreconditionFailed:
            continue  # It was completed, replaced or deleted meanwhile.
        return tombstone.tombstone_id
    raise PreconditionFailed(f"image {image_id} keeps changing: try again", "image_id")


def _tombstone(image: Image, note: str) -> Tombstone:
    # Digits of the file's own hash, so that deleting it twice remembers it once.
    return Tombstone(
        tombstone_id=image.sha256[:32] or hashlib.sha256(str(image.image_id).encode()).hexdigest(),
        created=time.time(),
        note=note,
        image_id=image.image_id,
        file_name=image.upload_name or image.file_name,
        sha256=image.sha256,
        width=image.width,
        height=image.height,
    )


async def _remembered(gateway: Gateway, image: Image) -> RememberedPicture:
    """The stored preview and features; what is missing is made of the preview or of the upload."""
    kinds = await feature_kinds(gateway)
    spaces = [kind.space for kind in kinds.values()]

    def read() -> tuple[bytes | None, bytes | None, dict[Space, bytes]]:
        store, at = gateway.store, image.image_id
        rows = {space: store.rows(space, [at]).get(at) for space in spaces}
        original = store.original(at, image.generation) if image.has_original else None
        found = {space: bytes(row) for space, row in rows.items() if row is not None}
        return store.preview(at), original, found

    preview, original, rows = await asyncio.to_thread(read)
    source = original or preview
    if source is None or len(rows) == len(spaces):
        return RememberedPicture(preview, rows)
    try:
        picture = await gateway.decoder.decode(source)
    except InvalidInput as exc:
        log.warning("image %d is remembered without some features: %s", image.image_id, exc)
        return RememberedPicture(preview, rows)
    for name, kind in kinds.items():
        if kind.space in rows:
            continue
        pixels = picture.view(kind.extractor.view)
        if kind.in_ingress:
            rows[kind.space] = kind.extractor.to_row(kind.extractor.extract(pixels))
            continue
        (entry,) = await gateway.entries_named([name])
        try:
            answer = await gateway.directory.extract(entry, pixels, gateway.args.add_deadline)
        except AmbienceError:
            continue  # Its preview and its hash are remembered all the same.
        rows[Space(name, answer.fingerprint)] = answer.row
    return RememberedPicture(preview or picture.preview_jpeg(), rows)
