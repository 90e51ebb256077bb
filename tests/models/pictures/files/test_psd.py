"""Photoshop documents: the flattened picture, in every encoding that is read."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.errors import BrokenPicture, InvalidInput, PictureTooLarge, UnsupportedPicture
from models.pictures.decoding import DecodeLimits, decode, read_header
from tests.models.pictures.test_colour import rgb_profile
from tests.models.pictures.test_decoding import drawing, far

SHOWN = np.asarray(drawing())
RGB, GRAY, CMYK, INDEXED, LAB, BITMAP = 3, 1, 4, 2, 9, 0
ALPHA_IDS, ICC = 1053, 1039


def packed_row(row: bytes) -> bytes:
    """Return a row in PackBits, as literal runs."""
    parts = (row[at : at + 128] for at in range(0, len(row), 128))
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


def block(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def resource(number: int, body: bytes) -> bytes:
    return b"8BIM" + struct.pack(">H", number) + b"\0\0" + block(body) + bytes(len(body) & 1)


def psd(
    samples: npt.NDArray[Any],
    mode: int,
    *,
    packed: bool = False,
    large: bool = False,
    palette: bytes = b"",
    resources: bytes = b"",
    layers: bytes = b"",
) -> bytes:
    """Return a flattened document, 120 pixels wide, of samples (channels, 80, samples of a row)."""
    depth = 1 if mode == BITMAP else 8 * samples.itemsize
    rows = [row.astype(row.dtype.newbyteorder(">")).tobytes() for plane in samples for row in plane]
    body = b"\0\0"
    if packed:
        rows = [packed_row(row) for row in rows]
        sizes = (struct.pack(">I" if large else ">H", len(row)) for row in rows)
        body = b"\0\1" + b"".join(sizes)
    version = 2 if large else 1
    return b"".join(
        [
            b"8BPS" + struct.pack(">H6xHIIHH", version, len(samples), 80, 120, depth, mode),
            block(palette),
            block(resources),
            bytes(4) * large + block(layers),
            body,
            *rows,
        ]
    )


def planes(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("kind", "mode"), [("RGB", RGB), ("L", GRAY), ("CMYK", CMYK)])
def test_the_flattened_picture_is_shown(
    kind: str, mode: int, packed: bool, large: bool, deep: bool
) -> None:
    image = drawing().convert(kind)
    samples = planes(np.asarray(image))
    if kind == "CMYK":
        samples = 255 - samples
    if deep:
        samples = samples.astype(np.uint16) * 257
    picture = decode(psd(samples, mode, packed=packed, large=large))
    assert (picture.format, picture.width, picture.height) == ("PSD", 120, 80)
    assert np.array_equal(picture.full, np.asarray(image.convert("RGB")))


def test_palettes_bitmaps_and_lab_are_read() -> None:
    image = drawing().quantize(200)
    palette = np.zeros((256, 3), np.uint8)
    colors = np.reshape(image.getpalette() or [], (-1, 3))
    palette[: len(colors)] = colors
    data = psd(np.asarray(image)[None], INDEXED, palette=palette.T.tobytes())
    assert np.array_equal(decode(data).full, np.asarray(image.convert("RGB")))

    dark = np.asarray(drawing().convert("L")) < 128
    data = psd(np.packbits(dark, axis=1)[None], BITMAP)
    assert np.array_equal(decode(data).full[..., 0] == 0, dark)

    neutral = np.full((80, 120), 128, np.uint8)
    ramp = np.linspace(0, 255, 120).astype(np.uint8)[None].repeat(80, 0)
    full = decode(psd(np.stack([ramp, neutral, neutral]), LAB)).full.astype(int)
    assert np.ptp(full, axis=2).max() <= 2
    assert (np.diff(full[0, :, 0]) >= 0).all()
    assert np.ptp(full) > 250


def test_transparency_is_shown_on_white_and_a_saved_selection_is_no_transparency() -> None:
    alpha = np.zeros((80, 120), np.uint8)
    alpha[:, 60:] = 255
    samples = np.concatenate([planes(SHOWN), alpha[None]])
    selection = resource(ALPHA_IDS, struct.pack(">I", 7))
    transparency = resource(ALPHA_IDS, struct.pack(">I", 0))
    one_layer = [struct.pack(">Ih", 2, count) + bytes(6) for count in (1, -1)]
    for hidden, options in (
        (True, {}),
        (True, {"resources": transparency}),
        (True, {"layers": one_layer[1]}),
        (False, {"resources": selection}),
        (False, {"layers": one_layer[0]}),
    ):
        full = decode(psd(samples, RGB, **options)).full
        assert np.array_equal(full[:, 60:], SHOWN[:, 60:])
        assert (full[:, :60] == 255).all() == hidden
        assert hidden or np.array_equal(full, SHOWN)


def test_the_profile_of_a_document_is_applied() -> None:
    data = psd(planes(SHOWN), RGB, resources=resource(1, b"odd") + resource(ICC, rgb_profile("P3")))
    assert far(decode(data).full, SHOWN) > 3


def test_what_is_not_read_is_named() -> None:
    data = bytearray(psd(planes(SHOWN), RGB))
    data[22:24] = b"\0\x20"
    with pytest.raises(UnsupportedPicture, match=r"32 bits.*save it as 8-bit RGB"):
        decode(bytes(data))
    data = bytearray(psd(planes(SHOWN), RGB))
    data[-SHOWN.size - 1] = 2
    with pytest.raises(UnsupportedPicture, match=r"ZIP.*save it as 8-bit RGB"):
        decode(bytes(data))


@pytest.mark.parametrize("packed", [False, True])
def test_a_document_that_is_cut_short_or_lies_about_its_size_is_refused(packed: bool) -> None:
    data = psd(planes(SHOWN), RGB, packed=packed)
    for length in (20, 30, 36, len(data) - 500):
        with pytest.raises((BrokenPicture, UnsupportedPicture), match="PSD"):
            decode(data[:length])
    huge = bytearray(data)
    huge[14:22] = struct.pack(">II", 300_000, 300_000)
    with pytest.raises(PictureTooLarge, match="300000x300000"):
        read_header(bytes(huge), DecodeLimits())


def test_damaged_documents_give_a_picture_or_a_typed_error() -> None:
    rng = np.random.default_rng(4)
    clean = np.frombuffer(psd(planes(SHOWN), RGB, packed=True, layers=bytes(12)), np.uint8)
    for _ in range(60):
        data = clean.copy()
        data[rng.integers(4, 300, 3)] = rng.integers(0, 256, 3)
        with contextlib.suppress(InvalidInput):
            decode(data.tobytes(), DecodeLimits(max_pixels=10**6))
