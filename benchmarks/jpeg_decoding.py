"""JPEGs decoded as uploads are, against Pillow: `python -m benchmarks.jpeg_decoding PHOTOS_FOLDER`.

Both reduce by the same factor while decoding, and end with an array; both take turns, on one
thread. Prints medians of processor time for a picture, and in how many both have the same pixels.
The large files are mosaics of the folder's photographs, as a camera writes them.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from benchmarks import loading
from models.pictures.damage import load_jpeg
from models.pictures.files import jpeg
from models.types import Pixels

LARGE, COUNT = (4000, 3000), 6


def by_pillow(data: bytes) -> Pixels:
    image = JpegImageFile(io.BytesIO(data))
    image.decodermaxblock = len(data)
    reduction = jpeg.reduction(min(image.size))
    if reduction > 1:
        image.draft("RGB", (image.width // reduction, image.height // reduction))
    return np.asarray(image)


def ours(data: bytes) -> Pixels:
    image = JpegImageFile(io.BytesIO(data))
    loaded = load_jpeg(image, data, jpeg.reduction(min(image.size)))
    assert loaded.samples is not None
    return loaded.samples


def seconds(decode: Callable[[bytes], Pixels], data: bytes) -> float:
    began = time.process_time()
    decode(data)
    return time.process_time() - began


def files_of(folder: Path) -> dict[str, list[bytes]]:
    """Large files that are made here, and the folder's own JPEGs."""
    photographs, rng = loading.read_photographs(folder), np.random.default_rng(3)
    canvases = [loading.mosaic(photographs, *LARGE, rng) for _ in range(COUNT)]
    quality = loading.camera_quality(canvases[0])
    own = [path.read_bytes() for path in sorted(folder.iterdir())]
    return {
        "12 MP": [loading.as_jpeg(canvas, quality) for canvas in canvases],
        "the folder's own": [data for data in own if data[:2] == b"\xff\xd8" and _is_rgb(data)],
    }


def _is_rgb(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return image.mode == "RGB" and image.format == "JPEG"


def row_of(name: str, files: Sequence[bytes], rounds: int) -> list[str]:
    times: dict[str, list[float]] = {"ours": [], "pillow": []}
    for _ in range(rounds):
        for data in files:
            times["ours"].append(seconds(ours, data))
            times["pillow"].append(seconds(by_pillow, data))
    mine, other = (statistics.median(times[one]) * 1e3 for one in ("ours", "pillow"))
    same = sum(np.array_equal(ours(data), by_pillow(data)) for data in files)
    return [name, f"{other:.1f}", f"{mine:.1f}", f"{mine / other:.2f}", f"{same} of {len(files)}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rows = [row_of(name, files, given.rounds) for name, files in files_of(given.folder).items()]
    loading.print_table(("JPEGs", "Pillow, ms", "ours, ms", "ratio", "the same pixels"), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
