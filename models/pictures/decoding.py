"""The only picture decoder: from bytes to a Picture with the three views that extractors take.

The header is read first. It decides which library may open the bytes, whether the picture is within
the limits, and how many pixels decoding costs. Then there is exactly one decode. What is shown is
what a browser shows: upright, on a white ground, in sRGB, the first frame with content.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from models.errors import BrokenPicture, PictureTooLarge
from models.pictures.colour import is_fragile, native_mode, to_srgb
from models.pictures.damage import Loaded
from models.pictures.files.color_tags import ColorTags
from models.pictures.flattening import flattened, is_empty, with_colors
from models.pictures.formats import ACCEPTED, ENCODINGS
from models.pictures.limits import DecodeLimits
from models.pictures.opening import CODEC_ERRORS, FIELD, Opened, open_picture
from models.pictures.views import FULL_LONG, Picture, full_pixels, full_view, oriented
from models.types import FileFacts, Pixels

__all__ = ["ACCEPTED", "DecodeLimits", "Header", "Picture", "decode", "read_header"]

_ANIMATED = {"GIF", "WEBP", "PNG", "AVIF"}
_MAX_FRAMES = 50
_MAX_FRAME_PIXELS = 50_000_000


def decode(data: bytes, limits: DecodeLimits | None = None) -> Picture:
    """Decode one file in this thread.

    Raises PictureTooLarge, UnsupportedPicture or BrokenPicture; the message says what is wrong and
    which limit applies.
    """
    return read_header(data, limits or DecodeLimits()).decode()


@dataclass(eq=False)
class Header:
    """A picture that is open and within the limits, but not decoded yet."""

    opened: Opened
    bytes: int
    """Size of the file."""

    @property
    def cost(self) -> int:
        """Number of pixels that decoding holds in memory."""
        return self.opened.cost

    @property
    def needs_child(self) -> bool:
        """Whether its colour profile is one that only a killable child process evaluates."""
        return is_fragile(self.opened.tags.icc)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as it is shown."""
        width, height = self.opened.width, self.opened.height
        return (height, width) if self.opened.orientation >= 5 else (width, height)

    @property
    def facts(self) -> FileFacts:
        """What the file says beside its pixels."""
        opened = self.opened
        encoding = ENCODINGS.get(opened.format, opened.format)
        exif = opened.exif
        return FileFacts(encoding, self.bytes, exif.taken, exif.tags, opened.quality)

    def decode(self) -> Picture:
        """Decode the picture. Raises BrokenPicture, or UnsupportedPicture for an encoding that
        shows only now."""
        opened = self.opened
        try:
            loaded = opened.load()
            full = self._full(loaded)
        except CODEC_ERRORS as exc:
            raise BrokenPicture(
                f"the {opened.format} file is truncated or damaged: {exc or type(exc).__name__}",
                FIELD,
            ) from exc
        upright = np.ascontiguousarray(oriented(full, opened.orientation))
        return Picture(upright, *self.size, opened.format, loaded.truncated, self.facts)

    def _full(self, loaded: Loaded) -> Pixels:
        tags = self.opened.tags

        def convert(image: Image.Image, reduced: bool) -> Pixels:
            mode = native_mode(image.mode, tags)
            image = image if image.mode == mode else image.convert(mode)
            return to_srgb(full_view(image) if reduced else np.asarray(image), mode, tags)

        if (samples := loaded.samples) is not None:
            given = loaded.image.mode
            if native_mode(given, tags) == given and max(samples.shape[:2]) < 3 * FULL_LONG:
                return to_srgb(full_pixels(samples), given, tags)
            return convert(Image.fromarray(samples, given), reduced=True)
        # Browsers blend in sRGB. Converting a larger picture whole would take gigabytes.
        still = getattr(loaded.image, "n_frames", 1) == 1
        if tags != ColorTags() and still and max(loaded.image.size) <= FULL_LONG:
            blended = with_colors(
                loaded.image, lambda paint: Image.fromarray(convert(paint, reduced=False))
            )
            if blended is not loaded.image:
                return full_view(flattened(blended, loaded.there))
        return convert(_with_content(loaded), reduced=True)


def read_header(data: bytes, limits: DecodeLimits) -> Header:
    """Open a file without decoding it. Raises what `decode` raises."""
    if not data:
        raise BrokenPicture("the upload is empty: it has no bytes", FIELD)
    if len(data) > limits.max_bytes:
        raise PictureTooLarge(
            f"the file has {len(data):,} bytes; the limit is {limits.max_bytes:,}", FIELD
        )
    opened = open_picture(data)
    _check_size(opened, limits)
    return Header(opened, len(data))


def _check_size(opened: Opened, limits: DecodeLimits) -> None:
    width, height = opened.width, opened.height
    if width < 1 or height < 1:
        raise BrokenPicture(
            f"the {opened.format} file has an invalid size: {width}x{height} pixels", FIELD
        )
    pixels = width * height
    size = f"{width}x{height} is {pixels:,} pixels"
    if opened.cost > limits.max_pixels:
        held = (
            "" if opened.cost == pixels else f", and decoding it holds as many as {opened.cost:,}"
        )
        raise PictureTooLarge(
            f"{size}{held}; the limit is {limits.max_pixels:,} pixels: send it smaller", FIELD
        )
    if pixels > limits.max_header_pixels:
        raise PictureTooLarge(
            f"{size}; the limit is {limits.max_header_pixels:,} pixels: send it smaller", FIELD
        )


def _with_content(loaded: Loaded) -> Image.Image:
    """The flattened picture; of an animation that begins with an empty frame, the first frame that
    is not empty."""
    image = loaded.image
    flat = flattened(image, loaded.there)
    if loaded.truncated or image.format not in _ANIMATED or not is_empty(flat):
        return flat
    most = min(_MAX_FRAMES, _MAX_FRAME_PIXELS // max(1, image.width * image.height))
    first = flat
    for frame in range(image.tell() + 1, most):
        try:
            image.seek(frame)
            flat = flattened(image)
        except CODEC_ERRORS:
            return first
        if not is_empty(flat):
            return flat
    return first
