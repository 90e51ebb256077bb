"""An image of the store in memory, with everything stored for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from indexes.store.annotations import annotated_kinds
from indexes.store.base import ANNOTATIONS, Image, ImageWrite, Preview, Space
from indexes.store.checks import image_terms


@dataclass(slots=True)
class StoredImage:
    image: Image
    features: dict[Space, bytes] = field(default_factory=dict)
    preview: bytes | None = None
    original: bytes | None = None
    stored: int = 0
    """Seq of the write that stored the original; the oldest originals are removed first."""

    @classmethod
    def begun(cls, image_id: int, seq: int, write: ImageWrite) -> StoredImage:
        """A new generation, still without what the write gives."""
        return cls(
            Image(
                image_id=image_id,
                generation=seq,
                sha256=write.sha256,
                width=write.width,
                height=write.height,
                source=write.source,
                created=time.time() if write.created is None else write.created,
                wanted=frozenset(),
                pending=frozenset(),
            )
        )

    @property
    def shown(self) -> Preview | None:
        """The preview with the image's size."""
        if self.preview is None:
            return None
        return Preview(self.image.width, self.image.height, self.preview)

    def missing(self) -> frozenset[str]:
        """Wanted kinds that have neither features nor annotations."""
        spoken = annotated_kinds(self.features.get(ANNOTATIONS))
        return self.image.wanted - {space.kind for space in self.features} - spoken

    def annotated(self, row: bytes | None) -> StoredImage:
        """Set the row of annotations, or remove it if None."""
        self.features.pop(ANNOTATIONS, None)
        if row is not None:
            self.features[ANNOTATIONS] = row
        return self.with_updated_row()

    def terms(self) -> set[bytes]:
        """Search terms of the image."""
        return image_terms(self.image.metadata, self.features.get(ANNOTATIONS))

    def with_updated_row(self) -> StoredImage:
        """Update the image row to the stored data; remove the original if no kind is pending."""
        pending = self.missing()
        if not pending:
            self.original = None
        self.image = replace(
            self.image,
            pending=pending,
            has_preview=self.preview is not None,
            has_original=self.original is not None,
        )
        return self
