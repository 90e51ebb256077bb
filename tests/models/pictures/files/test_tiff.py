"""TIFF in the encodings that Pillow reads wrongly or not at all."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from models.errors import BrokenPicture, UnsupportedPicture
from models.pictures.decoding import decode
from tests.models.pictures.test_decoding import drawing, encoded, exif, far

RGB = np.asarray(drawing())
GRAY = np.asarray(drawing().convert("L"))
DEEP = RGB.astype(np.uint16) * 257
CMYK = np.asarray(drawing().convert("CMYK"))
OPAQUE = np.full((*GRAY.shape, 1), 255, np.uint8)


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


def planes(samples: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(samples, 2, 0))


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (planes(DEEP), {"planarconfig": "separate"}),
        (planes(DEEP), {"planarconfig": "separate", "compression": "lzw", "predictor": 2}),
        (planes(DEEP), {"planarconfig": "separate", "tile": (32, 32)}),
        (DEEP, {"tile": (32, 32), "compression": "zlib"}),
        (DEEP, {"byteorder": ">"}),
        (DEEP, {"bigtiff": True}),
        (DEEP, {"bigtiff": True, "byteorder": ">"}),
        (RGB, {"bigtiff": True, "byteorder": ">"}),
        (RGB.astype(np.uint32) * 16843009, {}),
        ((RGB / 255).astype(np.float16), {}),
        ((RGB / 255).astype(np.float32), {}),
        ((RGB / 255).astype(np.float32), {"compression": "zlib", "predictor": 3}),
        ((RGB / 255).astype(np.float64), {}),
        (RGB, {"compression": "webp", "compressionargs": {"lossless": True}}),
        (RGB, {"compression": "zstd"}),
        (RGB, {"compression": "jpeg2000"}),
    ],
)
def test_deep_separate_and_floating_point_samples_are_read(
    samples: np.ndarray, options: dict[str, Any]
) -> None:
    picture = decode(tiff(samples, photometric="rgb", **options))
    assert (picture.width, picture.height, picture.format) == (120, 80, "TIFF")
    assert far(picture.full, RGB) < 0.01
    assert not picture.truncated


@pytest.mark.parametrize(
    "samples", [255 - GRAY, 65535 - GRAY.astype(np.uint16) * 257], ids=["8 bits", "16 bits"]
)
def test_white_is_zero_is_no_negative(samples: np.ndarray) -> None:
    full = decode(tiff(samples, photometric="miniswhite")).full
    assert np.array_equal(full, GRAY[..., None].repeat(3, 2))


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_gray_of_half_floats_and_of_signed_samples_is_read(photometric: str) -> None:
    shown = GRAY if photometric == "minisblack" else 255 - GRAY
    half = (shown / 255).astype(np.float16)
    signed = (shown.astype(np.float32) * (32767 / 255)).astype(np.int16)
    for samples in (half, signed):
        assert far(decode(tiff(samples, photometric=photometric)).full[..., 0], GRAY) < 2


def test_samples_of_12_bits_are_scaled_by_their_bits() -> None:
    full = decode(tiff(GRAY.astype(np.uint16) << 4, bitspersample=12)).full
    assert far(full[..., 0], GRAY) < 1


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_cmyk_with_alpha_and_of_16_bits_is_read(compression: str | None) -> None:
    made = {"photometric": "separated", "compression": compression}
    with_alpha = np.concatenate([CMYK, OPAQUE], 2)
    assert far(decode(tiff(with_alpha, extrasamples=["unassalpha"], **made)).full, RGB) < 1
    assert far(decode(tiff(CMYK.astype(np.uint16) * 257, **made)).full, RGB) < 1
    with_alpha[..., 4] = 0
    assert decode(tiff(with_alpha, extrasamples=["unassalpha"], **made)).full.min() == 255


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_alpha_of_either_kind_is_composited(kind: str, depth: type) -> None:
    high = np.iinfo(depth).max
    half = np.full((*GRAY.shape, 1), high // 2 + 1, depth)
    paint = (RGB.astype(depth) * (high // 255)) // (2 if kind == "assocalpha" else 1)
    samples = np.concatenate([paint, half], 2)
    full = decode(tiff(samples, photometric="rgb", extrasamples=[kind])).full
    assert far(full, RGB / 2 + 127.5) < 2


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_orientation_is_applied_once(orientation: int) -> None:
    turns = {3: 2, 6: 1, 8: 3}[orientation]
    stored = np.ascontiguousarray(np.rot90(DEEP, turns))
    data = tiff(stored, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    picture = decode(data)
    assert (picture.width, picture.height) == (120, 80)
    assert far(picture.full, RGB) == 0
    eight = Image.fromarray(np.ascontiguousarray(np.rot90(RGB, turns)))
    cut = encoded(eight, "TIFF", exif=exif(orientation))[:-2000]
    assert decode(cut).full.shape == (80, 120, 3)


def test_the_first_page_is_shown_that_is_no_reduced_copy() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(RGB[::4, ::4], photometric="rgb", subfiletype=1)
        writer.write(RGB, photometric="rgb")
    assert np.array_equal(decode(file.getvalue()).full, RGB)


@pytest.mark.parametrize(
    ("samples", "options", "named"),
    [
        (DEEP, {"photometric": "icclab"}, "icclab"),
        (GRAY.astype(np.complex64), {}, "complex samples of 64 bits"),
        (DEEP, {"photometric": "logluv"}, "logluv"),
    ],
)
def test_other_encodings_are_refused_by_their_name(
    samples: np.ndarray, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(UnsupportedPicture, match=named):
        decode(tiff(samples, **options))


def test_deep_samples_that_end_early_are_taken_from_half_on() -> None:
    data = tiff(DEEP, photometric="rgb", rowsperstrip=4)
    picture = decode(data[: int(len(data) * 0.7)])
    assert picture.truncated
    assert np.array_equal(picture.full[:48], RGB[:48])
    assert picture.full[-1].min() == 255
    with pytest.raises(BrokenPicture, match="of its 80 rows are there"):
        decode(data[: int(len(data) * 0.4)])


def test_gray_of_32_bits_is_scaled_by_its_bits_or_by_its_range_if_that_is_small() -> None:
    want = GRAY[..., None].repeat(3, 2)
    full_range = GRAY.astype(np.uint32) * 16843009
    assert far(decode(tiff(full_range)).full, want) < 1
    assert far(decode(tiff(GRAY.astype(np.uint32) * 257)).full, want) < 1
