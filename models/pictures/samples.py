"""From samples to a picture of 8 bits."""

from __future__ import annotations

from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.IcoImagePlugin import IcoImageFile

from models.pictures.damage import Loaded, refuse_less_than_half
from models.pictures.files import bmp, bmp_rle, ico
from models.pictures.files.psd import PsdHeader
from models.pictures.files.tiff import TiffPage, TiffPixels
from models.pictures.flattening import eight_bits
from models.types import Pixels

_MOST_JXL_FRAMES = 10
_OLD = {"BMP", "TGA", "ICO"}
_OPAQUE = 255
_JPEG2000_SIZE, _JPEG2000_DEPTH = b"\xff\x4f\xff\x51", 42
"""The beginning of a codestream, and where the depth of its first component stands (SIZ)."""


def image_of(read: TiffPixels) -> Image.Image:
    """The picture in mode L, LA, RGB, RGBA or CMYK; unsigned samples are scaled by their number of
    bits, others by their range."""
    if read.palette is not None:
        return Image.fromarray((read.palette >> 8).astype(np.uint8)[read.samples[..., 0]])
    samples = read.samples
    used = [*range(read.colors), *([] if read.alpha is None else [read.alpha])]
    # What is stored in more bits than it needs is scaled by its range.
    if read.depth is None or (read.depth > 16 and samples.max() < 1 << 16):
        bands = eight_bits(samples[..., : read.colors])
        alpha = samples[..., used[read.colors :]].astype(np.float32)
        high = 1.0 if samples.dtype.kind == "f" else float(np.iinfo(samples.dtype).max)
        bands = np.concatenate([bands, np.rint(np.clip(alpha / high, 0, 1) * 255)], 2)
    else:
        high = (1 << read.depth) - 1
        bands = np.rint(samples[..., used].astype(np.float32) * np.float32(255 / high))
    pixels = np.ascontiguousarray(bands.astype(np.uint8))
    if read.inverted:
        pixels[..., 0] = 255 - pixels[..., 0]
    if read.cmyk:
        image = Image.fromarray(np.ascontiguousarray(pixels[..., :4]), "CMYK")
        if read.alpha is None:
            return image
        image = image.convert("RGB")
        image.putalpha(Image.fromarray(np.ascontiguousarray(pixels[..., 4])))
        return image
    image = image_of_bands(pixels)
    if read.premultiplied and image.mode in ("LA", "RGBA"):
        multiplied = Image.frombytes(image.mode[:-1] + "a", image.size, image.tobytes())
        return multiplied.convert(image.mode)
    return image


def image_of_bands(pixels: Pixels) -> Image.Image:
    """The picture of uint8 (height, width, bands): gray or RGB, with alpha or without."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode)


def bit_fields_of(data: bytes, layout: bmp.BitFields) -> Loaded:
    """The picture of a BMP with bit fields. Raises BrokenPicture if half is lost."""
    samples, there = bmp.samples_of(data, layout)
    image = image_of_bands(samples)
    image.format = "BMP"
    with_used_alpha(image)
    return _loaded(image, there, "BMP")


def rle_of(data: bytes, layout: bmp_rle.Rle) -> Loaded:
    """The picture of a BMP of runs; what they skip is transparent. Raises BrokenPicture if half is
    lost."""
    found = bmp_rle.unpacked(data, layout)
    refuse_less_than_half(1 - found.lost / layout.height, "BMP", layout.height)
    image = image_of_bands(found.samples)
    image.format = "BMP"
    return Loaded(image, found.truncated, None if found.there.all() else found.there)


def scaled_pnm(body: memoryview, shape: tuple[int, int, int], high: int) -> Loaded:
    """The picture of (height, width, bands) binary samples between 0 and `high`, of two bytes above
    255. Pillow reads those one by one. Raises BrokenPicture if half is lost."""
    kind = np.dtype(np.uint8 if high < 256 else ">u2")
    height, width, bands = shape
    row = width * bands
    rows = min(height, len(body) // (row * kind.itemsize))
    given = np.frombuffer(body, kind, rows * row).reshape(rows, row)
    table = np.rint(np.clip(np.arange(1 << 16) / high, 0, 1) * _OPAQUE).astype(np.uint8)
    samples = np.zeros((height, row), np.uint8)
    for at in range(rows):  # An index takes eight bytes a sample.
        samples[at] = table[given[at]]
    there = np.arange(height)[:, None].repeat(width, 1) < rows
    image = image_of_bands(samples.reshape(shape))
    return _loaded(image, there, "PPM")


def tiff_of(page: TiffPage) -> Loaded:
    """The picture of a TIFF. Raises BrokenPicture if half is lost."""
    read = page.read()
    return _loaded(image_of(read), read.there, "TIFF")


def _loaded(image: Image.Image, there: npt.NDArray[np.bool_], name: str) -> Loaded:
    """A picture of which some pixels may not be there."""
    refuse_less_than_half(float(there.mean()), name, len(there))
    return Loaded(image, not there.all(), None if there.all() else there)


def image_of_psd(planes: Pixels, head: PsdHeader) -> Image.Image:
    """The flattened picture of a Photoshop document, of samples (planes, height, width)."""
    bands = [Image.fromarray(plane) for plane in planes]
    if head.palette:
        palette = np.zeros((3, 256), np.uint8)
        entries = len(head.palette) // 3
        palette[:, :entries] = np.frombuffer(head.palette, np.uint8, 3 * entries).reshape(3, -1)
        image = Image.fromarray(palette.T[planes[0]])
    else:
        image = Image.merge(head.mode, bands[: head.colors])
    if head.has_alpha:
        image = image if image.mode in ("L", "RGB") else image.convert("RGB")
        image.putalpha(bands[head.colors])
    return image


def image_of_deep_jpeg2000(data: bytes) -> Image.Image | None:
    """A JPEG 2000 of colours of more than 8 bits, whose white Pillow makes black; None for others.

    Raises RuntimeError or ValueError if it is damaged.
    """
    at = data.find(_JPEG2000_SIZE)
    bits = (data[at + _JPEG2000_DEPTH] & 0x7F) + 1 if 0 <= at < len(data) - _JPEG2000_DEPTH else 8
    components = data[at + _JPEG2000_DEPTH - 1] if bits > 8 else 1
    if components not in (2, 3, 4):
        return None
    from imagecodecs import jpeg2k_decode

    samples = np.asarray(jpeg2k_decode(data)).astype(np.float32)
    bands = np.rint(samples * np.float32(255 / ((1 << bits) - 1)))
    return image_of_bands(np.clip(bands, 0, 255).astype(np.uint8))


def with_used_alpha(image: Image.Image) -> None:
    """Replace an alpha that is 0 everywhere, as programs of the time before alpha left it: an icon
    has a mask then, and other pictures are opaque."""
    if image.format not in _OLD or image.mode != "RGBA" or any(image.getchannel("A").getextrema()):
        return
    shown = None
    if isinstance(image, IcoImageFile):
        entry = image.ico.entry[image.ico.getentryindex(image.size)]
        shown = ico.mask(_all_of(image.ico.buf), entry.offset, image.size)
    image.putalpha(_OPAQUE if shown is None else Image.fromarray(shown.astype(np.uint8) * 255))


def _all_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def first_jxl_frame(data: bytes, errors: tuple[type[Exception], ...]) -> Image.Image:
    """The first frame of a JPEG XL animation that has more than one colour, else the first.

    Raises one of these errors if it can't be decoded.
    """
    from imagecodecs import jpegxl_decode

    frames: list[Image.Image] = []
    while len(frames) < _MOST_JXL_FRAMES:
        try:
            frame = np.asarray(jpegxl_decode(data, index=len(frames)))
        except errors:
            if frames:
                break
            raise
        high = 1 if frame.dtype.kind == "f" else np.iinfo(frame.dtype).max
        bands = np.rint(np.clip(frame / high, 0, 1) * 255).astype(np.uint8)
        frames.append(image_of_bands(bands if bands.ndim == 3 else bands[..., None]))
        if frame.min() != frame.max():
            return frames[-1]
    return frames[0]
