"""Pictures that tests draw: textured enough for keypoints, with a different scene for each seed."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def scene(seed: int, width: int = 640, height: int = 480) -> Image.Image:
    """Draw overlapping shapes over soft noise; the same seed always gives the same picture."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y = random.integers(0, width), random.integers(0, height)
        across, down = random.integers(10, width // 4), random.integers(10, height // 4)
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        box = [int(x), int(y), int(x + across), int(y + down)]
        if random.random() < 0.5:
            draw.rectangle(box, fill=colour)
        else:
            draw.ellipse(box, fill=colour)
    return image.filter(ImageFilter.GaussianBlur(0.6))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Return the picture encoded as a file."""
    file = io.BytesIO()
    if kind == "JPEG":
        options.setdefault("quality", 90)
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def jpeg(seed: int, width: int = 640, height: int = 480) -> bytes:
    """Return a scene as a JPEG."""
    return encoded(scene(seed, width, height))
