"""Limits on the cost of decoding."""

from __future__ import annotations

import io

from pydantic import Field

from models.types import Options

_MAX_READS = 100_000


class DecodeLimits(Options):
    """Limits on the cost of decoding an upload."""

    max_bytes: int = Field(default=64 << 20, gt=0, description="Bytes of one file.")
    max_pixels: int = Field(
        default=100_000_000,
        gt=0,
        description="Pixels that decoding one picture holds in memory. A JPEG is reduced while it "
        "is decoded: one of 108 megapixels holds 7.",
    )
    max_header_pixels: int = Field(
        default=500_000_000,
        gt=0,
        description="Pixels of one picture, however few of them decoding holds.",
    )
    in_flight_pixels: int = Field(
        default=200_000_000, gt=0, description="Pixels being decoded at once in one process."
    )
    threads: int | None = Field(
        default=None, gt=0, description="Decoding threads; by default one per core."
    )
    children: int = Field(
        default=1,
        gt=0,
        le=16,
        description="Child processes for TIFF, AVIF, HEIC and other formats that may hang.",
    )
    child_seconds: float = Field(
        default=20.0,
        gt=0,
        description="Maximum seconds of a decode in a child, which is then killed.",
    )
    child_bytes: int = Field(
        default=4 << 30,
        ge=1 << 28,
        description="Maximum bytes of memory that a child takes beyond its start.",
    )


class ReadLimitedFile(io.BytesIO):
    """A file object that limits the number of reads, because a file of millions of tiny chunks
    would keep Pillow busy for minutes."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise OSError(f"it consists of more than {_MAX_READS:,} chunks")
        return super().read(size)
