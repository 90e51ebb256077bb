"""Enlarged photographs told from those with more detail: `python -m benchmarks.enlarged PHOTOS`.

Each photograph, reduced to a long side of 500 pixels, is enlarged by each filter and factor and
encoded again. Right is that it was enlarged; of the photograph itself, beside a smaller one, that
it was not.
"""

from __future__ import annotations

import argparse
import io
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from indexes.relation.enlargement import is_enlarged
from models.types import Pixels

SIDE, FACTORS, QUALITY = 500, (1.5, 2, 3), 80


def stored(image: Image.Image) -> Pixels:
    """The grey values of a picture after it was stored as JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return np.asarray(cv2.imdecode(np.frombuffer(file.getbuffer(), np.uint8), 0), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--every", type=int, default=10)
    given = parser.parse_args()
    right, total = Counter[tuple[str, float]](), Counter[tuple[str, float]]()
    for path in sorted(given.photos.glob("*.[jp][pn]g"))[:: given.every]:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        for factor in FACTORS:
            total["not enlarged", factor] += 1
            right["not enlarged", factor] += not is_enlarged(stored(image), 1 / factor)
            size = round(image.width * factor), round(image.height * factor)
            for how in (0, 1, 2, 3):
                name = Image.Resampling(how).name.lower()
                total[name, factor] += 1
                right[name, factor] += is_enlarged(stored(image.resize(size, how)), 1 / factor)
    for (name, factor), count in sorted(total.items()):
        print(f"{name:>12} {factor}: {right[name, factor]} of {count}")


if __name__ == "__main__":
    main()
