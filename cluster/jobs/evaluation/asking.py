"""Asks a running service for each altered copy, and keeps what it answers."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import orjson
from PIL import Image as Pillow

from ambience.calls import Call, Query
from ambience.client import Client
from cluster.jobs.evaluation.alterations import ALTERATIONS, altered
from cluster.jobs.sources import list_source, read_bytes
from indexes.relation.judging import VERIFIED
from models.errors import AmbienceError, InvalidInput
from models.pictures.decoding import decode

K = 50
"""Hits that are asked for."""
MOST_LISTED = 20_000
"""Stored images among which the sample is chosen where no source is given."""
CONNECTIONS = 4
MAX_SIDE = 2048
"""Longest side in pixels of the pictures that are altered."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A stored picture that is to be found again."""

    image_id: int
    sha256: str
    path: str | None
    """Its file; None: the stored preview."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A found image."""

    image_id: int
    confidence: float | None
    is_verified: bool
    ranks: Mapping[str, int]
    """By retriever, from 0."""
    confidences: Mapping[str, float]
    """By retriever; those without one are left out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered to one altered copy."""

    image_id: int
    """The image to be found."""
    sha256: str
    alteration: str
    milliseconds: Mapping[str, float]
    """By stage and retriever, and `all` of the request."""
    hits: Sequence[Hit]

    def line(self) -> bytes:
        """The answer as a line of JSON."""
        return orjson.dumps(asdict(self)) + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Answer:
        said = orjson.loads(line)
        return cls(**{**said, "hits": [Hit(**hit) for hit in said["hits"]]})


def read_answers(path: Path) -> list[Answer]:
    """The answers in a file; a last line that a killed run left unfinished is dropped."""
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        path.write_bytes(whole)
    return [Answer.read(line) for line in whole.splitlines()]


def sample(client: Client, source: str | None, count: int) -> list[Sampled]:
    """Choose stored pictures; with a source, those of its files that are stored.

    The choice is the same for the same collection. Raises InvalidInput if there is none.
    """
    chosen: list[Sampled] = []
    if source is None:
        stored = [
            Sampled(image["image_id"], image["sha256"], None)
            for image in itertools.islice(client.images(), MOST_LISTED)
            if image["has_thumbnail"]
        ]
        chosen = Random(0).sample(stored, min(count, len(stored)))
    else:
        paths = list_source(source).paths
        Random(0).shuffle(paths)
        for path in paths[: 10 * count]:
            found = _stored(client, path)
            chosen += [] if found is None else [found]
            if len(chosen) == count:
                break
    if not chosen:
        where = "no image with a preview is stored" if source is None else f"{source}: not indexed"
        raise InvalidInput(f"{where}; run `ambience backfill` first")
    return chosen


def _stored(client: Client, path: str) -> Sampled | None:
    try:
        sha256 = hashlib.sha256(read_bytes(path)).hexdigest()
    except (OSError, AmbienceError):
        return None
    found = next(client.images(sha256=sha256), None)
    return None if found is None else Sampled(found["image_id"], sha256, path)


def ask_all(
    client: Client, pictures: Sequence[Sampled], answered: Sequence[Answer]
) -> Iterator[Answer]:
    """Yield the answers that are still missing."""
    query: Query = {
        "k": K,
        "min_confidence": 0.0,
        # Named, so that what an earlier evaluation chose has no part in it.
        "retrievers": {
            row["name"]: 1.0
            for row in client.retrievers()
            if row["kind"] == "retriever" and row["state"] == "ready"
        },
    }
    there = {(answer.sha256, answer.alteration) for answer in answered}
    todo = {
        picture: [name for name in ALTERATIONS if (picture.sha256, name) not in there]
        for picture in pictures
    }
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        asked = [
            pool.submit(_ask, client, picture, names, query)
            for picture, names in todo.items()
            if names
        ]
        try:
            for future in asked:
                yield from future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _ask(client: Client, picture: Sampled, names: Sequence[str], query: Query) -> list[Answer]:
    """The answers to copies of one picture; none if it can't be read any more."""
    try:
        loaded = _load(client, picture)
    except (OSError, AmbienceError):
        return []
    return [
        client.send(_search(picture, name, altered(loaded, name, picture.sha256), query))
        for name in names
    ]


def _load(client: Client, picture: Sampled) -> Pillow.Image:
    path = picture.path
    data = client.thumbnail(picture.image_id) if path is None else read_bytes(path)
    loaded = Pillow.fromarray(np.asarray(decode(data).full)).convert("RGB")
    loaded.thumbnail((MAX_SIDE, MAX_SIDE), Pillow.Resampling.LANCZOS)
    return loaded


def _search(picture: Sampled, name: str, data: bytes, query: Query) -> Call[Answer]:
    def read(answer: httpx.Response) -> Answer:
        timing = re.findall(r"([\w.-]+);dur=([\d.]+)", answer.headers.get("Server-Timing", ""))
        spent = {stage: float(milliseconds) for stage, milliseconds in timing}
        spent["all"] = 1000 * answer.elapsed.total_seconds()
        hits = [_hit(row) for row in answer.json()["hits"]]
        return Answer(picture.image_id, picture.sha256, name, spent, hits)

    form = {"query": orjson.dumps(query).decode()}
    return Call("POST", "/v1/search", read, pictures=[data], form=form)


def _hit(row: Mapping[str, Any]) -> Hit:
    places = row["retrievers"]
    return Hit(
        row["image_id"],
        row.get("confidence"),
        row.get("relation") in VERIFIED,
        {name: place["rank"] for name, place in places.items()},
        {name: place["confidence"] for name, place in places.items() if "confidence" in place},
    )
