"""Decode files that end early or are slightly damaged, as far as they go.

A picture is taken when at least half of it is there. What is there is found by decoding twice:
pixels that the decoder leaves untouched keep the colour with which the memory was filled before,
and rows of a JPEG that depend on bytes after its end are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from models.errors import BrokenPicture
from models.pictures.files import jpeg

TOLERANT = {"PNG", "GIF", "BMP", "PPM", "TIFF"}
"""Formats whose decoders leave the pixels before the damage in memory, by Pillow's names."""
MOST_LOST = 0.5
MOST_PIXELS = 40_000_000
"""Pixels of the largest picture of these formats that is mended, which holds several copies."""
_FILLER = (127, 128)
"""The gray that libjpeg puts where pixels are missing, and its negative for CMYK."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A decoded picture."""

    image: Image.Image
    truncated: bool = False
    there: Mask | None = None
    """Which pixels (height, width) are there; None for all."""


def load_damaged(open_file: Callable[[], ImageFile], errors: tuple[type[Exception], ...]) -> Loaded:
    """Decode what is there of a PNG, GIF, BMP, PNM or TIFF. Raises BrokenPicture if half is
    lost."""
    opened = open_file()
    kind = opened.format or ""
    if opened.width * opened.height > MOST_PIXELS:
        raise BrokenPicture(
            f"the {kind} file is truncated or damaged, and too large to be mended", "image"
        )
    interlaced = bool(opened.info.get("interlace"))
    if kind == "GIF" and isinstance(options := opened.tile[0].args, tuple):
        interlaced = bool(options[1])
    first, second = _filled(opened, 0, errors), _filled(open_file(), 255, errors)
    one, two = np.asarray(first), np.asarray(second)
    there: Mask = np.equal(one, two)
    if there.ndim == 3:
        there = np.logical_and.reduce(there, axis=2)
    refuse_less_than_half(float(there.mean()), kind, there.shape[0])
    if there.all():
        return Loaded(first, True)
    if interlaced:
        return Loaded(_spread(first, there), True)
    return Loaded(first, True, there)


def refuse_less_than_half(share: float, kind: str, rows: int) -> None:
    """Raise BrokenPicture if less than half of a picture's rows are there."""
    if share < 1 - MOST_LOST:
        raise BrokenPicture(
            f"the {kind} file is truncated or damaged: only {int(share * rows)} of its {rows} rows "
            "are there, and at least half are needed",
            "image",
        )


def covered(area: tuple[int, int, int, int], size: tuple[int, int]) -> Mask | None:
    """Which pixels a frame covers that is smaller than its picture; None for all."""
    if area == (0, 0, *size):
        return None
    left, top, right, bottom = area
    there = np.zeros(size[::-1], np.bool_)
    there[top:bottom, left:right] = True
    return there


def looks_cut(image: Image.Image) -> bool:
    """Whether a JPEG's last pixel is the gray that stands for missing ones."""
    last = image.getpixel((image.width - 1, image.height - 1))
    samples = last if isinstance(last, tuple) else (last,)
    return all(sample in _FILLER for sample in samples)


def load_jpeg(data: bytes, decode: Callable[[bytes], Image.Image], height: int) -> Loaded:
    """Decode a JPEG of this height that ends early or looks so. Raises BrokenPicture if half is
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
    if lost and image.info.get("progressive"):
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
    prepare = image.load_prepare

    def load_prepare() -> None:
        prepare()
        bands = len(image.im.mode) if image.im.mode in ("RGB", "RGBA", "CMYK", "LA") else 1
        value: Any = (ink,) * bands if bands > 1 else ink
        image.im.paste(value, (0, 0, *image.im.size))

    setattr(image, "load_prepare", load_prepare)  # noqa: B010
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
        return filled.transpose(_TURNS[turn]) if turn in _TURNS else filled
    return filled


def _spread(image: Image.Image, there: Mask) -> Image.Image:
    """Fill the missing pixels of an interlaced picture by those to the left, then above."""
    pixels = np.asarray(image)
    columns = np.maximum.accumulate(np.where(there, np.arange(there.shape[1]), -1), axis=1)
    pixels = np.take_along_axis(
        pixels, np.maximum(columns, 0)[(..., None) if pixels.ndim == 3 else ...], axis=1
    )
    known = columns[:, -1] >= 0
    rows = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))
    filled = Image.fromarray(pixels[np.maximum(rows, 0)], image.mode)
    if image.mode == "P" and image.palette is not None:
        filled.putpalette(image.palette)
    filled.info = image.info
    return filled
