"""Icons of the time before alpha."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from models.pictures.decoding import decode
from tests.models.pictures.test_decoding import drawing, encoded

SIDE = 48
SHOWN = np.asarray(drawing(SIDE, SIDE))


def icon(alpha: int, *, masked: bool = True, kind: int = 1, bits: int = 32) -> bytes:
    """Return an icon of 32 bits, the left half of which its mask hides."""
    bgra = np.dstack([SHOWN[..., ::-1], np.full((SIDE, SIDE), alpha, np.uint8)])[::-1]
    hidden = np.zeros((SIDE, 64), np.uint8)
    hidden[:, : SIDE // 2] = 1
    mask = np.packbits(hidden, axis=1).tobytes() if masked else b""
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, 2 * SIDE, 1, 32, 0, 0, 0, 0, 0, 0)
    body = info + bgra.tobytes() + mask
    entry = struct.pack("<BBBBHHII", SIDE, SIDE, 0, 0, 1, bits, len(body), 22)
    return struct.pack("<HHH", 0, kind, 1) + entry + body


@pytest.mark.parametrize("kind", [1, 2])
def test_the_mask_of_an_icon_whose_alpha_is_0_everywhere_tells_what_is_shown(kind: int) -> None:
    full = decode(icon(0, kind=kind)).full
    assert (full[:, : SIDE // 2] == 255).all()
    assert np.array_equal(full[:, SIDE // 2 :], SHOWN[:, SIDE // 2 :])


def test_the_mask_does_not_count_beside_alpha() -> None:
    assert np.array_equal(decode(icon(255)).full, SHOWN)


def test_without_mask_and_alpha_all_of_an_icon_is_shown() -> None:
    assert np.array_equal(decode(icon(0, masked=False)).full, SHOWN)


def test_an_icon_whose_directory_names_no_bits_has_its_alpha() -> None:
    assert np.array_equal(decode(icon(255, bits=0)).full, SHOWN)


@pytest.mark.parametrize("sizes", [[16], [48, 16], [32, 48, 20]])
def test_a_mask_that_ends_early_hides_nothing(sizes: list[int]) -> None:
    """Pillow writes the rows of masks without their padding."""
    flat = drawing(SIDE, SIDE).quantize(64)
    given = [(side, side) for side in sizes]
    data = encoded(flat, "ICO", sizes=given, bitmap_format="bmp")
    largest = flat.resize((max(sizes),) * 2, Image.Resampling.LANCZOS, reducing_gap=None)
    assert np.array_equal(decode(data).full, np.asarray(largest.convert("RGB")))
