"""The one decoder: formats, limits, orientation, odd modes, damage, and the three views."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import warnings
import zlib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from models.errors import BrokenPicture, InvalidInput, PictureTooLarge, UnsupportedPicture
from models.pictures.decoding import ACCEPTED, DecodeLimits, Picture, decode, read_header

pillow_heif.register_heif_opener()

FORMATS = ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "AVIF", "HEIF"]
LOSSLESS = {"PNG", "BMP", "PPM", "TIFF"}


def drawing(width: int = 120, height: int = 80) -> Image.Image:
    """Return quarters of four colours, so that every flip and turn gives a different picture."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (200, 30, 30)
    pixels[: height // 2, width // 2 :] = (30, 180, 30)
    pixels[height // 2 :, : width // 2] = (30, 30, 220)
    pixels[height // 2 :, width // 2 :] = (220, 220, 210)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def exif(orientation: int) -> bytes:
    # As bytes, since pillow-heif writes HEIC's own rotation (which counts there) only from bytes.
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def far(first: np.ndarray, second: np.ndarray) -> float:
    return float(abs(first.astype(int) - second.astype(int)).mean())


@pytest.mark.parametrize("name", FORMATS)
def test_every_accepted_format_decodes_to_its_pixels(name: str) -> None:
    options = {"MPO": {"save_all": True, "append_images": [drawing().rotate(180)]}}
    picture = decode(encoded(drawing(), name, **options.get(name, {})))
    assert (picture.width, picture.height) == (120, 80)
    assert picture.format == name
    assert picture.full.shape == (80, 120, 3)
    assert picture.full.dtype == np.uint8
    assert picture.full.flags.c_contiguous
    assert far(picture.full, np.asarray(drawing())) <= (0 if name in LOSSLESS else 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_the_exif_orientation_is_applied(name: str, orientation: int) -> None:
    upright = drawing()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    picture = decode(encoded(stored, name, exif=exif(orientation)))
    assert (picture.width, picture.height) == (120, 80)
    assert far(picture.full, np.asarray(upright)) < 5


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_the_orientation_is_applied_to_reduced_decodes(orientation: int) -> None:
    turns = {1: 0, 6: 1, 8: 3}[orientation]
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(drawing(2400, 1600), turns)))
    picture = decode(encoded(stored, "JPEG", exif=exif(orientation)))
    assert (picture.width, picture.height) == (2400, 1600)
    assert picture.full.shape == (800, 1200, 3)
    assert far(picture.full, np.asarray(drawing(1200, 800))) < 3


def test_damaged_exif_leaves_the_picture_as_it_is() -> None:
    data = encoded(drawing(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20))
    assert decode(data).full.shape == (80, 120, 3)


@pytest.mark.parametrize(
    ("size", "full"),
    [
        ((1535, 2000), (2000, 1535)),
        ((1536, 2000), (1000, 768)),
        ((2000, 1536), (768, 1000)),
        ((4000, 1536), (768, 2000)),
        ((5200, 1300), (512, 2048)),
        ((5120, 5120), (1280, 1280)),
    ],
)
def test_a_jpeg_is_reduced_while_its_short_side_stays_768(
    size: tuple[int, int], full: tuple[int, int]
) -> None:
    picture = decode(encoded(Image.new("RGB", size, (9, 99, 199)), "JPEG"))
    assert picture.full.shape[:2] == full
    assert (picture.width, picture.height) == size
    assert far(picture.full[::50, ::50], np.array([9, 99, 199])) < 3


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 9000), (20000, 2)])
def test_extreme_sizes_have_three_views_without_empty_sides(
    name: str, size: tuple[int, int]
) -> None:
    picture = decode(encoded(Image.new("RGB", size, (200, 100, 50)), name))
    assert (picture.width, picture.height) == size
    assert max(picture.full.shape[:2]) <= 2048
    assert max(picture.preview.shape[:2]) <= 800
    assert max(picture.gray.shape) <= 1024
    assert min(*picture.full.shape, *picture.preview.shape, *picture.gray.shape) >= 1
    assert far(picture.full, np.array([200, 100, 50])) < 3


def test_the_views_keep_their_bounds_and_their_picture() -> None:
    picture = decode(encoded(drawing(3000, 1000), "PNG"))
    assert picture.full.shape == (683, 2048, 3)
    assert picture.preview.shape == (267, 800, 3)
    assert picture.gray.shape == (342, 1024)
    assert decode(encoded(drawing(1000, 900), "PNG")).preview.shape == (384, 427, 3)
    for view in (picture.full, picture.preview):
        assert far(view[10:20, 10:20], np.array([200, 30, 30])) < 2
    assert far(picture.gray[5:9, 5:9], np.array(round(0.299 * 200 + 0.587 * 30 + 0.114 * 30))) < 2
    assert picture.view("gray") is picture.gray


def test_small_pictures_are_never_enlarged() -> None:
    picture = decode(encoded(drawing(), "PNG"))
    assert picture.preview.shape == picture.full.shape == (80, 120, 3)
    assert picture.gray.shape == (80, 120)


def test_views_cant_be_written() -> None:
    picture = decode(encoded(drawing(), "PNG"))
    for view in (picture.full, picture.preview, picture.gray):
        with pytest.raises(ValueError, match="read-only"):
            view[0, 0] = 0


def test_a_picture_survives_pickling() -> None:
    picture = decode(encoded(drawing(), "JPEG"))
    again = pickle.loads(pickle.dumps(picture))
    assert (again.width, again.height, again.format) == (120, 80, "JPEG")
    assert np.array_equal(again.full, picture.full)
    assert np.array_equal(again.gray, picture.gray)


def test_the_preview_is_had_as_jpeg() -> None:
    preview = Image.open(io.BytesIO(decode(encoded(drawing(1600, 800), "PNG")).preview_jpeg()))
    assert preview.format == "JPEG"
    assert preview.size == (768, 384)
    assert far(np.asarray(preview)[:50, :50], np.array([200, 30, 30])) < 4


def test_a_region_is_cut_out_in_pixels_of_the_original() -> None:
    picture = decode(encoded(drawing(4096, 2048), "PNG"))
    part = picture.crop(2048, 0, 9999, 1024)
    assert (part.width, part.height) == (2048, 1024)
    assert part.full.shape == (512, 1024, 3)
    assert far(part.full[2:-2, 2:-2], np.array([30, 180, 30])) < 1
    assert picture.crop(4095.5, 2047.5, 1, 1).full.shape == (1, 1, 3)
    with pytest.raises(InvalidInput, match="outside the picture of 4096x2048"):
        picture.crop(4096, 0, 10, 10)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    for name in ("GIF", "WEBP", "PNG"):
        data = encoded(drawing(), name, save_all=True, append_images=[Image.new("RGB", (120, 80))])
        assert far(decode(data).full, np.asarray(drawing())) < 5


def test_sixteen_bits_are_scaled_to_eight() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    want = np.arange(256)
    for name in ("PNG", "TIFF", "PPM"):
        full = decode(encoded(Image.fromarray(ramp), name)).full
        assert abs(full[0, :, 0].astype(int) - want).max() <= 1
        assert np.array_equal(full[..., 0], full[..., 2])


def test_sixteen_bit_rgb_is_scaled_to_eight() -> None:
    raw = b"\0" + b"".join(struct.pack(">HHH", 65535, 32768, 0) for _ in range(5))
    data = png(5, 1, 16, 2, zlib.compress(raw))
    assert decode(data).full[0, 0].tolist() == [255, 128, 0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (0.0, 65535.0), (-3.0, 5.0)])
def test_floats_are_scaled_to_eight_bits(low: float, high: float) -> None:
    ramp = np.linspace(low, high, 256, dtype=np.float32)[None].repeat(4, 0)
    full = decode(encoded(Image.fromarray(ramp), "TIFF")).full
    assert abs(full[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_floats_that_are_no_numbers_are_black() -> None:
    ramp = np.array([[np.nan, np.inf, 0.5, 1.0]], np.float32)
    assert decode(encoded(Image.fromarray(ramp), "TIFF")).full[0, :, 0].tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize("value", [-7, 0, 200, 70_000])
def test_a_flat_picture_of_wide_integers_decodes(value: int) -> None:
    image = Image.fromarray(np.full((3, 3), value, np.int32))
    assert len(np.unique(decode(encoded(image, "TIFF")).full)) == 1


@pytest.mark.parametrize(
    ("mode", "name"),
    [("1", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("YCbCr", "TIFF"), ("LAB", "TIFF")],
)
def test_other_colour_spaces_become_rgb(mode: str, name: str) -> None:
    source = Image.new("RGB", (40, 30), (255, 255, 255))
    if mode == "LAB":
        source = Image.merge("LAB", [Image.new("L", (40, 30), v) for v in (255, 128, 128)])
    picture = decode(encoded(source if mode == "LAB" else source.convert(mode), name))
    assert far(picture.full, np.full((30, 40, 3), 255)) < 3


def test_an_empty_upload_has_its_own_sentence() -> None:
    with pytest.raises(BrokenPicture, match="empty") as caught:
        decode(b"")
    assert caught.value.field == "image"


@pytest.mark.parametrize("data", [b"hello", b"%PDF-1.7 ...", b"\0\0\0\x18ftypisom" + bytes(99)])
def test_other_files_are_refused_with_the_accepted_formats(data: bytes) -> None:
    with pytest.raises(UnsupportedPicture) as caught:
        decode(data)
    assert ACCEPTED in caught.value.detail
    assert caught.value.field == "image"


def test_a_format_that_pillow_reads_but_we_dont_is_refused() -> None:
    for name in ("PCX", "EPS", "SGI", "DDS"):
        with pytest.raises(UnsupportedPicture):
            decode(encoded(drawing(64, 64), name))


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_which_less_than_half_is_there_is_refused_with_its_reason(name: str) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (90, 70, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), name)
    for part in (0.05, 0.4):
        with pytest.raises(BrokenPicture, match=r"damaged|empty|truncated") as caught:
            decode(data[: int(len(data) * part)])
        assert caught.value.field == "image"
        assert pickle.loads(pickle.dumps(caught.value)).detail == caught.value.detail


@pytest.mark.parametrize("name", ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF"])
def test_damaged_bytes_give_a_picture_or_a_typed_error(name: str) -> None:
    rng = np.random.default_rng(7)
    clean = np.frombuffer(encoded(drawing(40, 30), name, exif=exif(6)), np.uint8)
    for _ in range(60):
        data = clean.copy()
        where = rng.integers(0, min(len(data), 600), rng.integers(1, 6))
        data[where] = rng.integers(0, 256, len(where))
        with contextlib.suppress(InvalidInput):
            assert isinstance(decode(data.tobytes(), DecodeLimits(max_pixels=10**6)), Picture)


def test_too_many_bytes_are_refused_with_the_limit() -> None:
    with pytest.raises(PictureTooLarge, match=r"the limit is 1,000\b") as caught:
        decode(encoded(drawing(), "BMP"), DecodeLimits(max_bytes=1000))
    assert caught.value.status == 413


def png(
    width: int,
    height: int,
    depth: int,
    colour: int,
    packed: bytes,
    chunks: Mapping[bytes, bytes] = MappingProxyType({}),
) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    before = b"".join(chunk(name, body) for name, body in chunks.items())
    return start + before + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_001, 12_000, 14_000, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PictureTooLarge, match="100,000,000 pixels"):
            decode(png(side, side, 8, 2, zlib.compress(bytes(100))))


def test_a_webp_bomb_is_refused_by_its_header() -> None:
    data = bytearray(encoded(drawing(16, 16), "WEBP", lossless=True))
    data[21:25] = ((16383 - 1) | (16383 - 1) << 14).to_bytes(4, "little")
    with pytest.raises(PictureTooLarge):
        decode(bytes(data))


def test_the_pixel_limit_can_be_configured() -> None:
    data = encoded(drawing(100, 100), "PNG")
    assert decode(data, DecodeLimits(max_pixels=10_000)).width == 100
    with pytest.raises(PictureTooLarge, match="100x100 is 10,000 pixels; the limit is 9,999"):
        decode(data, DecodeLimits(max_pixels=9_999))


def test_a_file_of_a_million_tiny_chunks_is_refused_quickly() -> None:
    whole = encoded(drawing(), "PNG")
    empty = struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
    with pytest.raises(BrokenPicture, match="more than 100,000 chunks"):
        decode(whole[:33] + empty * 500_000 + whole[33:])


def progressive_bomb(scans: int) -> bytes:
    data = encoded(Image.new("L", (64, 64)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def behind_comments(data: bytes) -> bytes:
    """A JPEG with more segments before its frame than are looked at."""
    return data[:2] + b"\xff\xfe\0\2" * 150 + data[2:]


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    for bomb in (progressive_bomb(200), behind_comments(progressive_bomb(200))):
        with pytest.raises(BrokenPicture, match="more than 100 scans"):
            decode(bomb)
    assert decode(encoded(drawing(), "JPEG", progressive=True)).width == 120


def test_a_jpeg_can_not_hide_behind_segments_what_its_scans_cost() -> None:
    for progressive in (False, True):
        data = encoded(drawing(), "JPEG", progressive=progressive)
        hidden = read_header(behind_comments(data), DecodeLimits())
        assert hidden.cost >= read_header(data, DecodeLimits()).cost
        shown = decode(behind_comments(data))
        assert not shown.truncated
        assert np.array_equal(shown.full, decode(data).full)


def test_what_phones_append_to_a_jpeg_does_not_count_as_scans() -> None:
    assert decode(encoded(drawing(), "JPEG") + b"\xff\xda\0\2" * 300).width == 120


def test_the_cost_counts_what_decoding_holds() -> None:
    image = Image.new("RGB", (3200, 1600))
    assert read_header(encoded(image, "PNG"), DecodeLimits()).cost == 3200 * 1600
    assert read_header(encoded(image, "JPEG"), DecodeLimits()).cost == 1600 * 800
    # A progressive JPEG holds coefficients of two bytes; colours are halved both ways.
    progressive = encoded(image, "JPEG", progressive=True)
    held = 3200 * 1600 * 1.5 / 2
    assert read_header(progressive, DecodeLimits()).cost == 1600 * 800 + held


def test_the_limit_is_on_what_decoding_holds() -> None:
    data = encoded(Image.new("RGB", (3200, 1600)), "JPEG")
    assert decode(data, DecodeLimits(max_pixels=1600 * 800)).width == 3200
    with pytest.raises(PictureTooLarge, match="holds as many as 1,280,000; the limit is 1,279,999"):
        decode(data, DecodeLimits(max_pixels=1600 * 800 - 1))
    with pytest.raises(PictureTooLarge, match="3200x1600 is 5,120,000 pixels; the limit is 5,000"):
        decode(data, DecodeLimits(max_header_pixels=5000))


def test_a_phones_108_megapixels_are_read() -> None:
    picture = decode(encoded(Image.new("L", (12032, 9024), 77), "JPEG"))
    assert (picture.width, picture.height) == (12032, 9024)
    assert np.unique(picture.full).tolist() == [77]
