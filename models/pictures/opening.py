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

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from models.errors import BrokenPicture, UnsupportedPicture
from models.pictures import formats
from models.pictures.damage import TURNS, Loaded, load_jpeg, load_tolerantly
from models.pictures.files import bmp, bmp_rle, heif, ico, jpeg, jxl, png, psd, raw
from models.pictures.files.color_tags import ColorTags
from models.pictures.files.exif import NO_EXIF, Exif, read_exif
from models.pictures.files.tiff import TiffPage
from models.pictures.limits import ReadLimitedFile
from models.pictures.samples import (
    bit_fields_of,
    first_jxl_frame,
    image_of_deep_jpeg2000,
    image_of_psd,
    rle_of,
    scaled_pnm,
    tiff_of,
    with_used_alpha,
)

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
    "ICO": ("ICO",),
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
    exif: Exif = NO_EXIF
    quality: int | None = None


def open_picture(data: bytes) -> Opened:
    """Read the header of a file.

    Raises UnsupportedPicture, which says what the file is, or BrokenPicture.
    """
    kind = formats.kind_of(data)
    if kind is None:
        raise UnsupportedPicture(formats.refusal(data), FIELD)
    _prepare_pillow()
    try:
        return _opener(kind)(data)
    except UnidentifiedImageError as exc:
        raise BrokenPicture(f"the header of this {kind} file is damaged", FIELD) from exc
    except CODEC_ERRORS as exc:
        raise BrokenPicture(f"the header of this {kind} file is damaged: {exc}", FIELD) from exc


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
        "JPEG 2000": _open_jpeg2000,
        "BMP": _open_bmp,
        "PNM": _open_pnm,
        "ICO": lambda data: _open_usual("ICO", ico.mended(data)),
    }
    return special.get(kind, partial(_open_usual, kind))


def _pillow(kind: str, data: bytes) -> ImageFile:
    file = io.BytesIO(data) if formats.needs_child(data) else ReadLimitedFile(data)
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
    exif = read_exif(image.info.get("exif"))
    turn = 1 if image.format in _CONTAINER_TURNS else exif.orientation
    return Opened(image.format or "", width, height, width * height, load, tags, turn, exif)


def _load(image: ImageFile, again: Callable[[], ImageFile]) -> Loaded:
    if image.info.get("default_image"):
        # A PNG whose first picture is for programs that show no animation.
        with_frames = _first_frame(image)
        if with_frames is not None:
            return Loaded(with_frames)
        image = again()
    loaded = load_tolerantly(image, again, CODEC_ERRORS)
    with_used_alpha(loaded.image)
    return loaded


def _first_frame(image: ImageFile) -> ImageFile | None:
    try:
        image.seek(1)
        image.load()
    except CODEC_ERRORS:
        return None
    return image


def _open_jpeg(data: bytes) -> Opened:
    jpeg.refuse_unusual(data)
    jpeg.refuse_scan_bombs(data)
    try:
        image = _pillow("JPEG", data)
    except CODEC_ERRORS:
        data = jpeg.without_metadata(data)
        image = JpegImageFile(ReadLimitedFile(data))
    reduction = jpeg.reduction(min(image.size))
    opened = _opened(image, partial(load_jpeg, image, data, reduction))
    opened.quality = jpeg.estimated_quality(getattr(image, "quantization", {}).get(0))
    opened.cost = -(-image.width // reduction) * -(-image.height // reduction)
    if jpeg.has_many_scans(data):
        layers = getattr(image, "layer", ())
        opened.cost += jpeg.coefficients(image.size, layers) // 2
    return opened


def _open_png(data: bytes) -> Opened:
    clean = png.cleaned(data)

    def open_again(data: bytes) -> ImageFile:
        image = _pillow("PNG", data)
        image.info.update(png.info_of(clean))
        return image

    @cache
    def packed_again() -> bytes:
        return png.packed_again(clean.data)

    def open_mended() -> ImageFile:
        return open_again(packed_again())

    def load() -> Loaded:
        animated = image.info.get("default_image")
        first = open_again(png.with_clear_default(clean.data)) if animated else image
        return _load(first, open_mended)

    image = open_again(clean.data)
    return replace(_opened(image, load), tags=clean.colors)


def _open_heif(kind: str, data: bytes) -> Opened:
    kind = heif.codec(data) or kind
    if kind == formats.HEIF:
        _register_heif()
    mended = heif.mended(data, b"avif" if kind == formats.AVIF else b"heic")
    exif = read_exif(heif.exif_of(data))
    opened = replace(_open_usual(kind, mended), tags=heif.color_tags(data), exif=exif)
    shown = heif.clean_aperture(data, (opened.width, opened.height))
    if shown is None or kind == formats.HEIF:  # The library for HEIC crops by itself.
        return opened
    width, height = shown[2] - shown[0], shown[3] - shown[1]
    load = opened.load
    return replace(
        opened, width=width, height=height, load=lambda: Loaded(load().image.crop(shown))
    )


def _open_jxl(data: bytes) -> Opened:
    head = jxl.header_of(data)

    def load() -> Loaded:
        from pillow_jxl import JpegXLImagePlugin

        assert JpegXLImagePlugin
        image = _pillow("JPEG XL", data)
        opened.tags = ColorTags(image.info.get("icc_profile"))
        # The plugin shows an animation's last frame, and a packed JPEG as that is stored.
        if head.animated:
            return Loaded(first_jxl_frame(data, CODEC_ERRORS))
        if getattr(image, "jpeg", False) and head.orientation in TURNS:
            return Loaded(image.transpose(TURNS[head.orientation]))
        return Loaded(image)

    cost = 2 * head.width * head.height  # Samples of up to 32 bits are held.
    exif = read_exif(jxl.exif_of(data))
    opened = Opened("JXL", head.width, head.height, cost, load, exif=exif)
    return opened


def _open_jpeg2000(data: bytes) -> Opened:
    opened = _open_usual("JPEG 2000", data)
    usual = opened.load

    def load() -> Loaded:
        deep = image_of_deep_jpeg2000(data)
        return usual() if deep is None else Loaded(deep)

    return replace(opened, load=load)


def _open_qoi(data: bytes) -> Opened:
    width, height, channels = struct.unpack_from(">IIB", data, 4)

    def load() -> Loaded:
        from imagecodecs import qoi_decode

        return Loaded(Image.fromarray(np.asarray(qoi_decode(data))))

    if channels not in (3, 4):
        raise ValueError(f"it has {channels} channels")
    return Opened("QOI", width, height, width * height, load)


def _open_psd(data: bytes) -> Opened:
    head = psd.header_of(data)

    def load() -> Loaded:
        return Loaded(image_of_psd(psd.flattened_picture(data, head), head))

    # The planes are held beside Pillow's picture.
    cost = head.width * head.height * (head.colors + head.has_alpha + 4) // 4
    tags = ColorTags(head.icc)
    return Opened("PSD", head.width, head.height, cost, load, tags, exif=read_exif(head.exif))


def _open_bmp(data: bytes) -> Opened:
    bmp.refuse_codecs(data)
    if (runs := bmp_rle.rle(data)) is not None:
        cost = 2 * runs.width * runs.height  # Indices, and what is there, beside the samples.
        return Opened("BMP", runs.width, runs.height, cost, partial(rle_of, data, runs))
    try:
        return _open_usual("BMP", data)
    except OSError:
        layout = bmp.bit_fields(data)
        if layout is None:
            raise

    load, pixels = partial(bit_fields_of, data, layout), layout.width * layout.height
    return Opened("BMP", layout.width, layout.height, 3 * pixels, load)


def _open_pnm(data: bytes) -> Opened:
    image = _pillow("PNM", data)
    opened = _opened(image, partial(_load, image, partial(_pillow, "PNM", data)))
    tile = image.tile[0]
    if tile.codec_name != "ppm" or not isinstance(tile.args, tuple):
        return opened
    shape, high = (image.height, image.width, 3 if image.mode == "RGB" else 1), int(tile.args[1])
    body = memoryview(data)[tile.offset :]
    return replace(opened, load=partial(scaled_pnm, body, shape, high))


def _open_raw(data: bytes) -> Opened:
    found = raw.preview(data)
    opened = _open_jpeg(found.jpeg)
    turn = opened.orientation if found.orientation is None else found.orientation
    exif = read_exif(found.tiff)
    return replace(
        opened,
        format="RAW",
        width=found.width,
        height=found.height,
        orientation=turn,
        exif=opened.exif if exif.taken is None else exif,
        quality=None,
    )


def _open_tiff(data: bytes) -> Opened:
    if raw.is_raw(data):
        return _open_raw(data)
    page = TiffPage(data)
    if page.is_plain:
        return replace(_open_usual("TIFF", data), exif=read_exif(data))
    page.check()
    bytes_a_pixel = page.page.samplesperpixel * (page.page.dtype or np.dtype(np.uint8)).itemsize
    cost = page.width * page.height * -(-2 * bytes_a_pixel // 4)
    return Opened(
        "TIFF",
        page.width,
        page.height,
        cost,
        partial(tiff_of, page),
        ColorTags(page.icc),
        page.orientation,
        read_exif(data),
    )


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def _prepare_pillow() -> None:
    """Ignore warnings of the libraries by a filter, because `catch_warnings` is not thread-safe;
    and leave limits of sizes to the caller, who names them."""
    Image.MAX_IMAGE_PIXELS = None
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[3] != _LIBRARY:
        warnings.filterwarnings("ignore", module=_LIBRARY.pattern)
