"""Files as they come: brands, metadata that is damaged or huge, and further formats."""

from __future__ import annotations

import contextlib
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from imagecodecs import (
    jpeg2k_encode,
    jpeg8_encode,
    jpeg_encode,
    jpegls_encode,
    jpegxl_encode,
    jpegxl_encode_jpeg,
    ljpeg_encode,
)
from PIL import Image
from pillow_jxl import JpegXLImagePlugin

from models.errors import BrokenPicture, InvalidInput, PictureTooLarge, UnsupportedPicture
from models.pictures.decoding import DecodeLimits, decode, read_header
from models.pictures.files import heif
from models.pictures.files.jxl import header_of
from tests.models.pictures.test_decoding import drawing, encoded, exif, far, png

pillow_heif.register_heif_opener()
assert JpegXLImagePlugin

SHOWN = np.asarray(drawing())
PACKED = zlib.compress(b"".join(b"\0" + row.tobytes() for row in SHOWN))


@pytest.mark.parametrize(
    "brand", [b"mif1", b"mif2", b"miaf", b"tmap", b"msf1", b"heic", b"avif", b"XXXX"]
)
@pytest.mark.parametrize("name", ["AVIF", "HEIF"])
def test_the_compatible_brands_and_the_pictures_tell_the_codec(name: str, brand: bytes) -> None:
    data = bytearray(encoded(drawing(), name))
    data[8:12] = brand
    assert far(decode(bytes(data)).full, SHOWN) < 4


def test_a_container_whose_brands_name_no_codec_is_told_by_its_items() -> None:
    for name in ("AVIF", "HEIF"):
        data = bytearray(encoded(drawing(), name))
        end = int.from_bytes(data[:4], "big")
        data[8:end] = (b"mif1" + bytes(4) + b"miaf" * 20)[: end - 8]
        assert far(decode(bytes(data)).full, SHOWN) < 4


@pytest.mark.parametrize("name", ["HEIF", "JPEG", "WEBP", "PNG", "JXL"])
@pytest.mark.parametrize("kind", ["cut", "noise", "huge"])
def test_damaged_exif_never_kills_a_picture(name: str, kind: str) -> None:
    data = bytearray(encoded(drawing(), name, exif=exif(1)))
    at = data.rfind(b"II*\0") if b"II*\0" in data else data.rfind(b"MM\0*")
    assert at > 0
    damage = {
        "cut": b"\0" * 8,
        "noise": b"\xa7\x13\x99\xfe\xff\xff\xff\xff",
        "huge": b"II*\0\xff\xff\xff\x7f",
    }
    data[at : at + 8] = damage[kind]
    assert far(decode(bytes(data)).full, SHOWN) < 5


def test_exif_that_the_library_refuses_never_kills_an_avif() -> None:
    data = encoded(drawing(), "AVIF", exif=b"Exif\0\0II*\0\x08\0\0\0" + bytes(6))
    at = data.index(b"II*\0")
    assert far(decode(data[:at] + b"nope" + data[at + 4 :]).full, SHOWN) < 4


def test_the_orientation_of_a_container_is_applied_once_and_its_exif_not_at_all() -> None:
    for name in ("AVIF", "HEIF"):
        data = bytearray(encoded(drawing(), name))
        plain = decode(bytes(data)).full
        turned = encoded(drawing(), name, exif=exif(6))
        assert decode(turned).full.shape == (120, 80, 3)
        assert any(kind != b"Exif" for *_, kind in heif.items(turned))
        assert plain.shape == (80, 120, 3)


def cropped(data: bytes, width: int, height: int, right_by: int, down_by: int) -> bytes:
    """Return an AVIF of one picture with a clean aperture (ISO/IEC 14496-12, `clap`)."""
    parts = bytearray(data)

    def grow(name: bytes, by: int) -> None:
        at = parts.index(name) - 4
        parts[at : at + 4] = struct.pack(">I", int.from_bytes(parts[at : at + 4], "big") + by)

    begin, end = heif.box(data, "meta/iprp/ipco") or (0, 0)
    number = len(list(heif.boxes(data, begin, end))) + 1
    values = (width, 1, height, 1, right_by, 1, down_by, 1)
    parts[end:end] = struct.pack(">I4sIIIIiIiI", 40, b"clap", *values)
    count = parts.index(b"ipma") + 14
    parts[count + 1 + parts[count] : count + 1 + parts[count]] = bytes([0x80 | number])
    parts[count] += 1
    for name, by in ((b"ipco", 40), (b"ipma", 1), (b"iprp", 41), (b"meta", 41)):
        grow(name, by)
    at = parts.index(b"iloc") + 8
    assert parts[at - 4] == 0
    assert parts[at : at + 4] == b"\x44\0\0\1"  # One item with one extent, at 32 bits.
    offset = at + 10
    moved = int.from_bytes(parts[offset : offset + 4], "big") + 41
    parts[offset : offset + 4] = struct.pack(">I", moved)
    return bytes(parts)


def test_the_clean_aperture_of_an_avif_is_what_is_shown() -> None:
    data = encoded(drawing(), "AVIF", quality=95)
    for left, top, (right_by, down_by) in (
        (30, 20, (0, 0)),
        (0, 0, (-30, -20)),
        (40, 30, (10, 10)),
    ):
        picture = decode(cropped(data, 60, 40, right_by, down_by))
        assert (picture.width, picture.height) == (60, 40)
        assert far(picture.full, SHOWN[top : top + 40, left : left + 60]) < 4
    for nonsense in ((0, 40, 0, 0), (60, 40, 900, 0), (4000, 40, 0, 0)):
        assert decode(cropped(data, *nonsense)).full.shape == (80, 120, 3)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_jpeg_that_is_packed_as_jpeg_xl_is_turned_as_the_jpeg_is(turn: int) -> None:
    data = encoded(drawing(), "JPEG", quality=95, exif=exif(turn))
    packed, plain = decode(jpegxl_encode_jpeg(data)), decode(data)
    assert (packed.width, packed.height) == (plain.width, plain.height)
    assert far(packed.full, plain.full) < 3


def test_an_orientation_that_only_xmp_names_does_not_count() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    for name in ("JPEG", "WEBP", "PNG"):
        data = encoded(drawing(), name, xmp=xmp)
        assert far(decode(data).full, SHOWN) < 5
    assert far(decode(encoded(drawing(), "TIFF", tiffinfo={700: xmp})).full, SHOWN) == 0


def test_metadata_of_a_png_never_kills_it() -> None:
    text = b"Comment\0" + b"x" * 3_000_000
    packed = b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9)
    chunks = {
        b"tEXt": text,
        b"zTXt": packed,
        b"iTXt": b"\xff" * 50,
        b"iCCP": b"name\0\0" + zlib.compress(bytes(3_000_000)),
        b"eXIf": b"nonsense",
        b"tRNS": b"",
        b"gAMA": b"",
        b"pHYs": b"1",
        b"sRGB": b"",
        b"hIST": b"x",
    }
    assert np.array_equal(decode(png(120, 80, 8, 2, PACKED, chunks)).full, SHOWN)
    bombs = {b"iCCP": b"name\0\0" + zlib.compress(bytes(500_000_000), 9)}
    assert np.array_equal(decode(png(120, 80, 8, 2, PACKED, bombs)).full, SHOWN)


@pytest.mark.parametrize("name", [b"tEXt", b"eXIf", b"gAMA", b"iCCP", b"tRNS", b"cHRM", b"acTL"])
def test_a_wrong_checksum_in_metadata_of_a_png_counts_it_as_absent(name: bytes) -> None:
    body = exif(6) if name == b"eXIf" else bytes(8)
    data = bytearray(png(120, 80, 8, 2, PACKED, {name: body}))
    at = data.index(name) + 4 + len(body)
    data[at] ^= 255
    assert np.array_equal(decode(bytes(data)).full, SHOWN)


def test_the_exif_of_a_png_turns_it_wherever_it_stands() -> None:
    data = encoded(drawing(), "PNG", exif=exif(6))
    assert decode(data).full.shape == (120, 80, 3)


def test_a_damaged_list_of_further_pictures_leaves_the_first() -> None:
    data = bytearray(encoded(drawing(), "MPO", save_all=True, append_images=[drawing()]))
    at = data.index(b"MPF\0") + 4
    for damage in (b"\0" * 20, b"\xff" * 20, bytes(data[at : at + 8]) + b"\xff\xff" + b"\1" * 10):
        broken = bytearray(data)
        broken[at : at + 20] = damage
        assert far(decode(bytes(broken)).full, SHOWN) < 4


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *(("JXL", mode) for mode in ("RGB", "L", "RGBA", "LA")),
        *(("JPEG2000", mode) for mode in ("RGB", "L", "RGBA", "LA", "I;16")),
        *(("TGA", mode) for mode in ("RGB", "L", "RGBA", "P")),
        *(("QOI", mode) for mode in ("RGB", "RGBA")),
        *(("ICO", mode) for mode in ("RGB", "RGBA")),
    ],
)
def test_further_formats_are_read_in_every_mode(name: str, mode: str) -> None:
    image = drawing()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    options = {"sizes": [(120, 80)]} if name == "ICO" else {}
    picture = decode(encoded(image, name, **options))
    want = image if mode != "I;16" else drawing().convert("L")
    assert (picture.width, picture.height, picture.format) == (120, 80, name)
    assert far(picture.full, np.asarray(want.convert("RGB"))) < 4


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("bands", [2, 3, 4])
@pytest.mark.parametrize("kind", ["jp2", "j2k"])
def test_white_of_a_deep_jpeg_2000_is_white(bits: int, bands: int, kind: str) -> None:
    shown = SHOWN.copy()
    shown[:20] = 255
    samples = {2: shown[..., :1], 3: shown, 4: shown}[bands]
    if bands != 3:
        samples = np.dstack([samples, np.full(shown.shape[:2], 255, np.uint8)])
    deep = (samples.astype(np.uint32) * ((1 << bits) - 1) // 255).astype(np.uint16)
    data = jpeg2k_encode(deep, level=0, codecformat=kind, bitspersample=bits, reversible=True)
    full = decode(bytes(data)).full
    assert (full[:20] == 255).all()
    assert far(full, shown if bands > 2 else shown[..., :1].repeat(3, 2)) < 1


def test_a_run_length_tga_and_the_largest_picture_of_an_icon_are_read() -> None:
    assert far(decode(encoded(drawing(), "TGA", compression="tga_rle")).full, SHOWN) == 0
    icon = encoded(drawing(256, 256), "ICO", sizes=[(16, 16), (64, 64), (256, 256)])
    assert decode(icon).full.shape == (256, 256, 3)


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (8, 256), (300, 200), (1920, 1080), (4001, 3)])
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(size: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", size, "red"), "JXL")
    head = header_of(data)
    assert (head.width, head.height, head.animated) == (*size, False)
    with pytest.raises(PictureTooLarge, match=f"{size[0]}x{size[1]}"):
        read_header(data, DecodeLimits(max_pixels=1))


def test_a_jpeg_xl_animation_shows_its_first_frame_with_content() -> None:
    frames = [np.zeros_like(SHOWN), SHOWN, SHOWN[::-1]]
    for first in (0, 1):
        data = bytes(jpegxl_encode(np.stack(frames[first:]), lossless=True))
        assert header_of(data).animated
        assert np.array_equal(decode(data).full, SHOWN)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"%PDF-1.7\n", r"a PDF document.*send its pages"),
        (b"<?xml version='1.0'?>\n<!-- x -->\n<svg xmlns='x'/>", r"an SVG drawing.*as PNG"),
        (b"\0\0\0\x20ftypisom" + bytes(60), r"a video.*one of its frames"),
        (b"\0\0\0\x14ftypqt  " + bytes(60), r"a video"),
        (b"\x1aE\xdf\xa3" + bytes(60), r"a video"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(60), r"a video"),
        (b"<!DOCTYPE html><html>", r"a web page.*save the picture itself"),
        (b"PK\3\4" + bytes(60), r"an archive.*unpack"),
        (b"%!PS-Adobe", r"a PostScript file"),
        (b"v/1\1\2\0\0\0", r"an OpenEXR picture"),
        (b"P7\nWIDTH 4\n", r"a PAM or colour PFM picture.*send a JPEG or PNG"),
        (b"PF\n4 4\n-1.0\n", r"a PAM or colour PFM picture"),
        (b"II\xbc\1", r"a JPEG XR picture"),
        (b"\x8aMNG\r\n\x1a\n", r"an MNG or JNG animation"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI", r"a PNG packed for iOS apps.*as a plain PNG"),
        (b"hello", r"no picture of an accepted format"),
    ],
)
def test_what_is_no_picture_is_named_with_what_to_send_instead(data: bytes, named: str) -> None:
    with pytest.raises(UnsupportedPicture, match=named) as caught:
        decode(data)
    assert caught.value.status == 415


def test_a_picture_of_200_megapixels_is_refused_by_its_size_and_the_limit() -> None:
    data = bytearray(encoded(Image.new("L", (64, 64)), "HEIF"))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", 16320, 12240)
    with pytest.raises(
        PictureTooLarge, match=r"16320x12240 is 199,756,800 pixels; the limit is 100,000"
    ):
        decode(bytes(data))


def test_damaged_files_of_further_formats_give_a_picture_or_a_typed_error() -> None:
    rng = np.random.default_rng(11)
    for name in ("JPEG2000", "TGA", "QOI", "ICO", "JXL"):
        clean = np.frombuffer(encoded(drawing(40, 30), name), np.uint8)
        for _ in range(25):
            data = clean.copy()
            data[rng.integers(0, min(len(data), 300), 3)] = rng.integers(0, 256, 3)
            with contextlib.suppress(InvalidInput):
                decode(data.tobytes(), DecodeLimits(max_pixels=10**6))


def test_a_file_that_is_only_a_signature_is_refused() -> None:
    for data in (b"\xff\xd8\xff", b"BM", b"8BPS", b"\0\0\1\0\1\0", b"qoif", b"\xff\x0a", b"GIF89a"):
        with pytest.raises((BrokenPicture, UnsupportedPicture)):
            decode(data)


@pytest.mark.parametrize("kind", ["P5", "P6"])
@pytest.mark.parametrize("high", [15, 254, 1000, 4095, 65535])
def test_a_large_pnm_of_any_maximum_is_read(kind: str, high: int) -> None:
    image = drawing().resize((480, 320))
    shown = np.asarray(image.convert("L") if kind == "P5" else image)
    samples = np.rint(shown / 255 * high).astype(np.uint8 if high < 256 else ">u2")
    data = f"{kind}\n# a comment\n480 320\n{high}\n".encode() + samples.tobytes()
    picture = decode(data)
    assert far(picture.full, shown if kind == "P6" else shown[..., None]) <= (
        9 if high == 15 else 0.51
    )
    assert not picture.truncated
    cut = decode(data[: len(data) * 3 // 4])
    assert cut.truncated
    assert np.array_equal(cut.full[:238], picture.full[:238])
    assert np.unique(cut.full[-5:]).tolist() == [255]
    with pytest.raises(BrokenPicture, match="at least half are needed"):
        decode(data[: len(data) // 3])


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (jpegls_encode(SHOWN), "JPEG-LS"),
        (jpeg8_encode(SHOWN, lossless=True), "a lossless JPEG"),
        (ljpeg_encode(SHOWN[..., 0].astype(np.uint16)), "a lossless JPEG"),
        (jpeg_encode(SHOWN.astype(np.uint16) << 4, bitspersample=12), "samples of 12 bits"),
    ],
)
def test_a_jpeg_of_a_coding_that_no_browser_shows_is_named(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedPicture, match=name):
        decode(data)


@pytest.mark.parametrize(("codec", "name"), [(4, "JPEG"), (5, "PNG")])
def test_a_bmp_that_holds_another_format_is_named(codec: int, name: str) -> None:
    inner = encoded(Image.new("RGB", (40, 30), "red"), name)
    header = struct.pack("<IiiHHIIiiII", 40, 40, 30, 1, 0, codec, len(inner), 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 54 + len(inner), 0, 0, 54) + header + inner
    with pytest.raises(UnsupportedPicture, match=f"a BMP that holds a {name}"):
        decode(data)
