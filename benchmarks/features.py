"""Prove pHash and colour against whole decodes: `python benchmarks/features.py PHOTOS_FOLDER`.

Ours go through the service's decoder, which reduces large JPEGs while decoding. The reference is
computed here from the definitions: every pixel decoded and shown as in a browser, luma, Lanczos to
96x96, a DCT by explicit cosine matrices; and a histogram counted with NumPy. Exits with 1 if a
target is missed.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

sys.path.insert(0, str(Path(__file__).parent.parent))

from models.pictures.decoding import decode
from models.registry import make_extractor

RATIOS = (1.0, 4 / 3, 3 / 2, 16 / 9, 2.0, 5 / 2, 3.0, 4.0)
LIMITS = {"pHash bits": (2.0, 8.0), "colour L1 %": (1.0, 3.0)}
"""Of each feature the greatest median and the greatest single difference."""


def reference_bits(image: Image.Image) -> npt.NDArray[np.bool_]:
    grid = np.asarray(image.convert("L").resize((96, 96), Image.Resampling.LANCZOS), np.float64)
    k, n = np.arange(24)[:, None], np.arange(96)[None, :]
    cosines = 2 * np.cos(np.pi * k * (2 * n + 1) / (2 * 96))
    low = cosines @ grid @ cosines.T
    bits: npt.NDArray[np.bool_] = (low > np.median(low)).ravel()
    return bits


def reference_histogram(image: Image.Image) -> npt.NDArray[np.float64]:
    cells = np.asarray(image).reshape(-1, 3).astype(np.int64) // 32
    counts = np.bincount(cells @ np.array([64, 8, 1]), minlength=512)
    shares: npt.NDArray[np.float64] = counts / counts.sum()
    return shares


def upright(data: bytes) -> Image.Image:
    """The picture as a browser shows it."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("RGBA", "LA"):
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image.getchannel("A"))
        image = ground
    icc = image.info.get("icc_profile")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc)) if icc else None
        if profile is None or "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image.convert("RGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        to = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, profile, to, intent, "RGB") or image
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")


def photographs(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.iterdir()):
        try:
            Image.open(path).close()
        except UnidentifiedImageError:
            print(f"left out, no picture: {path.name}")
            continue
        yield path.name, path.read_bytes()


def scalable(name: str, data: bytes) -> bool:
    """False for test images made of alternating lines, whose colours no scaler can keep."""
    image = upright(data)
    moved = abs(reference_histogram(image) - reference_histogram(image.reduce(2))).sum()
    if moved > 1:
        print(f"left out of the mosaics: {name}, halving it moves its histogram by {moved:.0%}")
    return bool(moved <= 1)


def mosaics(files: list[bytes], count: int, tiles: int) -> Iterator[tuple[str, bytes]]:
    """JPEGs of 12 to 24 MP, each of about `tiles` photographs; half of them upright."""
    rng = np.random.default_rng(0)
    for number in range(count):
        ratio = RATIOS[number % len(RATIOS)]
        area = rng.uniform(12e6, 24e6)
        canvas = Image.new("RGB", (int(np.sqrt(area * ratio)), int(np.sqrt(area / ratio))))
        rows = max(1, round(np.sqrt(tiles / ratio)))
        tile = -(-canvas.height // rows)
        for x in range(0, canvas.width, tile):
            for y in range(0, canvas.height, tile):
                photo = upright(files[rng.integers(len(files))])
                canvas.paste(ImageOps.fit(photo, (tile, tile), Image.Resampling.BICUBIC), (x, y))
        if number // len(RATIOS) % 2:
            canvas = canvas.transpose(Image.Transpose.ROTATE_90)
        file = io.BytesIO()
        canvas.save(file, "JPEG", quality=90)
        yield f"mosaic {number} {canvas.width}x{canvas.height}", file.getvalue()


def differences(pictures: Iterator[tuple[str, bytes]]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Names, and rows of (pHash bits, colour L1 %, CPU ms of decode, pHash, colour)."""
    phash, color = make_extractor("phash"), make_extractor("color")
    names, rows = [], []
    for name, data in pictures:
        start = time.process_time()
        full = decode(data).full
        decoded = time.process_time()
        bits = np.unpackbits(phash.extract(full)).astype(bool)
        hashed = time.process_time()
        histogram = color.extract(full).astype(np.float64)
        done = time.process_time()
        whole = upright(data)
        moved = abs(histogram / histogram.sum() - reference_histogram(whole)).sum() * 100
        flipped = np.count_nonzero(bits != reference_bits(whole))
        spent = np.diff([start, decoded, hashed, done]) * 1e3
        names.append(name)
        rows.append((flipped, moved, *spent))
    return names, np.array(rows)


def report(title: str, names: list[str], rows: npt.NDArray[np.float64]) -> bool:
    decode_ms, phash_ms, color_ms = np.median(rows[:, 2:], axis=0)
    print(f"\n{title}: {len(names)}")
    print(f"  median CPU ms: decode {decode_ms:.1f}, pHash {phash_ms:.1f}, colour {color_ms:.1f}")
    print(f"  {'':12} {'median':>7} {'p95':>7} {'max':>7}   worst")
    kept = True
    for (feature, (most_median, most)), column in zip(LIMITS.items(), rows.T, strict=False):
        median, high, worst = np.median(column), np.percentile(column, 95), column.max()
        good = median <= most_median and worst <= most
        kept &= good
        mark = "" if good else f"   MISSED: at most {most_median:g} and {most:g}"
        print(
            f"  {feature:12} {median:7.2f} {high:7.2f} {worst:7.2f}   "
            f"{names[int(column.argmax())]}{mark}"
        )
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--mosaics", type=int, default=50)
    parser.add_argument("--tiles", type=int, default=12, help="photographs in a mosaic")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    photos = list(photographs(options.photos))
    kept = report("photographs", *differences(iter(photos)))
    if options.mosaics:
        files = [data for name, data in photos if scalable(name, data)]
        made = mosaics(files, options.mosaics, options.tiles)
        kept &= report("mosaics of 12-24 MP", *differences(made))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
