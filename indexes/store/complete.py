"""Images with everything that is stored for them, as they are copied and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from indexes.store.annotations import read_annotations
from indexes.store.base import ANNOTATIONS, Author, Image, ImageWrite, Space, Store
from indexes.store.checks import dump_metadata

_AUTHORS: tuple[Author, ...] = ("machine", "person")


@dataclass(frozen=True, slots=True)
class CompleteImage:
    """An image with everything that is stored for it, except the original."""

    image: Image
    features: dict[Space, bytes]
    """Features, including the row of annotations."""
    preview: bytes | None

    @property
    def digest(self) -> bytes:
        """Digest of everything that must be equal in a copy.

        Generations are left out, because each store assigns its own.
        """
        image = self.image
        told = [image.image_id, image.sha256, image.width, image.height, image.created]
        named = [image.source.encode("utf-8", "surrogateescape").hex(), sorted(image.wanted)]
        rows = [[*space, _hash(row)] for space, row in sorted(self.features.items())]
        parts = [*told, *named, rows, _hash(self.preview), _hash(dump_metadata(image.metadata))]
        parts.append(image.facts)
        return hashlib.blake2b(orjson.dumps(parts), digest_size=16).digest()


def complete_images(store: Store, after: int, limit: int) -> list[CompleteImage]:
    """At most `limit` images with ids above `after`, read in several transactions.

    A change meanwhile gives an image another version than the one that was read.
    """
    return completed(store, store.images(after, limit))


def completed(store: Store, images: Sequence[Image]) -> list[CompleteImage]:
    """These images with everything that is stored for them; see `complete_images`."""
    ids = [image.image_id for image in images]
    rows = {space: store.rows(space, ids) for space in store.spaces()} if ids else {}
    return [
        CompleteImage(
            image,
            {space: found[at] for space, found in rows.items() if (at := image.image_id) in found},
            store.preview(image.image_id) if image.has_preview else None,
        )
        for image in images
    ]


def original_of(store: Store, image: Image) -> bytes | None:
    """The upload's bytes, if the store still has them."""
    return store.original(image.image_id, image.generation) if image.has_original else None


def write_of(whole: CompleteImage, original: bytes | None) -> ImageWrite:
    """The write that stores an image again, without its annotations."""
    image = whole.image
    return ImageWrite(
        image.image_id,
        image.sha256,
        image.width,
        image.height,
        image.wanted,
        {space: row for space, row in whole.features.items() if space != ANNOTATIONS},
        source=image.source,
        upload_name=image.upload_name,
        metadata=image.metadata,
        preview=whole.preview,
        original=original,
        created=image.created,
        facts=image.facts,
    )


def write_annotations(target: Store, image_id: int, generation: int, whole: CompleteImage) -> None:
    """Write the annotations of an image that was stored again, of machines and of persons."""
    said = read_annotations(whole.features.get(ANNOTATIONS))
    for author in _AUTHORS:
        by: dict[str, dict[str, Any] | None] = {}
        for name, one in said.items():
            if one["by"] == author:
                # A removal by a person is stored as an annotation with
                # only `by`.
                removal = author == "person" and len(one) == 1
                by[name] = None if removal else {key: one[key] for key in one if key != "by"}
        if by:
            target.annotate(image_id, generation, by, author)


def _hash(row: bytes | None) -> str | None:
    return None if row is None else hashlib.blake2b(row, digest_size=16).hexdigest()
