"""A decoded picture with the three views that extractors take, and their scaling."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from PIL import Image

from models.errors import InvalidInput
from models.pictures.files.jpeg import reduction
from models.types import FileFacts, Pixels, View

FULL_LONG = 2048
GRAY_LONG = 1024
PREVIEW_SHORT, PREVIEW_LONG = 384, 800


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture. Its arrays are contiguous, read-only uint8 with every side ≥ 1."""

    full: Pixels
    """RGB (height, width, 3), long side ≤ 2048."""
    width: int
    """Width of the original in pixels, after its EXIF orientation is applied; so is `height`."""
    height: int
    format: str
    """Pillow's name of the file's format, such as JPEG, MPO, PPM or HEIF; `RAW` for a preview."""
    truncated: bool = False
    """Whether the file is cut short or damaged, and shows only a part."""
    facts: FileFacts | None = None
    """What the file says beside its pixels; None for a part of a picture."""

    def __post_init__(self) -> None:
        self.full.flags.writeable = False

    def __reduce__(self) -> tuple[type[Picture], tuple[Any, ...]]:
        about = self.width, self.height, self.format, self.truncated, self.facts
        return Picture, (self.full, *about)

    @cached_property
    def preview(self) -> Pixels:
        """RGB (height, width, 3), short side ≤ 384 and long side ≤ 800."""
        sides = self.full.shape[:2]
        return _downscaled(self.full, min(PREVIEW_SHORT / min(sides), PREVIEW_LONG / max(sides)))

    @cached_property
    def gray(self) -> Pixels:
        """Luma (ITU-R BT.601) of shape (height, width), long side ≤ 1024."""
        luma = np.asarray(cv2.cvtColor(self.full, cv2.COLOR_RGB2GRAY), np.uint8)
        return _downscaled(luma, GRAY_LONG / max(luma.shape))

    def view(self, name: View) -> Pixels:
        """The view with this name."""
        pixels: Pixels = getattr(self, name)
        return pixels

    def preview_jpeg(self, quality: int = 85) -> bytes:
        """The preview as a JPEG file."""
        file = io.BytesIO()
        Image.fromarray(self.preview).save(file, "JPEG", quality=quality)
        return file.getvalue()

    def crop(self, x: float, y: float, width: float, height: float) -> Picture:
        """The part of the picture inside a box. The box is in pixels of the original and is clipped
        to the picture.

        Raises InvalidInput if the box lies outside.
        """
        left, top = max(x, 0.0), max(y, 0.0)
        right, bottom = min(x + width, self.width), min(y + height, self.height)
        if not (left < right and top < bottom):
            raise InvalidInput(
                f"the region lies outside the picture of {self.width}x{self.height}", "region"
            )
        down, across = self.full.shape[0] / self.height, self.full.shape[1] / self.width
        rows = slice(int(top * down), max(int(top * down) + 1, round(bottom * down)))
        columns = slice(int(left * across), max(int(left * across) + 1, round(right * across)))
        part = np.ascontiguousarray(self.full[rows, columns])
        size = max(1, round(right - left)), max(1, round(bottom - top))
        return Picture(part, *size, self.format, self.truncated)


def gray_lengths(width: int, height: int) -> list[float]:
    """Possible long sides of the gray view of a picture of this size.

    There are two if the decoder of its format may have reduced it below GRAY_LONG.
    """
    lengths = [max(width, height), max(width, height) / reduction(min(width, height))]
    return sorted({min(float(GRAY_LONG), length) for length in lengths})


def full_view(image: Image.Image) -> Pixels:
    factor = max(image.size) / FULL_LONG
    if factor >= 3:
        image = image.reduce(int(factor / 1.5))
    return full_pixels(np.asarray(image, np.uint8))


def full_pixels(pixels: Pixels) -> Pixels:
    """The full view of samples (height, width, …), less than three times as long."""
    scale = FULL_LONG / max(pixels.shape[:2])
    # Cubic interpolation keeps the distribution of colours; averaging filters move the
    # histogram twice as far.
    return pixels if scale >= 1 else _resized(pixels, _size(pixels, scale), cv2.INTER_CUBIC)


def _downscaled(pixels: Pixels, scale: float) -> Pixels:
    size = _size(pixels, scale) if scale < 1 else pixels.shape[:2]
    while pixels.shape[0] >= 2 * size[0] and pixels.shape[1] >= 2 * size[1]:
        # Averaging 2x2 pixels first is twelve times as fast, because OpenCV is fast at integer
        # ratios.
        half = pixels.shape[0] // 2, pixels.shape[1] // 2
        pixels = _resized(pixels[: 2 * half[0], : 2 * half[1]], half, cv2.INTER_AREA)
    small = pixels if pixels.shape[:2] == size else _resized(pixels, size, cv2.INTER_AREA)
    small.flags.writeable = False
    return small


def _size(pixels: Pixels, scale: float) -> tuple[int, int]:
    """Height and width after scaling."""
    height, width = pixels.shape[:2]
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(pixels: Pixels, size: tuple[int, int], interpolation: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=interpolation), np.uint8)


def oriented(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (TIFF 6.0, tag 274)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
