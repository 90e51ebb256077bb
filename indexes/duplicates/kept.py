"""Deleted images as they were, kept for a while so that a deletion can be undone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from indexes.duplicates.pairs import Pair, id_text, pair_writes, pairs_of
from indexes.store.base import Image, Space, Store
from indexes.store.complete import (
    CompleteImage,
    complete_images,
    original_of,
    write_annotations,
    write_of,
)
from indexes.store.records import RecordKey
from models.errors import PreconditionFailed
from models.types import FileFacts

KEPT = "duplicates.kept"
KEPT_SECONDS = 30 * 24 * 3600.0
"""Seconds after which what was deleted is forgotten."""
PAGE = 64
LAST = 9_999_999_999_999
"""Above every time in milliseconds; decision ids count down from it, so that the newest come
first."""


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image with everything that was stored for it, and its pairs."""

    whole: CompleteImage
    original: bytes | None
    pairs: tuple[Pair, ...]

    def encode(self) -> bytes:
        image, features = self.whole.image, sorted(self.whole.features.items())
        blobs = [data for _, data in features]
        blobs += [data for data in (self.whole.preview, self.original) if data is not None]
        head = orjson.dumps(
            {
                "image": _image_row(image),
                "spaces": [list(space) for space, _ in features],
                "has": [self.whole.preview is not None, self.original is not None],
                "pairs": [[*pair.contents, pair.row()] for pair in self.pairs],
                "sizes": [len(data) for data in blobs],
            }
        )
        return b"".join((len(head).to_bytes(4, "big"), head, *blobs))

    @classmethod
    def decode(cls, data: bytes) -> KeptImage:
        end = 4 + int.from_bytes(data[:4], "big")
        head = orjson.loads(data[4:end])
        blobs = []
        for size in head["sizes"]:
            blobs.append(data[end : end + size])
            end += size
        spaces = [Space(*space) for space in head["spaces"]]
        features = dict(zip(spaces, blobs, strict=False))
        rest = blobs[len(spaces) :]
        preview = rest.pop(0) if head["has"][0] else None
        original = rest.pop(0) if head["has"][1] else None
        pairs = tuple(Pair.of_row(row, (one, other)) for one, other, row in head["pairs"])
        return cls(CompleteImage(_image_of(head["image"]), features, preview), original, pairs)


def keep(store: Store, image_ids: Sequence[int]) -> dict[int, KeptImage]:
    """Read images as they are now; missing ids are left out."""
    found = {}
    for image_id in image_ids:
        (whole,) = complete_images(store, image_id - 1, 1) or (None,)
        if whole is None or whole.image.image_id != image_id:
            continue
        original = original_of(store, whole.image)
        found[image_id] = KeptImage(whole, original, tuple(pairs_of(store, image_id)))
    return found


def kept_key(decision_id: str, image_id: int) -> RecordKey:
    return RecordKey(KEPT, f"{decision_id}.{id_text(image_id)}")


def restore(store: Store, kept: KeptImage) -> int:
    """Bring an image back, under its id unless that now holds another picture. Returns its id."""
    write = write_of(kept.whole, kept.original)
    while True:
        there = store.image(kept.whole.image.image_id)
        version = 0 if there is None else there.version
        write = replace(write, if_version=version)
        if there is not None and there.sha256 != write.sha256:
            write = replace(write, image_id=None, if_version=None)
        try:
            receipt = store.put(write)
        except PreconditionFailed:  # The id was given to another picture meanwhile.
            continue
        write_annotations(store, receipt.image_id, receipt.generation, kept.whole)
        return receipt.image_id


def restored_pairs(kept: KeptImage) -> Mapping[RecordKey, bytes | None]:
    """The records of the pairs of an image that is back under its id."""
    return pair_writes(kept.pairs)


def forget_old(store: Store, now: float | None = None) -> int:
    """Forget what was deleted longer ago than KEPT_SECONDS. Returns the number of images."""
    before = (time.time() if now is None else now) - KEPT_SECONDS
    after, forgotten = decision_time_key(before), 0
    while page := store.records(KEPT, after, PAGE):
        store.write_records({RecordKey(KEPT, one.key): None for one in page})
        forgotten += len(page)
    return forgotten


def decision_time_key(seconds: float) -> str:
    """The beginning of the ids of decisions of this time; those of earlier ones are above it."""
    return f"{max(0, LAST - int(seconds * 1000)):013d}"


def _image_row(image: Image) -> dict[str, Any]:
    row = asdict(image)
    row["source"] = image.source.encode("utf-8", "surrogateescape").decode("latin-1")
    return row | {"wanted": sorted(image.wanted), "pending": sorted(image.pending)}


def _image_of(row: dict[str, Any]) -> Image:
    row["source"] = row["source"].encode("latin-1").decode("utf-8", "surrogateescape")
    row["facts"] = FileFacts(**row["facts"]) if row["facts"] else None
    return Image(
        **{**row, "wanted": frozenset(row["wanted"]), "pending": frozenset(row["pending"])}
    )
