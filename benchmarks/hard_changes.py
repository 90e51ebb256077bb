"""Ways to change photographs and drawn pictures, and what they get in common with strangers.

A decoration puts a picture into the same frame, or under the same watermark, as any other picture
of the style. A change makes a copy, an edit or a part of a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from benchmarks.hard_drawings import colour, font, word, words

Decoration = Callable[[Image.Image, int, str], Image.Image]
Change = Callable[[Image.Image, Random, Image.Image], Image.Image]


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return ImageOps.contain(image, size, Image.Resampling.LANCZOS)


def photo(image: Image.Image) -> Image.Image:
    return fitted(image, (900, 900))


def frame(image: Image.Image, style: int, content: str) -> Image.Image:
    """A gallery's or a post's screen around the picture."""
    form, data = Random(f"frame {style}"), Random(f"frame {style} {content}")
    dark = style % 2
    wide = style % 4 < 2
    page = Image.new("RGB", (1080, 700) if wide else (600, 1000), (24, 26, 30) if dark else "white")
    draw = ImageDraw.Draw(page)
    ink = "white" if dark else "black"
    draw.rectangle((0, 0, page.width, 64), fill=colour(form, 30, 200))
    draw.text((20, 16), word(form).title(), fill="white", font=font(28, 2))
    for place in range(4):
        x = page.width - 60 * (place + 1)
        draw.ellipse((x, 16, x + 32, 48), outline="white", width=3)
        draw.line((x + 8, 32, x + 24, 20 + 6 * place), fill="white", width=3)
    if wide:
        for line in range(8):
            draw.text((820, 100 + 40 * line), words(form, 2), fill=ink, font=font(22, style))
        box = (20, 84, 780, 680)
    else:
        draw.ellipse((20, 84, 70, 134), fill=colour(form))
        draw.text((84, 96), word(form), fill=ink, font=font(22, 2))
        for place in range(4):
            draw.rounded_rectangle(
                (24 + 70 * place, 850, 70 + 70 * place, 890), 12, outline=ink, width=4
            )
        draw.text((24, 905), f"{data.randint(2, 999)} likes", fill=ink, font=font(22))
        draw.text((24, 940), words(form, 5), fill=ink, font=font(20))
        box = (0, 150, 600, 835)
    inside = fitted(image, (box[2] - box[0], box[3] - box[1]))
    left = box[0] + (box[2] - box[0] - inside.width) // 2
    page.paste(inside, (left, box[1] + (box[3] - box[1] - inside.height) // 2))
    return page


def tiled(image: Image.Image, style: int, _: str) -> Image.Image:
    """A watermark all over the picture."""
    form = Random(f"tiled {style}")
    image = photo(image)
    mark = Image.new("L", image.size)
    draw = ImageDraw.Draw(mark)
    text, size = word(form).upper() + ".com", form.choice((26, 34, 44))
    for y in range(0, image.height, size * 3):
        for x in range(-(y % 170), image.width, size * len(text)):
            draw.text((x, y), text, fill=110, font=font(size, 2))
    mark = mark.rotate(form.choice((0, 25, -30)))
    return Image.composite(Image.new("RGB", image.size, "white"), image, mark)


def single(image: Image.Image, style: int, _: str) -> Image.Image:
    """One large watermark in the middle."""
    form = Random(f"single {style}")
    image = photo(image)
    mark = Image.new("L", image.size)
    draw = ImageDraw.Draw(mark)
    x, y = image.width // 2, image.height // 2
    draw.ellipse((x - 90, y - 90, x + 90, y + 90), outline=130, width=12)
    draw.text((x - 150, y - 30), word(form).upper()[:8], fill=150, font=font(60, 2))
    return Image.composite(Image.new("RGB", image.size, "white"), image, mark)


def television(image: Image.Image, style: int, _: str) -> Image.Image:
    """A station's logo and a subtitle."""
    form = Random(f"television {style}")
    image = photo(image)
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle(
        (20, 20, 130, 80), 10, fill=colour(form, 100, 255), outline="white", width=4
    )
    draw.text((36, 30), word(form).upper()[:4], fill="black", font=font(30, 2))
    said = words(form, 5)[:34]
    draw.text(
        (image.width // 2 - 9 * len(said), image.height - 60),
        said,
        fill="white",
        stroke_width=2,
        stroke_fill="black",
        font=font(32),
    )
    return image


def stickers(image: Image.Image, style: int, content: str) -> Image.Image:
    form, data = Random(f"stickers {style}"), Random(f"stickers {style} {content}")
    image = photo(image)
    for number in range(3):
        look = Random(f"sticker {style} {number}")
        size = look.randint(110, 170)
        one = Image.new("RGBA", (size, size))
        draw = ImageDraw.Draw(one)
        draw.ellipse((2, 2, size - 2, size - 2), fill=colour(look), outline="white", width=8)
        points = [(look.randint(20, size - 20), look.randint(20, size - 20)) for _ in range(5)]
        draw.polygon(points, fill=colour(look), outline="black", width=3)
        draw.text((size // 4, size // 3), word(look)[:3], fill="black", font=font(size // 4, 2))
        where = (
            data.randint(0, max(1, image.width - size)),
            data.randint(0, max(1, image.height - size)),
        )
        image.paste(one, where, one)
    form.random()
    return image


def caption(image: Image.Image, style: int, content: str) -> Image.Image:
    """A meme: the same lettering, other words."""
    form, data = Random(f"caption {style}"), Random(f"caption {style} {content}")
    image = photo(image)
    size = max(24, image.width // form.choice((10, 12, 14)))
    if style % 2:  # Over the picture.
        draw = ImageDraw.Draw(image)
        for y in (8, image.height - size - 16):
            said = words(data, 4).upper()[: int(image.width / size * 1.4)]
            draw.text(
                (12, y), said, fill="white", stroke_width=3, stroke_fill="black", font=font(size, 2)
            )
        return image
    page = ImageOps.expand(image, (0, 2 * size + 30, 0, 0), "white")
    draw = ImageDraw.Draw(page)
    for line in range(2):
        said = words(data, 5)[: int(image.width / size * 1.7)]
        draw.text((12, 8 + line * (size + 6)), said, fill="black", font=font(size, 2 * (style % 3)))
    return page


DECORATIONS: dict[str, Decoration] = {
    "frame": frame,
    "tiled": tiled,
    "single": single,
    "television": television,
    "stickers": stickers,
    "caption": caption,
}


def crop(share: float) -> Change:
    def cut(image: Image.Image, random: Random, _: Image.Image) -> Image.Image:
        width, height = (max(1, round(side * share**0.5)) for side in image.size)
        left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
        return image.crop((left, top, left + width, top + height))

    return cut


def screen(image: Image.Image, random: Random, other: Image.Image) -> Image.Image:
    """A photograph of a screen: perspective, glow, moiré, noise, and something around it."""
    image = fitted(image, (900, 900))
    width, height = image.size
    xs, ys = np.meshgrid(np.arange(width), np.arange(height))
    period = random.uniform(2.6, 4.2)
    moire = 10 * np.sin(2 * np.pi * (xs + 0.13 * ys) / period) + 6 * np.sin(
        2 * np.pi * ys / (period + 0.4)
    )
    light = 1 - 0.25 * (xs / width) * random.random()
    noise = np.random.default_rng(random.randint(0, 9999)).normal(0, 6, (height, width))
    pixels = np.asarray(image, np.float32) * light[..., None] + (moire + noise)[..., None]
    shown = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    slack = [random.uniform(0.02, 0.09) for _ in range(8)]
    corners = [
        (slack[0] * width, slack[1] * height),
        ((1 - slack[2]) * width, slack[3] * height),
        ((1 - slack[4]) * width, (1 - slack[5]) * height),
        (slack[6] * width, (1 - slack[7]) * height),
    ]
    size = round(width * 1.1), round(height * 1.1)
    source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    target = np.array(corners, np.float32) + np.array([width, height], np.float32) * 0.05
    matrix = cv2.getPerspectiveTransform(source, target)
    ground = np.asarray(other.resize(size).filter(ImageFilter.GaussianBlur(12)), np.uint8) // 3
    warped = cv2.warpPerspective(
        np.asarray(shown), matrix, size, ground.copy(), cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT
    )
    return Image.fromarray(warped).filter(ImageFilter.GaussianBlur(0.8))


def collage(image: Image.Image, random: Random, other: Image.Image) -> Image.Image:
    page = Image.new("RGB", (1000, 1000), "white")
    place = random.randint(0, 3)
    for number in range(4):
        box = (10 + 495 * (number % 2), 10 + 495 * (number // 2))
        one = image if number == place else crop(0.3)(other, random, other)
        page.paste(fitted(one, (480, 480)), box)
    return page


def panorama(image: Image.Image, _: Random, __: Image.Image) -> Image.Image:
    """The right 60 percent of a photograph of which the left 60 percent are stored."""
    return image.crop((round(image.width * 0.4), 0, image.width, image.height))


def stored_panorama(image: Image.Image) -> Image.Image:
    return image.crop((0, 0, round(image.width * 0.6), image.height))


def night(image: Image.Image) -> Image.Image:
    """A dark picture with the noise of its sensor."""
    pixels = np.asarray(photo(image), np.float32) * 0.13 + 4
    noise = np.random.default_rng(image.width).normal(0, 1.5, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def burst(image: Image.Image, random: Random, _: Image.Image) -> Image.Image:
    """The next photograph of a burst: the camera moved a little, and so did something."""
    dx, dy = random.uniform(-0.03, 0.03) * image.width, random.uniform(-0.03, 0.03) * image.height
    moved = image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1.01, 0.006, dx, -0.006, 1.01, dy),
        Image.Resampling.BICUBIC,
    )
    return ImageOps.crop(moved, round(0.05 * min(image.size)))


def variant(image: Image.Image, random: Random, _: Image.Image) -> Image.Image:
    """A drawing with something added."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    size = round(min(image.size) * random.uniform(0.12, 0.2))
    x, y = random.randint(0, image.width - size), random.randint(0, image.height - size)
    draw.ellipse((x, y, x + size, y + size), fill=colour(random), outline="black", width=3)
    return image


COPIES: dict[str, Change] = {
    "quality 20": lambda i, _r, _o: i,
    "half size": lambda i, _r, _o: i.resize((max(1, i.width // 2), max(1, i.height // 2))),
    "mirrored": lambda i, _r, _o: ImageOps.mirror(i),
    "turned": lambda i, r, _o: i.rotate(r.choice((90, 180, 270)), expand=True),
    "recoloured": lambda i, _r, _o: ImageEnhance.Color(
        ImageEnhance.Brightness(i).enhance(1.2)
    ).enhance(0.3),
    "blurred": lambda i, _r, _o: i.filter(ImageFilter.GaussianBlur(1.5)),
    "bordered": lambda i, _r, _o: ImageOps.expand(i, (i.width // 10, i.height // 8), "black"),
    "stretched": lambda i, _r, _o: i.resize((round(i.width * 1.25), i.height)),
    "negative": lambda i, _r, _o: ImageOps.invert(i),
    "thumbnail": lambda i, _r, _o: fitted(i, (160, 160)),
}
"""Changes after which the picture is the same."""
PARTS: dict[str, Change] = {
    "crop 25 %": crop(0.25),
    "crop 10 %": crop(0.10),
    "crop 5 %": crop(0.05),
    "screen": screen,
    "collage": collage,
    "panorama": panorama,
}
"""Changes after which one picture lies in the other, or both overlap."""
