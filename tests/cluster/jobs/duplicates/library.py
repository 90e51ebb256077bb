"""Pictures in a store with their real features, as a backfill stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cluster.jobs.duplicates.following import DuplicateFinder
from cluster.jobs.duplicates.proposers import HashProposer, LocalProposer
from indexes.store.base import ImageWrite, Space, Store
from models.base import Extractor
from models.pictures.decoding import decode
from models.registry import make_extractor

EXTRACTORS = {name: make_extractor(name) for name in ("phash", "local")}
SPACES = {name: Space(name, one.fingerprint) for name, one in EXTRACTORS.items()}


def add_file(
    store: Store,
    image_id: int,
    data: bytes,
    extractors: Mapping[str, Extractor] = EXTRACTORS,
    **changed: Any,
) -> None:
    """Decode a file and add it with its features, preview and facts."""
    picture = decode(data)
    features = {
        Space(name, one.fingerprint): one.to_row(one.extract(picture.view(one.view)))
        for name, one in extractors.items()
    }
    fields: dict[str, Any] = {
        "features": features,
        "preview": picture.preview_jpeg(),
        "facts": picture.facts,
        "source": f"/pictures/{image_id}.jpg",
    }
    store.put(
        ImageWrite(
            image_id,
            hashlib.sha256(data).hexdigest(),
            picture.width,
            picture.height,
            frozenset(extractors),
            **{**fields, **changed},
        )
    )


def finder(store: Store, threads: ThreadPoolExecutor) -> DuplicateFinder:
    """A job with the proposers that need no weights."""
    return DuplicateFinder(
        store,
        [
            HashProposer(SPACES["phash"], EXTRACTORS["phash"]),
            LocalProposer(SPACES["local"], EXTRACTORS["local"], {}, store),
        ],
        threads,
    )
