"""Transparency: every way to store it is composited, and hidden colours never count."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageDraw

from models.errors import PictureTooLarge
from models.pictures.decoding import decode
from models.registry import make_extractor
from tests.models.pictures.test_decoding import drawing, encoded, far, png

pillow_heif.register_heif_opener()


def strokes(seed: int, ink: int = 0, hidden: int = 0) -> Image.Image:
    """Return random strokes of one gray on transparency, over a hidden gray."""
    rng = np.random.default_rng(seed)
    mask = Image.new("L", (200, 150))
    for _ in range(6):
        ImageDraw.Draw(mask).line(rng.integers(0, 200, 4).tolist(), 255, 9)
    image = Image.composite(
        Image.new("RGB", mask.size, (ink,) * 3), Image.new("RGB", mask.size, (hidden,) * 3), mask
    )
    image.putalpha(mask)
    return image


def on(image: Image.Image, level: int) -> np.ndarray:
    ground = Image.new("RGB", image.size, (level,) * 3)
    ground.paste(image, mask=image.getchannel("A"))
    return np.asarray(ground)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("TIFF", {}),
        ("AVIF", {"quality": 95}),
        ("HEIF", {"quality": 95}),
        ("JPEG2000", {}),
        ("TGA", {}),
        ("ICO", {"sizes": [(200, 150)]}),
        ("QOI", {}),
    ],
)
def test_transparency_is_shown_on_white(name: str, options: dict[str, object]) -> None:
    image = strokes(1)
    assert far(decode(encoded(image, name, **options)).full, on(image, 255)) < 1.5


@pytest.mark.parametrize("name", ["PNG", "WEBP", "GIF"])
def test_the_first_frame_of_a_transparent_animation_is_shown_on_white(name: str) -> None:
    image = strokes(1)
    data = encoded(
        image,
        name,
        save_all=True,
        append_images=[strokes(2)],
        **({"lossless": True} if name == "WEBP" else {}),
    )
    assert far(decode(data).full, on(image, 255)) < 1.5


def test_gray_with_alpha_and_palettes_with_alpha_are_shown_on_white() -> None:
    image = strokes(1)
    assert far(decode(encoded(image.convert("LA"), "PNG")).full, on(image, 255)) < 1
    palette = image.quantize(16)
    shown = on(palette.convert("RGBA"), 255)
    assert far(decode(encoded(palette, "PNG")).full, shown) < 1
    opaque = image.getchannel("A").convert("P")
    assert np.unique(decode(encoded(opaque, "PNG", transparency=255)).full).max() == 255


@pytest.mark.parametrize(
    ("depth", "kind", "row", "hidden"),
    [
        (1, 0, b"\x40", 1),
        (2, 0, b"\x10", 1),
        (4, 0, b"\x05\x00", 5),
        (8, 0, b"\x00\x4d\x00", 0x4D),
        (16, 0, b"\x00\x00\x12\x34\x00\x00", 0x1234),
        (8, 2, b"\0\0\0\x01\x02\x03\0\0\0", (1, 2, 3)),
        (16, 2, bytes(6) + b"\x12\x34\x56\x78\x9a\xbc" + bytes(6), (0x1234, 0x5678, 0x9ABC)),
    ],
)
def test_the_one_transparent_colour_of_a_png_is_that_of_its_depth(
    depth: int, kind: int, row: bytes, hidden: int | tuple[int, ...]
) -> None:
    # Of three pixels the middle one has the transparent colour.
    samples = (hidden,) if isinstance(hidden, int) else hidden
    chunk = struct.pack(f">{len(samples)}H", *samples)
    data = png(3, 1, depth, kind, zlib.compress(b"\0" + row), {b"tRNS": chunk})
    gray = decode(data).full[0, :, 0].tolist()
    assert gray == [0, 255, 0]


def test_hidden_colours_never_count() -> None:
    for name in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if name == "WEBP" else {}
        pictures = [decode(encoded(strokes(1, 0, hidden), name, **options)) for hidden in (0, 90)]
        assert np.array_equal(pictures[0].full, pictures[1].full)
        assert np.array_equal(pictures[0].preview, pictures[1].preview)
    clear = drawing().convert("RGBA")
    clear.putalpha(0)
    assert np.unique(decode(encoded(clear, "PNG")).full).tolist() == [255]


def test_different_dark_drawings_on_transparency_are_different() -> None:
    phash = make_extractor("phash")
    codes = [phash.extract(decode(encoded(strokes(n), "PNG")).full) for n in range(6)]
    for n, one in enumerate(codes):
        for other in codes[:n]:
            assert np.bitwise_count(one ^ other).sum() > 64


def test_white_paint_is_shown_on_dark_gray() -> None:
    image = strokes(1, ink=250, hidden=250)
    full = decode(encoded(image, "PNG")).full
    assert np.array_equal(full, on(image, 64))
    two_inks = Image.composite(strokes(1, ink=250), strokes(2), strokes(1).getchannel("A"))
    assert decode(encoded(two_inks, "PNG")).full[0, 0].tolist() == [255] * 3


def test_half_transparent_paint_is_mixed_with_white() -> None:
    image = Image.new("RGBA", (4, 4), (0, 100, 200, 128))
    assert decode(encoded(image, "PNG")).full[0, 0].tolist() == [127, 177, 227]


def test_an_opaque_alpha_changes_nothing() -> None:
    opaque = drawing().convert("RGBA")
    assert np.array_equal(decode(encoded(opaque, "PNG")).full, np.asarray(drawing()))
    la = Image.merge("LA", (Image.new("L", (4, 3), 250), Image.new("L", (4, 3), 255)))
    assert np.unique(decode(encoded(la, "PNG")).full).tolist() == [250]


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG"])
def test_an_animation_that_begins_with_an_empty_frame_shows_the_first_with_content(
    name: str,
) -> None:
    for empty in (Image.new("RGBA", (120, 80)), Image.new("RGB", (120, 80))):
        frames = [drawing().convert(empty.mode), Image.new(empty.mode, (120, 80), "red")]
        data = encoded(empty, name, save_all=True, append_images=frames, duration=50)
        assert far(decode(data).full, np.asarray(drawing())) < 5


def test_what_the_first_frame_of_a_gif_does_not_cover_is_white() -> None:
    data = bytearray(encoded(drawing(50, 50), "GIF"))
    data[6:10] = struct.pack("<HH", 100, 80)
    at = data.rindex(b",\0\0\0\0" + struct.pack("<HH", 50, 50))
    data[at + 1 : at + 5] = struct.pack("<HH", 20, 10)
    full = decode(bytes(data)).full
    assert full.shape == (80, 100, 3)
    assert far(full[10:60, 20:70], np.asarray(drawing(50, 50))) < 3
    assert full[:10].min() == full[60:].min() == full[:, :20].min() == 255


def test_a_png_shows_the_first_frame_of_its_animation_and_not_its_default_picture() -> None:
    default = Image.new("RGB", (120, 80), "red")
    frames = [drawing(), drawing().rotate(180)]
    data = encoded(default, "PNG", save_all=True, append_images=frames, default_image=True)
    assert np.array_equal(decode(data).full, np.asarray(drawing()))


def test_a_still_picture_of_one_colour_stays_one() -> None:
    assert np.unique(decode(encoded(Image.new("L", (9, 9), 3), "GIF")).full).tolist() == [3]


@pytest.mark.parametrize("area", [(0, 0, 120, 80), (20, 10, 100, 70)])
@pytest.mark.parametrize("blend", [0, 1])
def test_an_animation_is_not_drawn_over_the_picture_for_other_programs(
    area: tuple[int, int, int, int], blend: int
) -> None:
    left, top, right, bottom = area
    shown = np.asarray(drawing())[top:bottom, left:right]
    alpha = np.full(shown.shape[:2], 255, np.uint8)
    alpha[:30] = 128
    rows = [b"\0" + row.tobytes() for row in np.dstack([shown, alpha])]
    red = b"".join(b"\0" + b"\xff\0\0\xff" * 120 for _ in range(80))
    about = struct.pack(">IIIIIHHBB", 0, right - left, bottom - top, left, top, 1, 1, 0, blend)
    data = png(120, 80, 8, 6, zlib.compress(red), {b"acTL": struct.pack(">II", 1, 0)})
    frame = struct.pack(">I", 1) + zlib.compress(b"".join(rows))
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"fcTL", about), (b"fdAT", frame))
    ]
    full = decode(data[:-12] + b"".join(parts) + data[-12:]).full
    want = np.full((80, 120, 3), 255.0)
    weight = alpha[..., None] / 255
    want[top:bottom, left:right] = shown * weight + 255 * (1 - weight)
    assert far(full, want) <= 1.5


def test_a_huge_animation_is_refused_before_any_of_it_is_made() -> None:
    frames = [drawing(), drawing().rotate(180)]
    data = bytearray(
        encoded(drawing(), "PNG", save_all=True, append_images=frames, default_image=True)
    )
    data[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(PictureTooLarge, match="2147483647x2147483647"):
        decode(bytes(data))
