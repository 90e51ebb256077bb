"""Decode files that end early or are slightly damaged, as far as they go.

A picture is taken when at least half of it is there. What is there is found by decoding twice:
pixels that the decoder leaves untouched keep the colour with which the memory was filled before,
and rows of a JPEG that depend on bytes after its end are not there.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from models.errors import BrokenPicture
from models.pictures.files import jpeg
from models.types import Pixels

_ENDS_SILENTLY = {"PNG", "GIF"}
"""Formats whose decoders don't complain where the packed pixels end early."""
_TOLERANT = {"PNG", "GIF", "BMP", "PPM", "TIFF"}
"""Formats whose decoders leave the pixels before the damage in memory, by Pillow's names."""
MOST_LOST = 0.5
_INK = 91
_BAND = 256
"""Rows that are compared at once, so that two decodes are all that is held."""
_FILLER = (127, 128)
"""The gray that libjpeg puts where pixels are missing, and its negative for CMYK."""

_ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn a picture upright, by its EXIF orientation."""

Area = tuple[int, int, int, int]
"""Left, top, right and bottom."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A decoded picture."""

    image: Image.Image
    truncated: bool = False
    there: Mask | None = None
    """Which pixels (height, width) are there; None for all."""
    samples: Pixels | None = None
    """Of a JPEG, its samples (height, width) or (height, width, 3 or 4) in the mode of `image`,
    which is then not loaded: to decode into Pillow's memory, and to copy out of it, takes a third
    more."""


def load_tolerantly(
    image: ImageFile, again: Callable[[], ImageFile], errors: tuple[type[Exception], ...]
) -> Loaded:
    """Decode a picture, or what is there of a PNG, GIF, BMP, PNM or TIFF.

    `again` opens the file anew. Raises BrokenPicture if half is lost, else one of these errors.
    """
    area = _area(image)
    try:
        if image.format not in _ENDS_SILENTLY:
            image.load()
        elif _untouched_at_end(image, area):
            image.close()
            return _load_damaged(again, errors, complained=False)
    except errors:
        if image.format not in _TOLERANT:
            raise
        image.close()  # Its pixels would be a third copy.
        return _load_damaged(again, errors, complained=True)
    return Loaded(image, there=_covered(area, image.size))


def _untouched_at_end(image: ImageFile, area: Area) -> bool:
    """Decode, and return whether one of the last rows seems untouched."""
    left, top, right, bottom = area
    ink = 0 if image.mode == "1" else _INK
    _fill_before(image, ink)
    image.load()
    # An interlaced picture ends with its last odd row.
    last = np.asarray(image.crop((left, max(top, bottom - 2), right, bottom)))
    samples = np.ascontiguousarray(last).view(np.uint8).reshape(len(last), -1)
    return bool((samples == ink).all(axis=1).any())


def _load_damaged(
    open_file: Callable[[], ImageFile], errors: tuple[type[Exception], ...], complained: bool
) -> Loaded:
    """Decode twice; without complaint and with all pixels there, the picture is whole."""
    opened = open_file()
    kind = opened.format or ""
    interlaced = bool(opened.info.get("interlace"))
    if kind == "GIF" and isinstance(options := opened.tile[0].args, tuple):
        interlaced = bool(options[1])
    area = _area(opened)
    first = _filled(opened, 0, errors)
    there = _equal_pixels(first, _filled(open_file(), 255, errors))
    left, top, right, bottom = area = area if kind == "GIF" else (0, 0, *first.size)
    inside = there[top:bottom, left:right]
    refuse_less_than_half(float(inside.mean()), kind, len(inside))
    if inside.all():
        return Loaded(first, complained, _covered(area, first.size))
    if interlaced:
        return Loaded(_spread(first, there), True, _covered(area, first.size))
    return Loaded(first, True, there)


def refuse_less_than_half(share: float, kind: str, rows: int) -> None:
    """Raise BrokenPicture if less than half of a picture's rows are there."""
    if share < 1 - MOST_LOST:
        raise BrokenPicture(
            f"the {kind} file is truncated or damaged: only {int(share * rows)} of its {rows} rows "
            "are there, and at least half are needed",
            "image",
        )


def _area(image: ImageFile) -> Area:
    """What a file stores of its picture; only a GIF's frame may be smaller."""
    if image.format == "GIF" and image.tile and (area := image.tile[0].extents) is not None:
        return area
    return 0, 0, *image.size


def _covered(area: Area, size: tuple[int, int]) -> Mask | None:
    """Which pixels an area covers; None for all."""
    if area == (0, 0, *size):
        return None
    left, top, right, bottom = area
    there = np.zeros(size[::-1], np.bool_)
    there[top:bottom, left:right] = True
    return there


def load_jpeg(image: ImageFile, data: bytes, reduction: int) -> Loaded:
    """Decode a JPEG of these bytes, reduced by this factor, or what is there of it.

    Raises BrokenPicture if half is lost, OSError or ValueError if nothing can be decoded.
    """
    height = image.height

    def decode(data: bytes) -> ImageFile:
        image = JpegImageFile(io.BytesIO(data))
        # The decoder gets the whole file as one block, because after each block it would wait
        # for the Python code of other threads.
        image.decodermaxblock = len(data)
        if reduction > 1:
            image.draft("RGB", (image.width // reduction, image.height // reduction))
        image.load()
        return image

    many_scans, arithmetic = jpeg.has_many_scans(data), jpeg.is_arithmetic(data)
    damaged = many_scans and not jpeg.scans_complete(data)
    if jpeg.has_end(data):
        try:
            strict = many_scans or arithmetic
            samples = _whole_jpeg(data, image.size, image.mode, reduction, strict=strict)
            # To an arithmetic decoder it is no error that the data end.
            if not arithmetic and (many_scans or not _looks_cut(samples)):
                return Loaded(image, damaged, samples=samples)
        except (OSError, ValueError) as exc:
            damaged = damaged or jpeg.is_damage(str(exc))
    loaded = _load_cut_jpeg(data, decode, height)
    return replace(loaded, truncated=loaded.truncated or damaged)


def _whole_jpeg(
    data: bytes, size: tuple[int, int], mode: str, reduction: int, *, strict: bool
) -> Pixels:
    """The samples of a JPEG of this size, in mode L, RGB or CMYK as Pillow decodes it, reduced by
    this factor.

    Raises ValueError with the words of libjpeg if it errs or, of a `strict` one, warns, as it does
    where pixels are missing. Pillow hides its warnings.
    """
    import simplejpeg

    width, height = (-(-side // reduction) for side in size)
    colors = {"L": "GRAY"}.get(mode, mode)
    pixels: Pixels = simplejpeg.decode_jpeg(
        data, colors, min_width=width, min_height=height, min_factor=reduction, strict=strict
    )
    if pixels.shape[:2] != (height, width):
        raise ValueError(f"it is decoded to {pixels.shape}")
    if mode == "CMYK":
        np.subtract(255, pixels, out=pixels)
    return pixels[..., 0] if mode == "L" else pixels


def _looks_cut(samples: Pixels) -> bool:
    """Whether a JPEG's last pixel is the gray that stands for missing ones."""
    return bool(np.isin(samples[-1, -1], _FILLER).all())


def _load_cut_jpeg(data: bytes, decode: Callable[[bytes], Image.Image], height: int) -> Loaded:
    """Decode a JPEG of this height that ends early or may do so. Raises BrokenPicture if half is
    lost."""
    whole = jpeg.ended(data)
    if whole is None:
        raise BrokenPicture(
            "the JPEG file is truncated or damaged: it ends before its pixels", "image"
        )
    image = decode(whole)
    pixels = np.asarray(image)
    changed = (pixels != np.asarray(decode(jpeg.continued(whole)))).reshape(len(pixels), -1)
    rows = changed.any(axis=1)
    lost = len(pixels) - int(rows.argmax()) if rows.any() else 0
    if lost and jpeg.has_many_scans(whole):
        # Without its later scans a row is blurred; without its first one it is gray.
        lost = min(lost, _gray_rows(pixels))
    refuse_less_than_half(1 - lost / len(pixels), "JPEG", height)
    cut_short = whole != data[: len(whole)]
    return Loaded(image, bool(rows.any()) or cut_short)


def _gray_rows(pixels: npt.NDArray[np.uint8]) -> int:
    filler = np.isin(pixels, _FILLER).reshape(len(pixels), -1)
    gray: Mask = np.logical_and.reduce(filler, axis=1)
    return len(gray) if gray.all() else int((~gray)[::-1].argmax())


def _filled(image: ImageFile, ink: int, errors: tuple[type[Exception], ...]) -> Image.Image:
    """Decode into memory that is filled with one value before."""
    _fill_before(image, ink)
    try:
        image.load()
    except errors as exc:
        if image._im is None:
            raise BrokenPicture(
                f"the {image.format} file is truncated or damaged: {exc}", "image"
            ) from exc
    image.tile = []
    filled = image._new(image.im)
    if image.format == "TIFF":
        # Pillow turns a TIFF only when it is whole.
        turn = image.getexif().get(_ORIENTATION, 1)
        return filled.transpose(TURNS[turn]) if turn in TURNS else filled
    return filled


def _fill_before(image: ImageFile, ink: int) -> None:
    prepare = image.load_prepare

    def load_prepare() -> None:
        prepare()
        bands = len(image.im.mode) if image.im.mode in ("RGB", "RGBA", "CMYK", "LA") else 1
        value: Any = (ink,) * bands if bands > 1 else ink
        image.im.paste(value, (0, 0, *image.im.size))

    setattr(image, "load_prepare", load_prepare)  # noqa: B010


def _bands(height: int) -> Iterator[tuple[int, int]]:
    return ((top, min(top + _BAND, height)) for top in range(0, height, _BAND))


def _equal_pixels(first: Image.Image, second: Image.Image) -> Mask:
    width, height = first.size
    equal = np.empty((height, width), np.bool_)
    for top, end in _bands(height):
        one, two = (np.asarray(image.crop((0, top, width, end))) for image in (first, second))
        same = np.equal(one, two)
        equal[top:end] = same if same.ndim == 2 else same.all(axis=2)
    return equal


def _spread(image: Image.Image, there: Mask) -> Image.Image:
    """Fill the missing pixels of an interlaced picture by those to the left, then above."""
    pixels = np.array(image)
    last = None
    for top, end in _bands(len(there)):
        known = there[top:end]
        columns = np.where(known, np.arange(known.shape[1], dtype=np.int32), -1)
        columns = np.maximum(np.maximum.accumulate(columns, axis=1), 0)
        pixels[top:end] = pixels[np.arange(top, end)[:, None], columns]
        for row in range(top, end):
            if there[row].any():
                last = row
            elif last is not None:
                pixels[row] = pixels[last]
    filled = Image.fromarray(pixels, image.mode)
    if image.mode == "P" and image.palette is not None:
        filled.putpalette(image.palette)
    filled.info = image.info
    return filled
