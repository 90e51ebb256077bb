"""The only picture decoder: from bytes to a Picture with the three views that extractors take.

The header is read first. It decides which formats may open the bytes, whether the picture is within
the limits, and how many pixels decoding costs. Then there is exactly one decode.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from pydantic import Field

from models.errors import BrokenPicture, InvalidInput, PictureTooLarge, UnsupportedPicture
from models.pictures.formats import ACCEPTED, kind_of, needs_child, refuse_scan_bombs
from models.types import Options, Pixels, View

FULL_LONG = 2048
GRAY_LONG = 1024
PREVIEW_SHORT, PREVIEW_LONG = 384, 800

_FIELD = "image"
_ORIENTATION = 0x0112
# Pillow opens MPO files as JPEG.
_THREAD_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM")
_MAX_READS = 100_000
_LIBRARY = re.compile(r"(PIL|pillow_heif)\b")

# Exceptions of Pillow and its codecs for damaged files; its readers are not written defensively.
_CODEC_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class DecodeLimits(Options):
    """Limits on the cost of decoding an upload."""

    max_bytes: int = Field(default=64 << 20, gt=0, description="Bytes of one file.")
    max_pixels: int = Field(
        default=100_000_000,
        gt=0,
        le=178_000_000,
        description="Pixels of one picture; Pillow accepts at most 178M.",
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


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture. Its arrays are contiguous, read-only uint8 with every side ≥ 1."""

    full: Pixels
    """RGB (height, width, 3), long side ≤ 2048."""
    width: int
    """Width of the original in pixels, after its EXIF orientation is applied; so is `height`."""
    height: int
    format: str
    """Pillow's name of the file's format, such as JPEG, MPO, PPM or HEIF."""

    def __post_init__(self) -> None:
        self.full.flags.writeable = False

    def __reduce__(self) -> tuple[type[Picture], tuple[Any, ...]]:
        return Picture, (self.full, self.width, self.height, self.format)

    @cached_property
    def preview(self) -> Pixels:
        """RGB (height, width, 3), short side ≤ 384 and long side ≤ 800."""
        sides = self.full.shape[:2]
        return _downscaled(self.full, min(PREVIEW_SHORT / min(sides), PREVIEW_LONG / max(sides)))

    @cached_property
    def gray(self) -> Pixels:
        """Luma (ITU-R BT.601) of shape (height, width), long side ≤ 1024."""
        luma = np.asarray(cv2.cvtColor(self.full, cv2.COLOR_RGB2GRAY), np.uint8)
        return _downscaled(luma, GRAY_LONG / max(luma.shape))

    def view(self, name: View) -> Pixels:
        """The view with this name."""
        pixels: Pixels = getattr(self, name)
        return pixels

    def preview_jpeg(self, quality: int = 85) -> bytes:
        """The preview as a JPEG file."""
        file = io.BytesIO()
        Image.fromarray(self.preview).save(file, "JPEG", quality=quality)
        return file.getvalue()

    def crop(self, x: float, y: float, width: float, height: float) -> Picture:
        """The part of the picture inside a box. The box is in pixels of the original and is clipped
        to the picture.

        Raises InvalidInput if the box lies outside.
        """
        left, top = max(x, 0.0), max(y, 0.0)
        right, bottom = min(x + width, self.width), min(y + height, self.height)
        if not (left < right and top < bottom):
            raise InvalidInput(
                f"the region lies outside the picture of {self.width}x{self.height}", "region"
            )
        down, across = self.full.shape[0] / self.height, self.full.shape[1] / self.width
        rows = slice(int(top * down), max(int(top * down) + 1, round(bottom * down)))
        columns = slice(int(left * across), max(int(left * across) + 1, round(right * across)))
        part = np.ascontiguousarray(self.full[rows, columns])
        return Picture(part, max(1, round(right - left)), max(1, round(bottom - top)), self.format)


def decode(data: bytes, limits: DecodeLimits | None = None) -> Picture:
    """Decode one file in this thread.

    Raises PictureTooLarge, UnsupportedPicture or BrokenPicture; the message says what is wrong and
    which limit applies.
    """
    return read_header(data, limits or DecodeLimits()).decode()


@dataclass(eq=False)
class Header:
    """A picture that is open and within the limits, but not decoded yet."""

    image: Image.Image
    width: int
    height: int
    reduction: int

    @property
    def cost(self) -> int:
        """Number of pixels that decoding holds in memory. A progressive JPEG holds all of them,
        whatever the reduction."""
        if self.image.info.get("progressive"):
            return self.width * self.height
        return -(-self.width // self.reduction) * -(-self.height // self.reduction)

    def decode(self) -> Picture:
        """Decode the picture. Raises BrokenPicture."""
        image = self.image
        try:
            _ignore_codec_warnings()
            if self.reduction > 1:
                image.draft("RGB", (self.width // self.reduction, self.height // self.reduction))
            image.load()
            # PNG may carry its EXIF after the pixels, so the orientation is known
            # only now.
            orientation = _orientation(image)
            full = _full_view(_rgb(image))
        except _CODEC_ERRORS as exc:
            raise BrokenPicture(
                f"the {image.format} file is truncated or damaged: {exc or type(exc).__name__}",
                _FIELD,
            ) from exc
        width, height = self.width, self.height
        if image.format != "TIFF" and orientation >= 5:
            width, height = height, width
        upright = np.ascontiguousarray(_oriented(full, orientation))
        return Picture(upright, width, height, image.format or "")


def read_header(data: bytes, limits: DecodeLimits) -> Header:
    """Open a file without decoding it. Raises what `decode` raises."""
    if not data:
        raise BrokenPicture("the upload is empty: it has no bytes", _FIELD)
    if len(data) > limits.max_bytes:
        raise PictureTooLarge(
            f"the file has {len(data):,} bytes; the limit is {limits.max_bytes:,}", _FIELD
        )
    image = _open(data, limits)
    width, height = image.size
    if width < 1 or height < 1:
        raise BrokenPicture(
            f"the {image.format} file has an invalid size: {width}x{height} pixels", _FIELD
        )
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{width}x{height} is {width * height:,} pixels", limits)
    reduction = 1
    if image.format in ("JPEG", "MPO"):
        refuse_scan_bombs(data)
        # The decoder gets the whole file as one block, because after each block it would wait
        # for the Python code of other threads.
        image.decodermaxblock = len(data)
        reduction = _reduction(min(width, height))
    return Header(image, width, height, reduction)


class _ReadLimitedFile(io.BytesIO):
    """A file object that limits the number of reads, because a file of millions of tiny chunks
    would keep Pillow busy for minutes."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise OSError(f"it consists of more than {_MAX_READS:,} chunks")
        return super().read(size)


def _open(data: bytes, limits: DecodeLimits) -> ImageFile:
    kind = kind_of(data)
    file = io.BytesIO(data) if needs_child(data) else _ReadLimitedFile(data)
    try:
        _ignore_codec_warnings()
        return Image.open(file, formats=_formats(kind))
    except Image.DecompressionBombError as exc:
        raise _too_many_pixels("the picture is a decompression bomb", limits) from exc
    except UnidentifiedImageError as exc:
        if kind is None:
            raise UnsupportedPicture(
                f"this is no picture of an accepted format ({ACCEPTED})", _FIELD
            ) from exc
        raise BrokenPicture(f"the header of this {kind} file is damaged", _FIELD) from exc
    except _CODEC_ERRORS as exc:
        raise BrokenPicture(f"the header of this {kind} file is damaged: {exc}", _FIELD) from exc


def _too_many_pixels(what: str, limits: DecodeLimits) -> PictureTooLarge:
    return PictureTooLarge(f"{what}; the limit is {limits.max_pixels:,} pixels", _FIELD)


def _formats(kind: str | None) -> tuple[str, ...]:
    if kind == "TIFF":
        return ("TIFF",)
    if kind == "AVIF or HEIC":
        _register_heif()
        return ("AVIF", "HEIF")
    return _THREAD_FORMATS


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def _ignore_codec_warnings() -> None:
    """Ignore warnings of Pillow and pillow_heif by a filter; `catch_warnings` is not
    thread-safe."""
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[3] != _LIBRARY:
        warnings.filterwarnings("ignore", module=_LIBRARY.pattern)


def gray_lengths(width: int, height: int) -> list[float]:
    """Possible long sides of the gray view of a picture of this size.

    There are two if the decoder of its format may have reduced it below GRAY_LONG.
    """
    lengths = [max(width, height), max(width, height) / _reduction(min(width, height))]
    return sorted({min(float(GRAY_LONG), length) for length in lengths})


def _reduction(short: int) -> int:
    """Factor by which the JPEG decoder reduces a picture; the short side stays ≥ 768.

    A factor of 4 applies only from 5120 pixels up: at a quarter of the size, the colours of finely
    detailed 12–24 MP pictures move by up to 6 %, at half the size by under 3 %, and a quarter saves
    only a tenth of the decoding time.
    """
    return next((by for by, least in ((8, 10240), (4, 5120), (2, 1536)) if short >= least), 1)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where the metadata is damaged or missing."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _CODEC_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: alpha is dropped (not composited), deeper samples are scaled to 8
    bits."""
    if image.mode.startswith("I;16"):
        deep = np.asarray(image)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(samples: np.ndarray[Any, Any]) -> Pixels:
    """Scale samples of unknown range to 8 bits: the range is 0–1 (floats), 0–255 or 0–65535,
    whichever fits, else that of the samples."""
    values = np.nan_to_num(samples.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and samples.dtype.kind == "f":
        values *= 255
    elif low >= 0 and 255 < high <= 65535:
        values *= 1 / 257
    elif low < 0 or high > 65535:
        values -= low
        values *= 255 / max(high - low, 1.0)
    scaled: Pixels = np.clip(np.rint(values, out=values), 0, 255).astype(np.uint8)
    return scaled


def _full_view(image: Image.Image) -> Pixels:
    factor = max(image.size) / FULL_LONG
    if factor >= 3:
        image = image.reduce(int(factor / 1.5))
    pixels = np.asarray(image, np.uint8)
    scale = FULL_LONG / max(image.size)
    # Cubic interpolation keeps the distribution of colours; averaging filters move the
    # histogram twice as far.
    return pixels if scale >= 1 else _resized(pixels, _size(pixels, scale), cv2.INTER_CUBIC)


def _downscaled(pixels: Pixels, scale: float) -> Pixels:
    size = _size(pixels, scale) if scale < 1 else pixels.shape[:2]
    while pixels.shape[0] >= 2 * size[0] and pixels.shape[1] >= 2 * size[1]:
        # Averaging 2x2 pixels first is twelve times as fast, because OpenCV is fast at integer
        # ratios.
        half = pixels.shape[0] // 2, pixels.shape[1] // 2
        pixels = _resized(pixels[: 2 * half[0], : 2 * half[1]], half, cv2.INTER_AREA)
    small = pixels if pixels.shape[:2] == size else _resized(pixels, size, cv2.INTER_AREA)
    small.flags.writeable = False
    return small


def _size(pixels: Pixels, scale: float) -> tuple[int, int]:
    """Height and width after scaling."""
    height, width = pixels.shape[:2]
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(pixels: Pixels, size: tuple[int, int], interpolation: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=interpolation), np.uint8)


def _oriented(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (TIFF 6.0, tag 274)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
