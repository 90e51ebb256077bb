"""What is known of an image beside its pixels, as far as it tells copies apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from indexes.store.annotations import read_annotations
from indexes.store.base import ANNOTATIONS, Image, Store

RAW = "RAW"
RAW_SUFFIXES = frozenset(
    {"3fr", "arw", "cr2", "cr3", "crw", "dng", "erf", "iiq", "kdc", "mef", "mos", "mrw", "nef"}
    | {"nrw", "orf", "pef", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw", "x3f"}
)
_QUALITIES = {RAW: 101, **dict.fromkeys(("PNG", "TIFF", "BMP", "PNM", "PSD", "QOI", "HEIC"), 100)}


@dataclass(frozen=True, slots=True)
class Facts:
    """An image with what is known of its file. Sizes are 0 and dates None where unknown."""

    image: Image
    tags: tuple[str, ...] = ()
    """Tags of its metadata and annotations, sorted."""
    said: int = 0
    """Number of annotations by a person."""
    enlarged_from: tuple[int, int] | None = None
    """Width and height of the picture of which this one is only an enlargement."""

    @property
    def pixels(self) -> int:
        return self.image.width * self.image.height

    @property
    def detail(self) -> float:
        """Number of pixels; of a picture that was only enlarged, a little less than before."""
        if self.enlarged_from is None:
            return self.pixels
        width, height = self.enlarged_from
        return width * height - 0.5

    @property
    def format(self) -> str:
        """The format of the file, such as JPEG; of an older store by the file's name."""
        facts = self.image.facts
        return _by_name(self.image) if facts is None else facts.format

    @property
    def bytes(self) -> int:
        return 0 if self.image.facts is None else self.image.facts.bytes

    @property
    def taken(self) -> float | None:
        """When it was taken, in seconds since the epoch."""
        return None if self.image.facts is None else self.image.facts.taken

    @property
    def metadata(self) -> int:
        """Number of things that are said of it: EXIF tags, keys of its metadata, tags, and
        annotations by a person."""
        exif = 0 if self.image.facts is None else self.image.facts.exif_tags
        return exif + len(self.image.metadata) + len(self.tags) + self.said

    @property
    def quality(self) -> int:
        """How little it was compressed: 1 to 100 for JPEG, 100 for what loses nothing and what
        cameras write, 101 for RAW; 0 if unknown."""
        jpeg = None if self.image.facts is None else self.image.facts.quality
        return jpeg or _QUALITIES.get(self.format, 0)

    @property
    def is_raw(self) -> bool:
        return self.format == RAW

    @property
    def stem(self) -> str:
        """The name of its file without the suffix, in lower case."""
        return PurePath(_name(self.image)).stem.casefold()


def facts_of(store: Store, images: Iterable[Image]) -> dict[int, Facts]:
    """Facts by id."""
    given = list(images)
    rows = store.rows(ANNOTATIONS, [image.image_id for image in given])
    return {image.image_id: _facts(image, rows.get(image.image_id)) for image in given}


def tags_of_metadata(image: Image) -> list[str]:
    """The tags of an image's metadata."""
    tags = image.metadata.get("tags", [])
    return [tag for tag in (tags if isinstance(tags, list) else [tags]) if isinstance(tag, str)]


def _facts(image: Image, row: bytes | None) -> Facts:
    annotations = read_annotations(row).values()
    tags = {tag for one in annotations for tag in one.get("tags", ())}
    said = sum(one.get("by") == "person" and len(one) > 1 for one in annotations)
    return Facts(image, tuple(sorted(tags.union(tags_of_metadata(image)))), said)


def _by_name(image: Image) -> str:
    suffix = PurePath(_name(image)).suffix.lstrip(".").casefold()
    return RAW if suffix in RAW_SUFFIXES else suffix.upper()


def _name(image: Image) -> str:
    return (image.upload_name or "") if image.source == "online" else image.source
