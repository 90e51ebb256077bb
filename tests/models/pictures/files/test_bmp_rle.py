"""BMP files of runs: whole ones, with skipped pixels, and those that end early."""

from __future__ import annotations

import io
import struct
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.errors import BrokenPicture
from models.pictures.decoding import decode
from tests.models.pictures.test_decoding import drawing

Indices = npt.NDArray[np.uint8]
END_OF_ROW, END = b"\0\0", b"\0\1"
WIDTH, HEIGHT = 120, 80


def indexed(bits: int) -> tuple[Indices, Indices]:
    """Return the drawing as indices (80, 120), and its palette (2 ** bits, 3)."""
    image = drawing().quantize(1 << bits, dither=Image.Dither.NONE)
    palette = np.zeros((1 << bits, 3), np.uint8)
    colors = np.array(image.getpalette(), np.uint8).reshape(-1, 3)[: 1 << bits]
    palette[: len(colors)] = colors
    return np.asarray(image), palette


def runs(row: Indices, bits: int) -> bytes:
    """Return a row as runs, each fourth of them with its indices one by one."""
    packed = b""
    for number, (value, same) in enumerate(groupby(row.tolist())):
        count = min(len(list(same)), 255)
        if number % 4 == 3 and count > 2:
            one_by_one = bytes([value if bits == 8 else value * 17]) * -(-count * bits // 8)
            packed += bytes([0, count]) + one_by_one + bytes(len(one_by_one) % 2)
        else:
            packed += bytes([count, value if bits == 8 else value * 17])
    return packed


def bmp(body: bytes, palette: Indices) -> bytes:
    bits = len(palette).bit_length() - 1
    colors = np.pad(palette[:, ::-1], ((0, 0), (0, 1))).tobytes()
    info = struct.pack(
        "<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, bits, 3 - bits // 4, len(body), 0, 0, 0, 0
    )
    begin = 14 + len(info) + len(colors)
    return b"BM" + struct.pack("<IHHI", begin + len(body), 0, 0, begin) + info + colors + body


def rows_of(index: Indices, bits: int) -> list[bytes]:
    """Return the rows as a file has them: the last first."""
    return [runs(row, bits) + END_OF_ROW for row in index[::-1]]


@pytest.mark.parametrize("bits", [8, 4])
def test_runs_are_unpacked_as_by_pillow(bits: int) -> None:
    index, palette = indexed(bits)
    data = bmp(b"".join(rows_of(index, bits)) + END, palette)
    picture = decode(data)
    assert np.array_equal(picture.full, palette[index])
    assert np.array_equal(picture.full, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert not picture.truncated


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("ending", [b"", END], ids=["cut", "closed"])
def test_a_file_that_ends_early_is_taken_from_half_of_its_rows_on(bits: int, ending: bytes) -> None:
    index, palette = indexed(bits)
    rows = rows_of(index, bits)
    picture = decode(bmp(b"".join(rows[:60]) + ending, palette))
    assert picture.truncated
    assert np.array_equal(picture.full[20:], palette[index][20:])
    assert (picture.full[:20] == 255).all()
    with pytest.raises(BrokenPicture, match="only 39 of its 80 rows are there"):
        decode(bmp(b"".join(rows[:39]) + ending, palette))


def test_a_file_that_ends_within_its_last_row_says_so() -> None:
    index, palette = indexed(8)
    body = b"".join(rows_of(index, 8)[:-1]) + b"\3\5"
    assert decode(bmp(body, palette)).truncated
    assert not decode(bmp(body + END, palette)).truncated


def test_what_is_skipped_is_transparent_and_not_lost() -> None:
    palette = np.zeros((256, 3), np.uint8)
    palette[7] = 200, 30, 30
    square = bytes([0, 2, 10, 0, 20, 7]) + END_OF_ROW
    picture = decode(bmp(b"\0\2\0\4" + square * 76 + END, palette))
    assert (picture.full[:76, 10:30] == (200, 30, 30)).all()
    assert (picture.full[:, 30:] == 255).all()
    assert (picture.full[76:] == 255).all()
    assert not picture.truncated


def test_a_run_past_a_rows_end_and_moves_past_the_picture_write_nothing() -> None:
    palette = np.zeros((256, 3), np.uint8)
    palette[7] = 200, 30, 30
    rows = (b"\xff\7" * 2 + END_OF_ROW) * HEIGHT
    assert (decode(bmp(rows, palette)).full == (200, 30, 30)).all()
    outside = b"\0\2\xff\0" * 3 + b"\5\7" + b"\0\2\0\xff" + b"\5\7"
    with pytest.raises(BrokenPicture, match="only 0 of its 80 rows are there"):
        decode(bmp(outside, palette))
