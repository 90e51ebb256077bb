"""Flatten a decoded picture: 8 bits, no transparency, and only what can be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.types import Pixels

_DARK = 64
"""Gray behind a picture whose paint is nearly white."""
_NEARLY_WHITE = 224
_VISIBLE_SHARE = 0.02
"""Share of the paint that must differ from white for a white ground."""
_SAMPLES = 1 << 20
_OPAQUE = 255


def flattened(image: Image.Image, there: npt.NDArray[np.bool_] | None = None) -> Image.Image:
    """The picture on a white ground, in mode L, RGB or CMYK; colours that are hidden don't count.

    Where nearly all paint is white the ground is dark gray. Pixels that are not `there` (height,
    width) count as transparent.
    """
    paint, alpha = _paint_and_alpha(image)
    if there is not None:
        mask = Image.fromarray(there.view(np.uint8) * np.uint8(255))
        if alpha is None:
            return _on(paint, mask, _OPAQUE)
        alpha = Image.composite(alpha, Image.new("L", alpha.size), mask)
    if alpha is None or alpha.getextrema() == (_OPAQUE, _OPAQUE):
        return paint
    return _on(paint, alpha, _DARK if _is_white_paint(paint, alpha) else _OPAQUE)


def with_colors(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The picture with its colours, in mode L, RGB or CMYK, converted to RGB, if it is transparent
    anywhere; else the picture itself."""
    paint, alpha = _paint_and_alpha(image)
    if alpha is None or alpha.getextrema() == (_OPAQUE, _OPAQUE):
        return image
    converted = convert(paint)
    converted.putalpha(alpha)
    return converted


def is_empty(image: Image.Image) -> bool:
    """Whether a flattened picture has one colour only."""
    extrema = image.getextrema()
    ranges = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in ranges)


def eight_bits(samples: npt.NDArray[Any]) -> Pixels:
    """Scale samples of unknown range to 8 bits: the range is 0–1 (floats), 0–255, 0–32767 (signed
    samples of 16 bits) or 0–65535, whichever fits, else that of the samples."""
    values = np.nan_to_num(samples.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and samples.dtype.kind == "f":
        values *= 255
    elif low >= 0 and 255 < high <= 65535:
        values *= 255 / (32767 if samples.dtype == np.int16 else 65535)
    elif low < 0 or high > 65535:
        values -= low
        values *= 255 / max(high - low, 1.0)
    scaled: Pixels = np.clip(np.rint(values, out=values), 0, 255).astype(np.uint8)
    return scaled


def _paint_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours in mode L, RGB or CMYK, and the alpha, if there is any."""
    hidden = image.info.get("transparency")
    mode = image.mode
    if mode.startswith("I;16"):
        deep = np.asarray(image)
        alpha = None
        if isinstance(hidden, int):
            alpha = Image.fromarray(np.where(deep == hidden, 0, 255).astype(np.uint8))
        return Image.fromarray((deep >> 8).astype(np.uint8)), alpha
    if mode in ("I", "F"):
        return Image.fromarray(eight_bits(np.asarray(image))), None
    if mode in ("La", "RGBa"):
        image = image.convert(mode.upper())
    elif (hidden is not None and mode in ("1", "L", "RGB", "P")) or mode == "PA":
        image = image.convert("RGBA")
    if image.mode == "LA":
        return image.getchannel("L"), image.getchannel("A")
    if image.mode == "RGBA":
        return image.convert("RGB"), image.getchannel("A")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB"), None


def _is_white_paint(paint: Image.Image, alpha: Image.Image) -> bool:
    weights, colours = np.asarray(alpha), np.asarray(paint)
    step = max(1, int((weights.size / _SAMPLES) ** 0.5))
    weights = weights[::step, ::step].astype(np.int64)
    colours = colours[::step, ::step]
    if paint.mode == "CMYK":
        colours = 255 - colours
    darkest = colours if colours.ndim == 2 else colours.min(axis=2)
    visible = int(weights[darkest < _NEARLY_WHITE].sum())
    total = int(weights.sum())
    return total > 0 and visible < _VISIBLE_SHARE * total


def _on(paint: Image.Image, alpha: Image.Image, level: int) -> Image.Image:
    ink = (0, 0, 0, 255 - level) if paint.mode == "CMYK" else (level,) * len(paint.getbands())
    ground = Image.new(paint.mode, paint.size, ink if len(ink) > 1 else level)
    ground.paste(paint, mask=alpha)
    return ground
