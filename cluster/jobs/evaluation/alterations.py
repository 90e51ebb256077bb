"""Known copies of a picture: altered in the ways in which pictures come back."""

from __future__ import annotations

import io
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

UNALTERED = "unaltered"
MIN_SIDE = 32
"""Shortest side in pixels that a smaller copy may have."""
WORDS = ("when you see it", "best day ever", "like and share", "© a friend")


class Alteration(NamedTuple):
    """A way to alter a picture, and the JPEG quality of the copy."""

    make: Callable[[Image.Image, Random], Image.Image]
    quality: int = 85


def _same(picture: Image.Image, random: Random) -> Image.Image:
    del random
    return picture


def _resized(share: float) -> Callable[[Image.Image, Random], Image.Image]:
    def make(picture: Image.Image, random: Random) -> Image.Image:
        del random
        factor = max(share, min(1.0, MIN_SIDE / min(picture.size)))
        width, height = (max(1, round(side * factor)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)

    return make


def _cropped(area: float) -> Callable[[Image.Image, Random], Image.Image]:
    def make(picture: Image.Image, random: Random) -> Image.Image:
        width, height = (max(1, round(side * area**0.5)) for side in picture.size)
        left = random.randint(0, picture.width - width)
        top = random.randint(0, picture.height - height)
        return picture.crop((left, top, left + width, top + height))

    return make


def _mirrored(picture: Image.Image, random: Random) -> Image.Image:
    del random
    return ImageOps.mirror(picture)


def _turned(picture: Image.Image, random: Random) -> Image.Image:
    turn = random.choice((Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270))
    return picture.transpose(turn)


def _tilted(picture: Image.Image, random: Random) -> Image.Image:
    angle = random.choice((-12, -5, 5, 12))
    return picture.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor="white")


def _bordered(picture: Image.Image, random: Random) -> Image.Image:
    return ImageOps.expand(picture, max(4, max(picture.size) // 12), random.choice(BORDERS))


BORDERS = ("white", "black", "#d8c8a8")


def _captioned(picture: Image.Image, random: Random) -> Image.Image:
    """White letters with a black edge over the lower part, as on memes."""
    made = picture.copy()
    size = max(10, picture.height // 10)
    font = ImageFont.load_default(size)
    place = picture.width // 2, picture.height - size
    ImageDraw.Draw(made).text(
        place, random.choice(WORDS), "white", font, "mm", stroke_width=size // 10, stroke_fill=0
    )
    return made


def _screenshot(picture: Image.Image, random: Random) -> Image.Image:
    """The picture in the window of a gallery: a bar above, a list beside it, dark or light."""
    ground, ink = random.choice((("#f4f4f6", "#55585f"), ("#202124", "#9aa0a6")))
    bar, side = max(12, picture.height // 12), max(24, picture.width // 4)
    made = Image.new("RGB", (picture.width + side, picture.height + 2 * bar), ground)
    made.paste(picture, (side, bar))
    draw = ImageDraw.Draw(made)
    font = ImageFont.load_default(max(8, bar // 2))
    for row, word in enumerate(("Photos", "Albums", "Favourites", "Recent", "Shared")):
        draw.text((side // 8, bar + row * bar), word, ink, font)
    draw.text((made.width // 2, bar // 2), "IMG_4711.JPG", ink, font, "mm")
    draw.line((0, bar - 1, made.width, bar - 1), ink)
    return made


def _enhanced(kind: Callable[[Image.Image], Any], factor: float) -> Alteration:
    return Alteration(lambda picture, _random: kind(picture).enhance(factor))


def _grey(picture: Image.Image, random: Random) -> Image.Image:
    del random
    return picture.convert("L").convert("RGB")


def _blurred(picture: Image.Image, random: Random) -> Image.Image:
    del random
    return picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 500))


ALTERATIONS: dict[str, Alteration] = {
    UNALTERED: Alteration(_same, 95),
    "JPEG quality 50": Alteration(_same, 50),
    "JPEG quality 20": Alteration(_same, 20),
    "half size": Alteration(_resized(0.5)),
    "quarter size": Alteration(_resized(0.25)),
    "crop of 75 %": Alteration(_cropped(0.75)),
    "crop of 50 %": Alteration(_cropped(0.5)),
    "crop of 25 %": Alteration(_cropped(0.25)),
    "crop of 10 %": Alteration(_cropped(0.1)),
    "mirrored": Alteration(_mirrored),
    "turned by 90°": Alteration(_turned),
    "tilted": Alteration(_tilted),
    "border": Alteration(_bordered),
    "caption": Alteration(_captioned),
    "screenshot": Alteration(_screenshot),
    "grey": Alteration(_grey),
    "brighter": _enhanced(ImageEnhance.Brightness, 1.35),
    "darker": _enhanced(ImageEnhance.Brightness, 0.65),
    "more contrast": _enhanced(ImageEnhance.Contrast, 1.4),
    "paler": _enhanced(ImageEnhance.Color, 0.4),
    "blurred": Alteration(_blurred),
}
"""Alterations by name; the unaltered picture tells what else the collection rightly finds."""


def altered(picture: Image.Image, name: str, seed: str) -> bytes:
    """A copy of an RGB picture as JPEG; the same for the same seed."""
    alteration = ALTERATIONS[name]
    made, target = alteration.make(picture, Random(f"{seed} {name}")), io.BytesIO()
    made.save(target, "JPEG", quality=alteration.quality)
    return target.getvalue()
