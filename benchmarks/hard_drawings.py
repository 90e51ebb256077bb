"""Drawn pictures that look alike: documents, screenshots, memes, charts, comics, icons, tilings.

A style fixes what pictures of a kind have in common (form, frame, lettering, palette), the content
what differs. Functions take a style (a number) and a content (any string) and return RGB pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw, ImageFont

Drawing = Callable[[int, str], Image.Image]
FONTS = ("DejaVuSans.ttf", "LiberationSerif-Regular.ttf", "LiberationSans-Bold.ttf")
SCRIPTS = (
    "abcdefghijklmnopqrstuvwxyz",
    "αβγδεζηθικλμνξοπρστυφχψω",
    "абвгдежзиклмнопрстуфхцчшщыэюя",
    "абвгдеёжзийклмнопрстуфхцчшщ",
)


def font(size: int, which: int = 0) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype(FONTS[which % len(FONTS)], size)
    except OSError:
        return ImageFont.load_default(size)


def word(random: Random, letters: str = SCRIPTS[0]) -> str:
    return "".join(random.choice(letters) for _ in range(random.randint(2, 9)))


def words(random: Random, count: int, letters: str = SCRIPTS[0]) -> str:
    return " ".join(word(random, letters) for _ in range(count))


def colour(random: Random, low: int = 0, high: int = 255) -> tuple[int, int, int]:
    return random.randint(low, high), random.randint(low, high), random.randint(low, high)


def invoice(style: int, content: str) -> Image.Image:
    form, data = Random(f"invoice {style}"), Random(f"invoice {style} {content}")
    image = Image.new("RGB", (700, 950), "white")
    draw = ImageDraw.Draw(image)
    accent = colour(form, 0, 140)
    draw.rectangle((40, 40, 40 + form.randint(80, 200), 100), fill=accent)
    draw.text(
        (300, 50), f"{word(form).title()} {word(form).title()} Ltd", fill=accent, font=font(30)
    )
    for line in range(4):
        draw.text((420, 110 + 24 * line), words(form, 3), fill="black", font=font(16, style))
        draw.text((40, 160 + 24 * line), words(data, 2), fill="black", font=font(18, style))
    draw.text((40, 300), f"Invoice {data.randint(1000, 99999)}", fill="black", font=font(24))
    top = 350
    draw.rectangle((40, top, 660, top + 34), fill=accent)
    for column, name in zip((50, 350, 450, 560), ("Item", "Qty", "Price", "Sum"), strict=True):
        draw.text((column, top + 6), name, fill="white", font=font(18))
    for row in range(data.randint(5, 11)):
        y = top + 44 + 36 * row
        draw.text((50, y), words(data, data.randint(1, 3)), fill="black", font=font(17, style))
        for column in (350, 450, 560):
            draw.text((column, y), f"{data.random() * 900:.2f}", fill="black", font=font(17, style))
        draw.line((40, y + 28, 660, y + 28), fill=(190, 190, 190))
    draw.text((430, 850), f"Total {data.random() * 9000:.2f}", fill="black", font=font(26))
    draw.text((40, 900), words(form, 9), fill=(120, 120, 120), font=font(15))
    return image


def chat(style: int, content: str) -> Image.Image:
    form, data = Random(f"chat {style}"), Random(f"chat {style} {content}")
    image = Image.new("RGB", (540, 960), colour(form, 215, 250))
    draw = ImageDraw.Draw(image)
    bar, mine = colour(form, 20, 140), colour(form, 150, 220)
    draw.rectangle((0, 0, 540, 90), fill=bar)
    draw.ellipse((15, 20, 65, 70), fill=colour(form, 100, 255))
    draw.text((80, 28), word(form).title(), fill="white", font=font(28))
    draw.rectangle((0, 890, 540, 960), fill=colour(form, 225, 255))
    draw.rounded_rectangle((20, 900, 440, 950), 25, outline=bar, width=2)
    draw.ellipse((465, 897, 520, 952), fill=bar)
    y = 110
    while y < 830:
        lines = data.randint(1, 3)
        right = data.random() < 0.5
        width = data.randint(160, 360)
        left = 520 - width if right else 20
        draw.rounded_rectangle(
            (left, y, left + width, y + 20 + 28 * lines), 14, fill=mine if right else "white"
        )
        for line in range(lines):
            said = words(data, 6)[: width // 12]
            draw.text((left + 14, y + 8 + 28 * line), said, fill="black", font=font(20, style))
        y += 40 + 28 * lines
    return image


def browser(style: int, content: str) -> Image.Image:
    form, data = Random(f"browser {style}"), Random(f"browser {style} {content}")
    image = Image.new("RGB", (1000, 640), "white")
    draw = ImageDraw.Draw(image)
    shade = colour(form, 170, 230)
    draw.rectangle((0, 0, 1000, 84), fill=shade)
    for place in range(3):
        draw.ellipse((14 + 26 * place, 12, 30 + 26 * place, 28), fill=colour(form))
        draw.rounded_rectangle((110 + 190 * place, 8, 290 + 190 * place, 38), 8, fill="white")
        draw.text((125 + 190 * place, 12), word(form), fill="black", font=font(16))
    draw.rounded_rectangle((90, 46, 860, 76), 15, fill="white")
    draw.text((110, 50), f"https://{word(form)}.org/{word(data)}", fill="black", font=font(17))
    draw.rectangle((0, 84, 180, 640), fill=colour(form, 220, 245))
    for line in range(9):
        draw.text((16, 104 + 34 * line), word(form), fill=(40, 60, 120), font=font(18, style))
    draw.text((210, 104), words(data, 4).title(), fill="black", font=font(30, style))
    for line in range(9):
        draw.text((210, 160 + 28 * line), words(data, 9)[:62], fill="black", font=font(17, style))
    scene(draw, data, (210, 430, 580, 620))
    scene(draw, data, (600, 430, 970, 620))
    return image


def scene(draw: ImageDraw.ImageDraw, random: Random, box: tuple[int, int, int, int]) -> None:
    """A few shapes on a ground."""
    left, top, right, bottom = box
    draw.rectangle(box, fill=colour(random, 60, 240))
    for _ in range(random.randint(5, 10)):
        x, y = random.randint(left, right - 20), random.randint(top, bottom - 20)
        size = random.randint(12, max(14, (bottom - top) // 2))
        place = (x, y, min(right, x + size), min(bottom, y + size))
        (draw.ellipse if random.random() < 0.5 else draw.rectangle)(
            place, fill=colour(random), outline="black"
        )


def chart(style: int, content: str) -> Image.Image:
    form, data = Random(f"chart {style}"), Random(f"chart {style} {content}")
    image = Image.new("RGB", (760, 520), "white")
    draw = ImageDraw.Draw(image)
    palette = [colour(form, 0, 200) for _ in range(3)]
    draw.text((220, 14), words(form, 3).title(), fill="black", font=font(24))
    for line in range(6):
        y = 70 + 70 * line
        draw.line((70, y, 730, y), fill=(205, 205, 205))
        draw.text((20, y - 10), str(500 - 100 * line), fill="black", font=font(17))
    draw.line((70, 60, 70, 420), fill="black", width=2)
    draw.line((70, 420, 730, 420), fill="black", width=2)
    kind = style % 3
    if kind == 0:
        for bar in range(10):
            top = data.randint(80, 400)
            draw.rectangle((90 + 64 * bar, top, 130 + 64 * bar, 420), fill=palette[bar % 2])
    else:
        for line in range(3):
            height = data.randint(100, 400)
            points = []
            for step in range(33):
                height = min(410, max(70, height + data.randint(-40, 40)))
                points.append((70 + 20 * step, height))
            draw.line(points, fill=palette[line], width=3 if kind == 1 else 2)
            if kind == 2:
                for x, y in points[::3]:
                    draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=palette[line])
    for label in range(7):
        draw.text((80 + 92 * label, 428), word(form)[:5], fill="black", font=font(16))
    for entry in range(3):
        draw.rectangle((90 + 200 * entry, 475, 110 + 200 * entry, 495), fill=palette[entry])
        draw.text((120 + 200 * entry, 474), word(form), fill="black", font=font(17))
    return image


def qr(style: int, content: str) -> Image.Image:
    data = Random(f"qr {style} {content}")
    count = (21, 25, 29, 33)[style % 4]
    image = Image.new("RGB", (count + 8, count + 8), "white")
    for x in range(count):
        for y in range(count):
            if data.random() < 0.5:
                image.putpixel((x + 4, y + 4), (0, 0, 0))
    draw = ImageDraw.Draw(image)
    for x, y in ((4, 4), (count - 3, 4), (4, count - 3)):
        draw.rectangle((x - 1, y - 1, x + 7, y + 7), fill="white")
        draw.rectangle((x, y, x + 6, y + 6), fill="black")
        draw.rectangle((x + 1, y + 1, x + 5, y + 5), fill="white")
        draw.rectangle((x + 2, y + 2, x + 4, y + 4), fill="black")
    return image.resize((12 * image.width,) * 2, Image.Resampling.NEAREST)


def page(style: int, content: str) -> Image.Image:
    form, data = Random(f"page {style}"), Random(f"page {style} {content}")
    letters = SCRIPTS[style % len(SCRIPTS)]
    image = Image.new("RGB", (720, 1000), (form.randint(240, 255),) * 3)
    draw = ImageDraw.Draw(image)
    size = form.choice((16, 18, 21))
    draw.text((60, 40), words(form, 3, letters), fill="gray", font=font(15))
    y = 80
    while y < 930:
        for _ in range(data.randint(3, 8)):
            if y < 930:
                said = words(data, 16, letters)[: 1150 // size]
                draw.text((60, y), said, fill="black", font=font(size, style // 4))
            y += round(size * 1.5)
        y += size
    return image


def comic(style: int, content: str) -> Image.Image:
    form, data = Random(f"comic {style}"), Random(f"comic {style} {content}")
    image = Image.new("RGB", (700, 700), "white")
    draw = ImageDraw.Draw(image)
    for panel in range(4):
        left, top = 20 + 335 * (panel % 2), 20 + 335 * (panel // 2)
        draw.rectangle((left, top, left + 325, top + 325), fill=colour(data, 150, 255))
        for who in range(2):
            x = left + 60 + 170 * who + data.randint(-20, 20)
            _person(draw, Random(f"comic {style} {who}"), data, x, top + 150, 1.0)
        said = words(data, 4)[:24]
        draw.rounded_rectangle(
            (left + 20, top + 12, left + 305, top + 60), 20, fill="white", outline="black"
        )
        draw.text((left + 35, top + 22), said, fill="black", font=font(20, form.randint(0, 2)))
        draw.rectangle((left, top, left + 325, top + 325), outline="black", width=4)
    return image


def _person(
    draw: ImageDraw.ImageDraw, look: Random, pose: Random, x: float, y: float, size: float
) -> None:
    skin, hair, coat = colour(look, 150, 240), colour(look), colour(look)
    radius = 34 * size
    draw.ellipse(
        (x - radius, y - radius, x + radius, y + radius), fill=skin, outline="black", width=3
    )
    draw.pieslice(
        (x - radius, y - radius, x + radius, y + radius), 180, 360, fill=hair, outline="black"
    )
    for side in (-1, 1):
        eye = x + side * 13 * size
        draw.ellipse((eye - 5, y - 2, eye + 5, y + 10), fill="white", outline="black")
        draw.ellipse((eye - 2, y + 2, eye + 2, y + 6), fill="black")
    draw.arc(
        (x - 14, y + 10, x + 14, y + 26),
        *(pose.choice(((0, 180), (180, 360)))),
        fill="black",
        width=3,
    )
    draw.rounded_rectangle(
        (x - 30 * size, y + radius, x + 30 * size, y + 130 * size),
        10,
        fill=coat,
        outline="black",
        width=3,
    )
    for side in (-1, 1):
        angle = pose.uniform(-1.2, 1.2)
        draw.line(
            (
                x + side * 30 * size,
                y + 50 * size,
                x + side * (30 + 50 * math.cos(angle)) * size,
                y + (50 + 50 * math.sin(angle)) * size,
            ),
            fill="black",
            width=7,
        )


def character(style: int, content: str) -> Image.Image:
    data = Random(f"character {style} {content}")
    image = Image.new("RGB", (480, 560), colour(data, 170, 255))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, size = data.randint(0, 440), data.randint(0, 520), data.randint(20, 110)
        draw.ellipse((x, y, x + size, y + size), fill=colour(data, 120, 255))
    _person(draw, Random(f"character {style}"), data, 240 + data.randint(-50, 50), 180, 1.7)
    return image


def identicon(style: int, content: str) -> Image.Image:
    form, data = Random(f"identicon {style}"), Random(f"identicon {style} {content}")
    image = Image.new("RGB", (7, 7), (form.randint(225, 255),) * 3)
    shade = colour(data, 40, 190)
    for x in range(3):
        for y in range(5):
            if data.random() < 0.5:
                image.putpixel((x + 1, y + 1), shade)
                image.putpixel((5 - x, y + 1), shade)
    return image.resize((420, 420), Image.Resampling.NEAREST)


def icon(style: int, content: str) -> Image.Image:
    form, data = Random(f"icon {style}"), Random(f"icon {style} {content}")
    size = (64, 96, 128, 48)[style % 4]
    image = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((8, 8, 248, 248), form.choice((20, 60, 120)), fill=colour(form, 40, 220))
    ink = colour(form, 200, 255) if form.random() < 0.7 else (0, 0, 0)
    for _ in range(data.randint(3, 5)):
        points = [(data.randint(40, 216), data.randint(40, 216)) for _ in range(data.randint(3, 5))]
        if data.random() < 0.5:
            draw.polygon(points, fill=ink, outline=colour(data))
        else:
            draw.line(points, fill=ink, width=14)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def tiling(style: int, content: str) -> Image.Image:
    form, data = Random(f"tiling {style}"), Random(f"tiling {style} {content}")
    size = form.choice((40, 56, 72))
    tile = Image.new("RGB", (size, size), colour(data, 120, 255))
    draw = ImageDraw.Draw(tile)
    for _ in range(4):
        box = sorted(data.randint(0, size) for _ in range(2)) + sorted(
            data.randint(0, size) for _ in range(2)
        )
        place = (box[0], box[2], box[1] + 3, box[3] + 3)
        (draw.ellipse if data.random() < 0.5 else draw.rectangle)(place, fill=colour(data))
    image = Image.new("RGB", (600, 450))
    for x in range(0, 600, size):
        for y in range(0, 450, size):
            image.paste(tile, (x, y))
    return image


def flat(style: int, content: str) -> Image.Image:
    data = Random(f"flat {style} {content}")
    return Image.new("RGB", (300 + 40 * (style % 3), 300), colour(data))


def gradient(style: int, content: str) -> Image.Image:
    data = Random(f"gradient {style} {content}")
    ramp = Image.linear_gradient("L") if style % 2 else Image.radial_gradient("L")
    ramp = ramp.resize((512, 384)).rotate(data.choice((0, 180)))
    low, high = colour(data), colour(data)
    return Image.composite(
        Image.new("RGB", ramp.size, low), Image.new("RGB", ramp.size, high), ramp
    )


def logo(style: int, content: str) -> Image.Image:
    """A logo on the chequers that stand for transparency."""
    form, data = Random(f"logo {style}"), Random(f"logo {style} {content}")
    size = form.choice((12, 16, 24))
    image = Image.new("RGB", (560, 420), "white")
    draw = ImageDraw.Draw(image)
    for x in range(0, 560, size):
        for y in range(0, 420, size):
            if (x // size + y // size) % 2:
                draw.rectangle((x, y, x + size - 1, y + size - 1), fill=(204, 204, 204))
    points = [(data.randint(130, 430), data.randint(80, 280)) for _ in range(data.randint(4, 7))]
    draw.polygon(points, fill=colour(data, 0, 200))
    draw.ellipse((230, 100, 330, 200), fill=colour(data, 0, 200))
    draw.text((150, 300), word(data).upper(), fill=colour(data, 0, 150), font=font(64, 2))
    return image


DRAWINGS: dict[str, Drawing] = {
    "invoice": invoice,
    "chat": chat,
    "browser": browser,
    "chart": chart,
    "qr": qr,
    "page": page,
    "comic": comic,
    "character": character,
    "identicon": identicon,
    "icon": icon,
    "tiling": tiling,
    "flat": flat,
    "gradient": gradient,
    "logo": logo,
}
