"""Pictures of the page for the documentation: `python -m tests.screenshots`.

It draws a small collection, serves it in this process, and photographs every view in a headless
Chromium, light and dark, into `docs/images/`.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from playwright.sync_api import FilePayload, Page, ViewportSize, sync_playwright

from tests.conftest import ROOT
from tests.deployments.page.conftest import BROWSER
from tests.deployments.page.site import RETRIEVERS, Site, find_duplicates, site

FOLDER = ROOT / "docs" / "images"
WINDOW = ViewportSize(width=1200, height=800)
QUALITY = 85
HERO = 2
Picture = Image.Image
SIDES = ((900, 600), (600, 800), (900, 600), (800, 800), (1000, 562), (640, 800))
SKIES = (
    ((38, 70, 120), (236, 170, 120)),
    ((92, 150, 205), (225, 236, 240)),
    ((40, 36, 72), (206, 96, 92)),
    ((120, 170, 190), (250, 232, 200)),
    ((24, 44, 66), (110, 150, 160)),
    ((150, 120, 150), (250, 214, 190)),
)


def landscape(seed: int) -> Picture:
    """Draw hills under a sky, with a sun, trees, houses and water; seeds draw different places."""
    random = np.random.default_rng(seed)
    width, height = SIDES[seed % len(SIDES)]
    top, bottom = (np.array(colour, float) for colour in SKIES[int(random.integers(len(SKIES)))])
    down = np.linspace(0, 1, height)[:, None, None] ** 0.8
    sky = (top + (bottom - top) * down) * np.ones((1, width, 1))
    image = Image.fromarray(sky.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    _sun(draw, random, width, height)
    horizon = height * random.uniform(0.35, 0.55)
    ground = np.array([random.uniform(30, 90), random.uniform(80, 130), random.uniform(60, 110)])
    layers = int(random.integers(3, 6))
    for layer in range(layers):
        near = layer / (layers - 1)
        colour = tuple(
            int(value) for value in bottom * (1 - near) * 0.75 + ground * (0.35 + 0.5 * near)
        )
        base = horizon + (height - horizon) * near * 0.75
        line = _ridge(random, width, base, height * (0.16 - 0.09 * near))
        draw.polygon([(0, height), *line, (width, height)], fill=colour)
        if near > 0.3:
            _trees(draw, random, line, near, colour)
    if random.random() < 0.75:
        _houses(draw, random, width, height, base)
    if random.random() < 0.5:
        image = _water(image, int(height * random.uniform(0.72, 0.82)))
    noise = random.normal(0, 5, (height, width, 1))
    grain = (np.asarray(image, float) + noise).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grain).filter(ImageFilter.GaussianBlur(0.5))


def _sun(draw: ImageDraw.ImageDraw, random: Any, width: int, height: int) -> None:
    x, y = random.uniform(0.15, 0.85) * width, random.uniform(0.1, 0.3) * height
    for radius, strength in ((70, 40), (52, 90), (36, 255)):
        colour = (255, 236, 190) if strength == 255 else (255, 220 - strength // 2, 170)
        if strength == 255:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
    for _ in range(int(random.integers(3, 8))):
        across, down = random.uniform(0, width), random.uniform(0.05, 0.35) * height
        for _ in range(7):
            dx, dy, size = random.normal(0, 45), random.normal(0, 6), random.uniform(10, 26)
            box = [
                across + dx - 2 * size,
                down + dy - size / 2,
                across + dx + 2 * size,
                down + dy + size / 2,
            ]
            draw.ellipse(box, fill=(244, 240, 236))


def _ridge(random: Any, width: int, base: float, rise: float) -> list[tuple[float, float]]:
    waves = [
        (random.uniform(0.6, 2.4), random.uniform(0, 6.3), random.uniform(0.4, 1)) for _ in range(3)
    ]
    waves += [
        (random.uniform(5, 22), random.uniform(0, 6.3), random.uniform(0.03, 0.12))
        for _ in range(4)
    ]
    xs = np.linspace(0, width, 160)
    ys = base - rise * sum(
        size * np.sin(turns * 2 * math.pi * xs / width + phase) for turns, phase, size in waves
    )
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def _trees(
    draw: ImageDraw.ImageDraw,
    random: Any,
    line: list[tuple[float, float]],
    near: float,
    colour: Any,
) -> None:
    for _ in range(int(26 * near) + 6):
        x, y = line[int(random.integers(len(line)))]
        size = (10 + 34 * near) * random.uniform(0.6, 1.3)
        shade = tuple(int(value * random.uniform(0.45, 0.95)) for value in colour)
        y += random.uniform(0, 60) * near
        if random.random() < 0.6:
            draw.polygon([(x, y - 2 * size), (x - size / 2, y), (x + size / 2, y)], fill=shade)
        else:
            draw.ellipse([x - size / 2, y - 1.4 * size, x + size / 2, y - 0.3 * size], fill=shade)
            draw.line([(x, y - 0.4 * size), (x, y)], fill=(60, 44, 34), width=max(1, int(size / 9)))


def _houses(draw: ImageDraw.ImageDraw, random: Any, width: int, height: int, base: float) -> None:
    left = random.uniform(0.08, 0.45) * width
    for _ in range(int(random.integers(1, 5))):
        across, up = random.uniform(70, 140), random.uniform(60, 130)
        floor = min(height - 10.0, base + random.uniform(40, 90))
        wall = tuple(int(value) for value in random.uniform(130, 250, 3))
        draw.rectangle([left, floor - up, left + across, floor], fill=wall)
        roof = tuple(int(value) for value in random.uniform(50, 160, 3) * (1, 0.6, 0.5))
        peak = (left + across / 2, floor - up - random.uniform(25, 55))
        draw.polygon([(left - 9, floor - up), peak, (left + across + 9, floor - up)], fill=roof)
        for column in range(int(across // 34)):
            for row in range(int(up // 40)):
                x, y = left + 12 + 34 * column, floor - up + 14 + 40 * row
                lit = (250, 226, 150) if random.random() < 0.5 else (70, 84, 100)
                draw.rectangle([x, y, x + 14, y + 18], fill=lit)
        left += across * random.uniform(0.95, 1.5)


def _water(image: Picture, shore: int) -> Picture:
    height = image.height - shore
    mirror = ImageOps.flip(image.crop((0, shore - height, image.width, shore)))
    rows = np.asarray(mirror.filter(ImageFilter.GaussianBlur(3)), float) * 0.72 + (8, 22, 34)
    waves = (
        12
        * np.sin(np.arange(height)[:, None, None] / 3.1)
        * np.linspace(0, 1, height)[:, None, None]
    )
    made = image.copy()
    made.paste(Image.fromarray((rows + waves).clip(0, 255).astype(np.uint8)), (0, shore))
    return made


def signed(image: Picture, words: str) -> Picture:
    """Return the picture with a sign that says these words."""
    made = image.copy()
    draw = ImageDraw.Draw(made)
    font = ImageFont.load_default(54)
    left, top, right, bottom = draw.textbbox((60, 60), words, font=font)
    draw.rectangle(
        [left - 22, top - 16, right + 22, bottom + 18],
        fill=(250, 246, 236),
        outline=(60, 40, 30),
        width=5,
    )
    draw.text((60, 60), words, font=font, fill=(120, 30, 30))
    return made


def retouched(image: Picture) -> Picture:
    """Return the picture with a balloon in it that was not there."""
    made = image.copy()
    draw = ImageDraw.Draw(made)
    x, y = int(0.66 * image.width), int(0.2 * image.height)
    draw.ellipse([x, y, x + 90, y + 110], fill=(206, 60, 48))
    draw.polygon(
        [(x + 32, y + 106), (x + 58, y + 106), (x + 54, y + 140), (x + 36, y + 140)],
        fill=(90, 60, 40),
    )
    return made


def cropped(image: Picture, left: float, top: float, share: float) -> Picture:
    """Return a part of the picture, `share` of its sides."""
    width, height = image.size
    box = (left * width, top * height, (left + share) * width, (top + share) * height)
    return image.crop(tuple(round(edge) for edge in box))


def collection() -> list[tuple[str, Picture, dict[str, Any]]]:
    """Return names, pictures and metadata: places, and what became of one of them."""
    tags = ("coast", "hills", "village")
    places = [(f"place-{at:02}.jpg", landscape(at), {"tags": [tags[at % 3]]}) for at in range(34)]
    hero = landscape(HERO)
    variants = {
        "small.jpg": hero.resize((450, 300)),
        "mirrored.jpg": ImageOps.mirror(hero),
        "detail.jpg": cropped(hero, 0.2, 0.25, 0.6),
        "balloon.jpg": retouched(hero),
        "corner.jpg": cropped(hero, 0.4, 0.4, 0.5),
        "framed.jpg": ImageOps.expand(hero, 50, (30, 30, 34)),
    }
    edited = [(name, picture, {"tags": ["edited"]}) for name, picture in variants.items()]
    return [*places, *edited, ("hotel.jpg", signed(landscape(8), "HOTEL HARBOUR"), {})]


def jpeg(image: Picture, quality: int = 88) -> bytes:
    """Return the picture as a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def fill(served: Site) -> None:
    """Add the collection, and find its duplicates."""
    ids = {}
    with served.client() as client:
        for at, (name, picture, metadata) in enumerate(collection()):
            parts = {"image": (name, jpeg(picture)), "metadata": (None, json.dumps(metadata))}
            client.put(f"/v1/images/{at}", files=parts).raise_for_status()
            ids[name] = at
        words = {"annotations": {"ocr": {"text": "HOTEL HARBOUR"}}}
        client.patch(f"/v1/images/{ids['hotel.jpg']}", json=words).raise_for_status()
    find_duplicates(served)


def search(page: Page) -> None:
    """Search by a picture."""
    photo = FilePayload(name="holiday.jpg", mimeType="image/jpeg", buffer=jpeg(landscape(HERO)))
    page.locator("#file").set_input_files(photo)
    page.locator(".verdict").wait_for()


def compare(page: Page) -> None:
    """Show what was changed."""
    page.locator(".why", has_text="edited").first.click()
    page.locator(".layer:not(.unknown)").first.wait_for()
    page.keyboard.press("4")


def duplicates(page: Page) -> None:
    """Decide on duplicates."""
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Duplicates").click()
    page.locator(".differences").wait_for()
    page.locator(".layer:not(.unknown)").nth(1).wait_for()


def state(page: Page) -> None:
    """Show the state, and search to try it."""
    page.get_by_role("link", name="State").click()
    page.get_by_role("button", name="Run a test search").click()
    page.get_by_text("found itself").wait_for()
    page.evaluate("scrollTo(0, 0)")


VIEWS: tuple[Callable[[Page], None], ...] = (search, compare, duplicates, state)


def photograph(served: Site, scheme: Literal["light", "dark"], executable: str) -> None:
    """Write a picture of each view."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW, color_scheme=scheme, reduced_motion="reduce")
        page.goto(served.url)
        for view in VIEWS:
            view(page)
            page.wait_for_load_state("networkidle")
            page.mouse.move(0, 0)
            shot = Image.open(io.BytesIO(page.screenshot()))
            suffix = "" if scheme == "light" else "-dark"
            path = FOLDER / f"{view.__name__}{suffix}.webp"
            shot.convert("RGB").save(path, quality=QUALITY, method=6)
            print(path.name, path.stat().st_size)
        browser.close()


def main() -> None:
    """Photograph all views, light and dark."""
    executable = BROWSER or sys.exit("no Chromium on this machine")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AMBIENCE_DATA"] = folder
        with site(Path(folder), *RETRIEVERS) as served:
            fill(served)
            photograph(served, "light", executable)
            photograph(served, "dark", executable)


if __name__ == "__main__":
    main()
