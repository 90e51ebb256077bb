"""BMP files with bit fields, and the alpha that old programs left at 0."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pytest

from models.errors import BrokenPicture
from models.pictures.decoding import decode
from models.pictures.files.bmp import bit_fields
from tests.models.pictures.test_decoding import drawing, encoded, far

SHOWN = np.asarray(drawing())


def bmp(
    pixels: npt.NDArray[np.unsignedinteger], masks: tuple[int, ...], *, top_down: bool = False
) -> bytes:
    """Return a BMP of pixels (height, width), with a BITMAPV4HEADER if there are four masks."""
    height, width = pixels.shape
    size = 108 if len(masks) == 4 else 40
    fields = struct.pack(f"<{len(masks)}I", *masks)
    rows = pixels.astype(pixels.dtype.newbyteorder("<")).view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    body = (rows if top_down else rows[::-1]).tobytes()
    signed = -height if top_down else height
    bits = 8 * pixels.itemsize
    info = struct.pack("<IiiHHIIiiII", size, width, signed, 1, bits, 3, len(body), 0, 0, 0, 0)
    head = info + fields + bytes(max(0, size - 40 - len(fields)))
    return (
        b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body
    )


def placed(masks: tuple[int, ...], bits: int, alpha: int | None = None) -> npt.NDArray[np.uint32]:
    """Return the drawing's samples at the bits of these masks."""
    samples = [*np.moveaxis(SHOWN, 2, 0).astype(np.uint64), np.uint64(alpha or 0)]
    pixels = np.zeros(SHOWN.shape[:2], np.uint64)
    for sample, mask in zip(samples, masks, strict=False):
        shift = np.uint64((mask & -mask).bit_length() - 1)
        high = np.uint64(mask) >> shift
        pixels |= ((sample * high + np.uint64(127)) // np.uint64(255)) << shift
    return pixels.astype(f"u{bits // 8}")


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF00, 0xF0, 0xF)),
        (16, (0xF800, 0x7E0, 0x1F)),
        (16, (0xF00, 0xF0, 0xF, 0xF000)),
        (32, (0xFF00, 0xFF0000, 0xFF000000)),
        (32, (0x3FF00000, 0xFFC00, 0x3FF)),
        (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
    ],
)
def test_samples_lie_at_the_bits_that_the_file_names(
    bits: int, masks: tuple[int, ...], top_down: bool
) -> None:
    data = bmp(placed(masks, bits, 255), masks, top_down=top_down)
    assert far(decode(data).full, SHOWN) < (1 if bits == 32 else 9)


def test_alpha_of_odd_bits_is_transparency() -> None:
    masks = (0xF00, 0xF0, 0xF, 0xF000)
    pixels = placed(masks, 16, 255)
    pixels[:, :60] &= 0xFFF
    full = decode(bmp(pixels, masks)).full
    assert (full[:, :60] == 255).all()
    assert far(full[:, 60:], SHOWN[:, 60:]) < 9


@pytest.mark.parametrize(
    "masks", [(0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0xF00, 0xF0, 0xF, 0xF000)]
)
def test_an_alpha_that_is_0_everywhere_hides_nothing(masks: tuple[int, ...]) -> None:
    bits = 32 if masks[0] > 0xFFFF else 16
    assert far(decode(bmp(placed(masks, bits, 0), masks)).full, SHOWN) < 9
    image = drawing().convert("RGBA")
    image.putalpha(0)
    assert np.array_equal(decode(encoded(image, "TGA")).full, SHOWN)


@pytest.mark.parametrize("top_down", [False, True])
def test_a_file_with_bit_fields_is_taken_from_half_of_its_rows_on(top_down: bool) -> None:
    masks = (0x3FF00000, 0xFFC00, 0x3FF)
    data = bmp(placed(masks, 32), masks, top_down=top_down)
    picture = decode(data[: -int(120 * 4 * 19.5)])
    assert picture.truncated
    there, lost = (slice(0, 60), slice(60, 80)) if top_down else (slice(20, 80), slice(0, 20))
    assert far(picture.full[there], SHOWN[there]) < 1
    assert (picture.full[lost] == 255).all()
    with pytest.raises(BrokenPicture, match="only 38 of its 80 rows are there"):
        decode(data[: -120 * 4 * 42])


def test_masks_that_make_no_sense_are_refused() -> None:
    data = bytearray(bmp(placed((0xF00, 0xF0, 0xF), 16), (0xF00, 0xF0, 0xF)))
    data[54:66] = bytes(12)
    assert bit_fields(bytes(data)) is None
    with pytest.raises(BrokenPicture, match="BMP"):
        decode(bytes(data))
