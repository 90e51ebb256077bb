"""Files that are cut short or slightly damaged: what is lost decides, not which marker is there."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import BrokenPicture
from models.pictures.decoding import decode
from models.pictures.files import jpeg
from tests.models.pictures.test_decoding import encoded, far, png

EOI = b"\xff\xd9"


def scene(width: int = 320, height: int = 240) -> Image.Image:
    """Return a noisy gradient, so that every row costs about as many bytes."""
    rng = np.random.default_rng(5)
    ramp = np.linspace(0, 200, height)[:, None, None] + np.linspace(0, 40, width)[None, :, None]
    noise = rng.integers(0, 15, (height // 4, width // 4, 3)).repeat(4, 0).repeat(4, 1)
    return Image.fromarray((ramp + noise).clip(0, 255).astype(np.uint8))


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "optimized": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "gray": {},
    "cmyk": {},
    "large": {},
}


def made(kind: str) -> bytes:
    image = scene(3200, 2400) if kind == "large" else scene()
    mode = {"gray": "L", "cmyk": "CMYK"}.get(kind, "RGB")
    return encoded(image.convert(mode), "JPEG", quality=90, **JPEGS[kind])


def scan_cut(data: bytes, share: float) -> bytes:
    begin = max(one.end for one in jpeg.segments(data) if one.marker == jpeg.SOS)
    return data[: begin + int((len(data) - begin) * share)].rstrip(b"\xff")


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_lacks_its_end_marker_is_whole_and_says_that_it_is_cut(kind: str) -> None:
    data = made(kind)
    whole = decode(data)
    assert not whole.truncated
    for cut in (data[:-2], data[:-1], data[:-2] + bytes(500), data[:-2] + b"\xff" * 500):
        picture = decode(cut)
        assert picture.truncated
        assert np.array_equal(picture.full, whole.full)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("tail", [b"", EOI, bytes(900), EOI + b"after the end"])
def test_a_jpeg_of_which_a_quarter_is_lost_is_taken_whatever_stands_at_its_end(
    kind: str, tail: bytes
) -> None:
    data = made(kind)
    picture = decode(scan_cut(data, 0.75) + tail)
    assert picture.truncated
    rows = len(picture.full) // 2
    assert far(picture.full[:rows], decode(data).full[:rows]) == 0
    assert (picture.width, picture.height) == (decode(data).width, decode(data).height)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("tail", [b"", EOI, bytes(90_000)])
def test_a_jpeg_of_which_two_thirds_are_lost_is_refused_whatever_stands_at_its_end(
    kind: str, tail: bytes
) -> None:
    with pytest.raises(BrokenPicture, match=r"of its (240|2400) rows are there, and at least half"):
        decode(scan_cut(made(kind), 0.33) + tail)


def test_a_progressive_jpeg_without_its_last_scans_is_there_but_blurred() -> None:
    data = encoded(scene(), "JPEG", progressive=True, quality=90)
    whole = decode(data)
    assert not whole.truncated
    scans = [one.begin for one in jpeg.segments(data) if one.marker == jpeg.SOS]
    for cut in (data[: scans[-1]], data[: scans[-1]] + EOI, data[: int(len(data) * 0.9)]):
        picture = decode(cut)
        assert picture.truncated
        assert far(picture.full, whole.full) < 8
    first = data[: scans[0] + (scans[1] - scans[0]) // 4]
    for cut in (first, first + EOI):
        with pytest.raises(BrokenPicture, match="at least half"):
            decode(cut)


def of_many_scans(kind: str) -> bytes:
    image = scene()
    if kind == "sequential":
        return sequential_scans(image)
    mode = {"gray": "L", "cmyk": "CMYK"}.get(kind, "RGB")
    options = {"restart_marker_rows": 1} if kind == "restarts" else {"subsampling": 0}
    return encoded(image.convert(mode), "JPEG", progressive=True, quality=90, **options)


def sequential_scans(image: Image.Image) -> bytes:
    """Return a baseline JPEG each of whose colours stands in a scan of its own."""
    files = [encoded(band, "JPEG", quality=90) for band in image.convert("YCbCr").split()]
    parts = list(jpeg.segments(files[0]))
    tables = [files[0][one.begin : one.end] for one in parts if one.marker in (0xDB, 0xC4)]
    colors = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, image.height, image.width, 3) + colors
    scan = next(one.end for one in parts if one.marker == jpeg.SOS)
    scans = [
        b"\xff\xda\0\x08\x01" + bytes([number, 0, 0, 63, 0]) + file[scan:-2]
        for number, file in enumerate(files, 1)
    ]
    return b"".join([b"\xff\xd8", *tables, frame, *scans, EOI])


@pytest.mark.parametrize("kind", ["progressive", "gray", "cmyk", "restarts", "sequential"])
def test_a_jpeg_of_many_scans_is_noticed_wherever_it_is_cut(kind: str) -> None:
    data = of_many_scans(kind)
    with Image.open(io.BytesIO(data)) as image:
        assert far(decode(data).full, np.asarray(image.convert("RGB"))) == 0
    assert not decode(data).truncated
    scans = [one for one in jpeg.segments(data) if one.marker == jpeg.SOS]
    ends = [*(one.begin for one in scans[1:]), len(data) - 2]
    for scan, end in zip(scans[1:], ends[1:], strict=True):
        for share in (0.02, 0.5, 0.95):
            cut = data[: scan.end + int((end - scan.end) * share)].rstrip(b"\xff")
            for tail in (b"", EOI, EOI + b"\xff\xd8\xff\xe0 a video"):
                assert decode(cut + tail).truncated


ARITHMETIC = {
    "sequential": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtq"
        "eJmBanGQc1tdhbWGkJ6jq62rZ4C8ybqmx5moq6T/yQALCABAAEABAREA/8wABgAQEAX/2gAIAQEAAD8A"
        "/wAKgelH1xhACbvNNqHZn1d7MYRNuAo1qoymRRn3Jsb6G6J4BonLFPsV6HLDFVXblkC+4M0PdqKOZs7w"
        "XKC3MNWldups2HuG+X6f/wCVdlAH21h2aIvFBPGXGtoQCzK7CPkibn3XVKW35heSHFrVsJNIzz3wTDyW"
        "PFzXjTIah/rL1xps7T2/xjqJnhvJdJkrGXJFumfVaMl10oN6AjNZDtahXn9VKeIHgJ5EVbH3BS50midd"
        "Xn8XmN7p3zdRU41pfHzFLJk6zUK8czOIczPDhL8yjob3Dn4IqwvSVmOA/9k="
    ),
    "progressive": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtq"
        "eJmBanGQc1tdhbWGkJ6jq62rZ4C8ybqmx5moq6T/ygALCABAAEABAREA/8wABAAQ/9oACAEBAAAAAf4w"
        "rns8zHhzIplJkTVaqOtczFHODZIz898G7BMYMe6dOcVUOG0f+P/MAAQQBf/aAAgBAQABBQIC4/eLemBx"
        "LGEdv/eA2OtpVuhhZgm/ehMjY9RNN5bIUZjePmMpKUD/zAAEEAX/2gAIAQEABj8C0L4G4jb3cX9QLSSI"
        "/8wABBAF/9oACAEBAAE/IZyYLxNNcfHeTRE7sjDPfnAhfSor+yqhcSmOZaYfOfPMi6MfATcKcItrFP/a"
        "AAgBAQAAABCUy3G8SoQhB//MAAQQBf/aAAgBAQABPxB7o7MZYgCCyLQa+JZqhWIhKd7Sv3zNH833EeRw"
        "fwGE+1DbigaDTlEhb00ID4imwdHzss5/5ykq7P/Z"
    ),
}
"""Arithmetic-coded JPEGs of 64 x 64 grays, which Pillow reads but does not write."""


@pytest.mark.parametrize("kind", ARITHMETIC)
def test_an_arithmetic_jpeg_is_noticed_wherever_it_is_cut(kind: str) -> None:
    data = base64.b64decode(ARITHMETIC[kind])
    across, down = np.arange(64)[None, :], np.arange(64)[:, None]
    picture = decode(data)
    assert not picture.truncated
    assert far(picture.full, ((across * 2 + down) % 97 * 2)[..., None].repeat(3, 2)) < 25
    scan = max(one.end for one in jpeg.segments(data) if one.marker == jpeg.SOS)
    for share in (0.7, 0.9):
        cut = data[: scan + int((len(data) - 2 - scan) * share)].rstrip(b"\xff")
        for tail in (b"", EOI):
            assert decode(cut + tail).truncated


def test_a_progressive_jpeg_that_lacks_bytes_in_its_middle_is_noticed() -> None:
    data = of_many_scans("progressive")
    scan = [one.begin for one in jpeg.segments(data) if one.marker == jpeg.SOS][-1]
    assert decode(data[: scan - 400] + data[scan - 300 :]).truncated


def test_bytes_between_the_scans_of_a_jpeg_are_no_damage() -> None:
    data = of_many_scans("progressive")
    scans = [one.begin for one in jpeg.segments(data) if one.marker == jpeg.SOS]
    padded = data[: scans[3]] + bytes(40) + data[scans[3] :]
    assert not decode(padded).truncated
    assert np.array_equal(decode(padded).full, decode(data).full)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("level", [127, 128])
def test_a_picture_that_is_gray_below_is_not_taken_for_a_cut_one(
    level: int, options: dict[str, Any]
) -> None:
    image = scene()
    image.paste((level,) * 3, (0, 60, 320, 240))
    picture = decode(encoded(image, "JPEG", **options))
    assert not picture.truncated
    assert far(picture.full, np.asarray(image)) < 3
    assert not decode(encoded(Image.new("L", (50, 50), level), "JPEG", **options)).truncated


def test_a_jpeg_cut_before_its_pixels_is_refused() -> None:
    data = made("baseline")
    begin = next(one.end for one in jpeg.segments(data) if one.marker == jpeg.SOS)
    for length in (3, 100, begin - 3):
        with pytest.raises(BrokenPicture, match="JPEG"):
            decode(data[:length])


def test_what_phones_append_to_a_jpeg_is_no_damage() -> None:
    assert not decode(made("baseline") + b"\xff\xd8\xff\xe0 a video").truncated


FILES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "png": ("PNG", "RGB", {}),
    "png-alpha": ("PNG", "RGBA", {}),
    "png-palette": ("PNG", "P", {}),
    "png-16": ("PNG", "I;16", {}),
    "gif": ("GIF", "P", {"interlace": 0}),
    "gif-interlaced": ("GIF", "P", {"interlace": 1}),
    "bmp": ("BMP", "RGB", {}),
    "pnm": ("PPM", "RGB", {}),
    "tiff": ("TIFF", "RGB", {}),
    "tiff-tiles": ("TIFF", "L", {"tile": True}),
}


def stored(kind: str) -> bytes:
    name, mode, options = FILES[kind]
    image = scene()
    if mode == "I;16":
        return encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8), name)
    if kind == "tiff-tiles":
        return encoded(image.convert(mode), name)
    return encoded(image.convert(mode), name, **options)


@pytest.mark.parametrize("kind", FILES)
def test_other_files_of_which_a_third_is_lost_are_taken_and_white_there(kind: str) -> None:
    data = stored(kind)
    # BMP begins with the last row.
    rows = slice(120, 240) if kind == "bmp" else slice(0, 120)
    picture = decode(data[: int(len(data) * 0.67)])
    assert picture.truncated
    if kind == "gif-interlaced":
        assert far(picture.full, decode(data).full) < 10
    else:
        assert np.array_equal(picture.full[rows], decode(data).full[rows])
        assert np.unique(picture.full[3 if kind == "bmp" else -3]).tolist() == [255]


@pytest.mark.parametrize("kind", FILES)
def test_other_files_of_which_two_thirds_are_lost_are_refused(kind: str) -> None:
    data = stored(kind)
    with pytest.raises(BrokenPicture, match="at least half are needed"):
        decode(data[: int(len(data) * 0.35)])


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
def test_a_compressed_tiff_with_damaged_strips_is_taken_as_far_as_it_goes(compression: str) -> None:
    data = bytearray(encoded(scene(), "TIFF", compression=compression, strip_size=320 * 3 * 8))
    whole = decode(bytes(data))
    assert not whole.truncated
    with Image.open(io.BytesIO(data)) as image:
        strips = image.tag_v2[273]
    data[strips[20] : strips[21]] = b"\xff" * (strips[21] - strips[20])
    picture = decode(bytes(data))
    assert picture.truncated
    assert np.array_equal(picture.full[:160], whole.full[:160])


def png_pixels(image: Image.Image) -> bytes:
    rows = np.asarray(image)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def test_a_png_with_wrong_checksums_is_whole() -> None:
    packed = zlib.compress(png_pixels(scene()))
    whole = decode(png(320, 240, 8, 2, packed))
    wrong_sum = decode(png(320, 240, 8, 2, packed[:-4] + b"\1\2\3\4"))
    assert wrong_sum.truncated
    assert np.array_equal(wrong_sum.full, whole.full)
    wrong_crc = png(320, 240, 8, 2, packed)[:-16] + b"\1\2\3\4" + png(320, 240, 8, 2, packed)[-12:]
    assert np.array_equal(decode(wrong_crc).full, whole.full)
    missing_end = decode(png(320, 240, 8, 2, packed)[:-12])
    assert np.array_equal(missing_end.full, whole.full)


def test_a_png_whose_packed_pixels_break_off_is_taken_from_half_on() -> None:
    packed = bytearray(zlib.compress(png_pixels(scene()), 1))
    packed[int(len(packed) * 0.8) :] = bytes(len(packed) - int(len(packed) * 0.8))
    picture = decode(png(320, 240, 8, 2, bytes(packed)))
    assert picture.truncated
    assert np.array_equal(picture.full[:160], np.asarray(scene())[:160])


def unpacked_adam7(image: Image.Image) -> bytes:
    pixels = np.asarray(image)
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    return b"".join(
        b"\0" + row.tobytes()
        for top, left, down, across in passes
        for row in pixels[top::down, left::across]
    )


def adam7(image: Image.Image) -> bytes:
    data = bytearray(png(*image.size, 8, 2, zlib.compress(unpacked_adam7(image))))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_an_interlaced_png_is_filled_from_the_rows_that_are_there() -> None:
    data = adam7(scene())
    assert np.array_equal(decode(data).full, np.asarray(scene()))
    picture = decode(data[: int(len(data) * 0.75)])
    assert picture.truncated
    assert far(picture.full, np.asarray(scene())) < 3


def few_rows(image: Image.Image, rows: int, *, interlaced: bool = False) -> bytes:
    """Return a PNG that ends as it should, but stores only so many of its rows."""
    pixels = np.asarray(image)
    depth, kind = 8 * pixels.itemsize, 2 if pixels.ndim == 3 else 0
    if image.mode == "1":
        pixels, depth = np.packbits(pixels, axis=1), 1
    pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
    raw = (
        unpacked_adam7(image)[: int(rows / image.height * pixels.nbytes)]
        if interlaced
        else b"".join(b"\0" + row.tobytes() for row in pixels[:rows])
    )
    data = bytearray(png(*image.size, depth, kind, zlib.compress(raw)))
    data[28] = interlaced
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "1"])
def test_a_png_that_stores_too_few_rows_and_ends_as_it_should_is_cut_short(mode: str) -> None:
    image = scene().convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    whole = decode(few_rows(image, 240))
    assert not whole.truncated
    picture = decode(few_rows(image, 170))
    assert picture.truncated
    assert np.array_equal(picture.full[:170], whole.full[:170])
    assert np.unique(picture.full[170:]).tolist() == [255]
    with pytest.raises(BrokenPicture, match="only 100 of its 240 rows are there"):
        decode(few_rows(image, 100))


@pytest.mark.parametrize("rows", [239, 200, 160])
def test_an_interlaced_png_that_stores_too_few_rows_is_cut_short(rows: int) -> None:
    picture = decode(few_rows(scene(), rows, interlaced=True))
    assert picture.truncated
    assert far(picture.full, np.asarray(scene())) < 5
    assert not decode(few_rows(scene(), 250, interlaced=True)).truncated


@pytest.mark.parametrize("level", [0, 91, 255])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "I;16", "RGBA"])
def test_a_picture_of_one_colour_is_not_taken_for_a_cut_one(level: int, mode: str) -> None:
    flat = Image.new(mode, (40, 30), (level,) * len(mode) if mode.startswith("RGB") else level)
    assert not decode(encoded(flat, "PNG")).truncated
    if mode in ("L", "P"):
        assert not decode(encoded(flat, "GIF")).truncated


def gif(rows: int, *, area: tuple[int, int, int, int] = (0, 0, 40, 30), level: int = 7) -> bytes:
    """Return a GIF of 40x30 pixels whose frame ends as it should, after so many of its rows."""
    left, top, right, bottom = area
    width = right - left
    # Each code of 9 bits is one pixel, because the table is cleared before it grows.
    codes = [256]
    for at in range(rows * width):
        codes += [256, level] if at % 100 == 99 else [level]
    bits = sum(code << (9 * at) for at, code in enumerate([*codes, 257]))
    packed = bits.to_bytes(-(-9 * (len(codes) + 1) // 8), "little")
    blocks = (packed[at : at + 255] for at in range(0, len(packed), 255))
    palette = np.arange(256, dtype=np.uint8).repeat(3).tobytes()
    return b"".join(
        [
            b"GIF89a" + struct.pack("<HHBBB", 40, 30, 0xF7, 0, 0) + palette,
            b"," + struct.pack("<HHHHB", left, top, width, bottom - top, 0) + b"\x08",
            *(bytes([len(block)]) + block for block in blocks),
            b"\0;",
        ]
    )


@pytest.mark.parametrize("area", [(0, 0, 40, 30), (5, 4, 35, 26)])
def test_a_gif_whose_frame_ends_before_its_rows_is_cut_short(
    area: tuple[int, int, int, int],
) -> None:
    left, top, right, bottom = area
    rows = bottom - top
    for level in (7, 91):
        whole = decode(gif(rows, area=area, level=level))
        assert not whole.truncated
        assert np.unique(whole.full[top:bottom, left:right]).tolist() == [level]
    picture = decode(gif(rows - 5, area=area))
    assert picture.truncated
    assert np.unique(picture.full[top : bottom - 5, left:right]).tolist() == [7]
    assert np.unique(picture.full[bottom - 5 :]).tolist() == [255]
    with pytest.raises(BrokenPicture, match=f"only {rows // 3} of its {rows} rows are there"):
        decode(gif(rows // 3, area=area))


def test_a_large_file_is_taken_as_far_as_it_goes_like_a_small_one() -> None:
    packed = zlib.compress(bytes(30_000) * 1400, 1)
    picture = decode(png(30_000, 1800, 8, 0, packed[: len(packed) - 20]))
    assert picture.truncated
    assert picture.full[0].max() == 0
    assert picture.full[-1].min() == 255


@pytest.mark.parametrize("name", ["AVIF", "HEIF", "WEBP", "JPEG2000"])
def test_formats_of_which_a_part_shows_nothing_are_refused(name: str) -> None:
    data = encoded(scene(), name)
    with pytest.raises(BrokenPicture):
        decode(data[: int(len(data) * 0.9)])
