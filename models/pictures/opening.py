"""Open a file by its content: its format, its size, the cost of decoding it, and how to decode it.

Nothing is decoded here. Libraries that are not trusted are imported and called only for formats of
which `formats.needs_child` says that a child process decodes them.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from models.errors import BrokenPicture, UnsupportedPicture
from models.pictures import formats
from models.pictures.damage import (
    TOLERANT,
    Loaded,
    covered,
    load_damaged,
    load_jpeg,
    looks_cut,
    refuse_less_than_half,
)
from models.pictures.files import heif, jpeg, jxl, png, raw
from models.pictures.files.color_tags import ColorTags
from models.pictures.files.tiff import TiffPage
from models.pictures.samples import first_jxl_frame, image_of
from models.pictures.views import reduction

# Exceptions of Pillow and its codecs for damaged files; its readers are not written defensively.
CODEC_ERRORS = (
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
FIELD = "image"
_ORIENTATION = 0x0112
_MAX_READS = 100_000
_LIBRARY = re.compile(r"(PIL|pillow_heif|pillow_jxl|tifffile)\b")
_PILLOW = {
    "JPEG": ("JPEG",),
    "PNG": ("PNG",),
    "WebP": ("WEBP",),
    "GIF": ("GIF",),
    "BMP": ("BMP",),
    "PNM": ("PPM",),
    "TIFF": ("TIFF",),
    "AVIF": ("AVIF",),
    "HEIC": ("HEIF",),
    "JPEG XL": ("JXL",),
    "JPEG 2000": ("JPEG2000",),
    "PSD": ("PSD",),
    "ICO": ("ICO", "CUR"),
    "TGA": ("TGA",),
}
"""Names of Pillow's plugins by format."""
_CONTAINER_TURNS = {"HEIF", "TIFF", "JXL", "JPEG2000"}
"""Formats whose EXIF orientation does not count, or is applied by the library."""


@dataclass(slots=True, eq=False)
class Opened:
    """A file whose header is read."""

    format: str
    """Pillow's name of the format."""
    width: int
    height: int
    """Size in pixels, before the orientation is applied."""
    cost: int
    """Number of pixels of four bytes that decoding holds in memory."""
    load: Callable[[], Loaded]
    tags: ColorTags = field(default_factory=ColorTags)
    orientation: int = 1
    """EXIF orientation 1 to 8."""


def open_picture(data: bytes) -> Opened:
    """Read the header of a file.

    Raises UnsupportedPicture, which says what the file is, or BrokenPicture.
    """
    kind = formats.kind_of(data)
    if kind is None:
        raise UnsupportedPicture(_refusal(data), FIELD)
    _prepare_pillow()
    try:
        return _opener(kind)(data)
    except UnidentifiedImageError as exc:
        raise BrokenPicture(f"the header of this {kind} file is damaged", FIELD) from exc
    except CODEC_ERRORS as exc:
        raise BrokenPicture(f"the header of this {kind} file is damaged: {exc}", FIELD) from exc


def _refusal(data: bytes) -> str:
    other = formats.other_kind(data)
    if other is None:
        return f"this is no picture of an accepted format ({formats.ACCEPTED})"
    article = "an" if other[0] in "AOao" or other.startswith("SVG") else "a"
    return (
        f"this is {article} {other}, and not of an accepted format ({formats.ACCEPTED}): "
        + (formats.OTHERS[other][1])
    )


def _opener(kind: str) -> Callable[[bytes], Opened]:
    special: dict[str, Callable[[bytes], Opened]] = {
        "JPEG": _open_jpeg,
        "PNG": _open_png,
        "TIFF": _open_tiff,
        formats.AVIF: partial(_open_heif, formats.AVIF),
        formats.HEIF: partial(_open_heif, formats.HEIF),
        formats.RAW: _open_raw,
        "JPEG XL": _open_jxl,
        "QOI": _open_qoi,
        "PSD": _open_psd,
    }
    return special.get(kind, partial(_open_usual, kind))


class _ReadLimitedFile(io.BytesIO):
    """A file object that limits the number of reads, because a file of millions of tiny chunks
    would keep Pillow busy for minutes."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise OSError(f"it consists of more than {_MAX_READS:,} chunks")
        return super().read(size)


def _pillow(kind: str, data: bytes) -> ImageFile:
    file = io.BytesIO(data) if formats.needs_child(data) else _ReadLimitedFile(data)
    image = Image.open(file, formats=_PILLOW[kind])
    # Pillow would turn a TIFF by what its XMP says.
    image.info.pop("xmp", None)
    return image


def _open_usual(kind: str, data: bytes) -> Opened:
    image = _pillow(kind, data)
    return _opened(image, partial(_load, image, partial(_pillow, kind, data)))


def _opened(image: ImageFile, load: Callable[[], Loaded]) -> Opened:
    width, height = image.size
    icc = image.info.get("icc_profile")
    tags = ColorTags(icc if isinstance(icc, bytes) and icc else None)
    turned = image.format not in _CONTAINER_TURNS
    turn = orientation_of(image.info.get("exif")) if turned else 1
    return Opened(image.format or "", width, height, width * height, load, tags, turn)


def _load(image: ImageFile, again: Callable[[], ImageFile]) -> Loaded:
    if image.info.get("default_image"):
        # A PNG whose first picture is for programs that show no animation.
        with_frames = _first_frame(image)
        if with_frames is not None:
            return Loaded(with_frames)
        image = again()
    area = image.tile[0][1] if image.format == "GIF" and image.tile else None
    try:
        image.load()
    except CODEC_ERRORS:
        if image.format not in TOLERANT:
            raise
        return load_damaged(again, CODEC_ERRORS)
    return Loaded(image, there=None if area is None else covered(area, image.size))


def _first_frame(image: ImageFile) -> ImageFile | None:
    try:
        image.seek(1)
        image.load()
    except CODEC_ERRORS:
        return None
    return image


def _open_jpeg(data: bytes) -> Opened:
    jpeg.refuse_scan_bombs(data)
    try:
        image = _pillow("JPEG", data)
    except CODEC_ERRORS as exc:
        if "-bit layers" in str(exc):
            raise UnsupportedPicture(
                "this JPEG has samples of more than 8 bits, which are not read: save it with 8",
                FIELD,
            ) from exc
        data = jpeg.without_metadata(data)
        image = JpegImageFile(_ReadLimitedFile(data))
    factor = reduction(min(image.size))
    opened = _opened(image, partial(_load_jpeg, image, data, factor))
    opened.cost = -(-image.width // factor) * -(-image.height // factor)
    if image.info.get("progressive"):
        opened.cost += _coefficients(image) // 2
    return opened


def _coefficients(image: ImageFile) -> int:
    """Number of coefficients, of two bytes each, that a progressive JPEG holds, whatever the
    reduction."""
    shares = [(across, down) for _, across, down, *_ in getattr(image, "layer", ())]
    most = (
        max((across for across, _ in shares), default=1),
        max((down for _, down in shares), default=1),
    )
    samples = sum(across * down for across, down in shares) / (most[0] * most[1])
    return int(image.width * image.height * samples)


def _load_jpeg(image: ImageFile, data: bytes, factor: int) -> Loaded:
    def decode(data: bytes, image: ImageFile | None = None) -> ImageFile:
        image = JpegImageFile(io.BytesIO(data)) if image is None else image
        # The decoder gets the whole file as one block, because after each block it would wait
        # for the Python code of other threads.
        image.decodermaxblock = len(data)
        if factor > 1:
            image.draft("RGB", (image.width // factor, image.height // factor))
        image.load()
        return image

    height = image.height
    if not jpeg.has_end(data):
        return load_jpeg(data, decode, height)
    try:
        decode(data, image)
    except OSError:
        return load_jpeg(data, decode, height)
    if looks_cut(image):
        return load_jpeg(data, decode, height)
    incomplete = bool(image.info.get("progressive")) and not jpeg.scans_complete(data)
    return Loaded(image, incomplete)


def _open_png(data: bytes) -> Opened:
    clean = png.cleaned(data)

    def open_again(data: bytes) -> ImageFile:
        image = _pillow("PNG", data)
        image.info.update(png.info_of(clean))
        return image

    def open_mended() -> ImageFile:
        return open_again(png.packed_again(clean.data))

    image = open_again(clean.data)
    return replace(_opened(image, partial(_load, image, open_mended)), tags=clean.colors)


def _open_heif(kind: str, data: bytes) -> Opened:
    kind = heif.codec(data) or kind
    if kind == formats.HEIF:
        _register_heif()
    mended = heif.mended(data, b"avif" if kind == formats.AVIF else b"heic")
    opened = _open_usual(kind, mended)
    return replace(opened, tags=heif.color_tags(data))


def _open_jxl(data: bytes) -> Opened:
    head = jxl.header_of(data)

    def load() -> Loaded:
        _register_jxl()
        image = _pillow("JPEG XL", data)
        opened.tags = ColorTags(image.info.get("icc_profile"))
        # The plugin shows an animation's last frame.
        return Loaded(first_jxl_frame(data, CODEC_ERRORS) if head.animated else image)

    # Samples of up to 32 bits are held.
    pixels = head.width * head.height
    opened = Opened("JXL", head.width, head.height, 2 * pixels, load)
    return opened


def _open_qoi(data: bytes) -> Opened:
    width, height, channels = struct.unpack_from(">IIB", data, 4)

    def load() -> Loaded:
        from imagecodecs import qoi_decode

        return Loaded(Image.fromarray(np.asarray(qoi_decode(data))))

    if channels not in (3, 4):
        raise ValueError(f"it has {channels} channels")
    return Opened("QOI", width, height, width * height, load)


def _open_psd(data: bytes) -> Opened:
    depth, mode = struct.unpack_from(">HH", data, 22)
    if depth not in (1, 8) or mode not in (0, 1, 2, 3, 4, 8, 9):
        raise UnsupportedPicture(
            f"this PSD has samples of {depth} bits in colour mode {mode}, which are not read: "
            "save it as 8-bit RGB",
            FIELD,
        )
    return _open_usual("PSD", data)


def _open_raw(data: bytes) -> Opened:
    found = raw.preview(data)
    opened = _open_jpeg(found.jpeg)
    turn = opened.orientation if found.orientation is None else found.orientation
    return replace(opened, format="RAW", width=found.width, height=found.height, orientation=turn)


def _open_tiff(data: bytes) -> Opened:
    if raw.is_raw(data):
        return _open_raw(data)
    page = TiffPage(data)
    if page.is_plain:
        return _open_usual("TIFF", data)
    page.check()
    bytes_a_pixel = page.page.samplesperpixel * (page.page.dtype or np.dtype(np.uint8)).itemsize
    cost = page.width * page.height * -(-2 * bytes_a_pixel // 4)
    return Opened(
        "TIFF",
        page.width,
        page.height,
        cost,
        partial(_load_tiff, page),
        ColorTags(page.icc),
        page.orientation,
    )


def _load_tiff(page: TiffPage) -> Loaded:
    read = page.read()
    there = read.there
    refuse_less_than_half(float(there.mean()), "TIFF", page.height)
    return Loaded(image_of(read), not there.all(), None if there.all() else there)


def orientation_of(exif: Any) -> int:
    """EXIF orientation 1 to 8 of a block of EXIF; 1 where it is damaged or missing."""
    if not isinstance(exif, bytes):
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        turn = tags.get(_ORIENTATION, 1)
    except CODEC_ERRORS:
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


@cache
def _register_jxl() -> None:
    from pillow_jxl import JpegXLImagePlugin

    assert JpegXLImagePlugin


def _prepare_pillow() -> None:
    """Ignore warnings of the libraries by a filter, because `catch_warnings` is not thread-safe;
    and leave limits of sizes to the caller, who names them."""
    Image.MAX_IMAGE_PIXELS = None
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[3] != _LIBRARY:
        warnings.filterwarnings("ignore", module=_LIBRARY.pattern)
