"""Colours: profiles and code points become sRGB, and what is sRGB stays as it is."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from models.errors import InvalidInput
from models.pictures import colour
from models.pictures.decoder import Decoder
from models.pictures.decoding import DecodeLimits, decode, read_header
from models.pictures.files.color_tags import ColorTags
from tests.models.pictures.test_decoding import drawing, encoded, far, png

pillow_heif.register_heif_opener()

ADOBE = ((0.3127, 0.3290), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
PRIMARIES = {
    "P3": colour._P3,
    "Adobe RGB": ADOBE,
    "ProPhoto": ((0.3457, 0.3585), (0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)),
}
GAMMAS = {"P3": 2.2, "Adobe RGB": 2.19921875, "ProPhoto": 1.8}
D50 = np.array([0.9642, 1.0, 0.8249])


def icc(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return an ICC profile (ISO 15076-1, version 2) with these tags."""
    table, bodies, at = b"", b"", 132 + 12 * len(tags)
    for name, body in tags.items():
        padded = body + bytes(-len(body) % 4)
        table += struct.pack(">4sII", name, at + len(bodies), len(body))
        bodies += padded
    head = bytearray(128)
    head[8:12] = b"\2\x10\0\0"
    head[12:24] = b"mntr" + space + b"XYZ "
    head[36:40] = b"acsp"
    head[68:80] = b"".join(struct.pack(">i", round(value * 65536)) for value in D50)
    whole = bytes(head) + struct.pack(">I", len(tags)) + table + bodies
    return struct.pack(">I", len(whole)) + whole[4:]


def xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(one * 65536)) for one in values)


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(name: str) -> bytes:
    points = PRIMARIES[name]
    matrix = colour._to_xyz(points)
    bradford = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    scale = np.diag((bradford @ D50) / (bradford @ matrix.sum(axis=1)))
    columns = np.linalg.inv(bradford) @ scale @ bradford @ matrix
    tags = {b"rXYZ": columns[:, 0], b"gXYZ": columns[:, 1], b"bXYZ": columns[:, 2], b"wtpt": D50}
    made = {name: xyz(value) for name, value in tags.items()}
    return icc(b"RGB ", made | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(GAMMAS[name])))


def muted() -> np.ndarray:
    """Return a patchwork of moderate sRGB colours, which all of the gamuts have."""
    patches = np.random.default_rng(2).integers(60, 200, (6, 8, 3)).astype(np.uint8)
    return np.ascontiguousarray(patches.repeat(20, 0).repeat(20, 1))


def stored_in(name: str, shown: np.ndarray) -> np.ndarray:
    """Return the samples that show these sRGB colours in another space."""
    light = colour._srgb_light(shown / 255)
    to_theirs = np.linalg.inv(colour._to_srgb_primaries(PRIMARIES[name]))
    samples = np.clip(light @ to_theirs.T, 0, 1) ** (1 / GAMMAS[name])
    return np.rint(samples * 255).astype(np.uint8)


@pytest.mark.parametrize("name", PRIMARIES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_profile_is_converted_to_srgb(name: str, kind: str) -> None:
    image = Image.fromarray(stored_in(name, muted()))
    options = {"quality": 100} if kind in ("JPEG", "WEBP", "AVIF", "HEIF") else {}
    data = encoded(image, kind, icc_profile=rgb_profile(name), **options)
    assert far(np.asarray(image), muted()) > 4
    assert far(decode(data).full, muted()) < 3


def test_a_large_picture_is_converted_after_it_is_reduced() -> None:
    shown = cv2.resize(muted(), (3200, 2400), interpolation=cv2.INTER_NEAREST)
    data = encoded(Image.fromarray(stored_in("P3", shown)), "JPEG", icc_profile=rgb_profile("P3"))
    picture = decode(data)
    assert far(picture.full, cv2.resize(shown, picture.full.shape[1::-1])) < 3


def test_profiles_that_are_srgb_change_no_bit() -> None:
    plain = decode(encoded(drawing(), "JPEG")).full
    for profile in (
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        icc(b"RGB ", SRGB_TAGS),
    ):
        data = encoded(drawing(), "JPEG", icc_profile=profile)
        assert np.array_equal(decode(data).full, plain)


SRGB_TAGS = {
    b"rXYZ": xyz(np.array([0.43607, 0.22249, 0.01392])),
    b"gXYZ": xyz(np.array([0.38515, 0.71687, 0.09708])),
    b"bXYZ": xyz(np.array([0.14307, 0.06061, 0.7141])),
    b"wtpt": xyz(D50),
} | dict.fromkeys(
    (b"rTRC", b"gTRC", b"bTRC"),
    b"curv\0\0\0\0"
    + struct.pack(">I", 1024)
    + np.rint(colour._srgb_light(np.linspace(0, 1, 1024)) * 65535).astype(">u2").tobytes(),
)


def test_a_gray_profile_is_converted() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(8, 0)
    profile = icc(b"GRAY", {b"wtpt": xyz(D50), b"kTRC": curve(1.5)})
    full = decode(encoded(Image.fromarray(ramp), "PNG", icc_profile=profile)).full
    want = colour._encoding()[np.rint((np.arange(256) / 255) ** 1.5 * 65535).astype(int)]
    assert abs(full[0, :, 0].astype(int) - want).max() <= 2


def lut8(channels: tuple[int, int], nodes: Any) -> bytes:
    """Return a table of two grid points a channel (ICC.1, lut8Type)."""
    identity = np.arange(256, dtype=np.uint8).tobytes()
    return (
        b"mft1\0\0\0\0"
        + bytes([*channels, 2, 0])
        + b"".join(struct.pack(">i", 65536 * one) for one in (1, 0, 0, 0, 1, 0, 0, 0, 1))
        + identity * channels[0]
        + np.asarray(nodes, np.uint8).tobytes()
        + identity * channels[1]
    )


def cmyk_profile(black: int = 0) -> bytes:
    """Return a profile that makes of any ink the Lab colour of its black only.

    The darkest black has this lightness, of 255.
    """
    inks = np.stack(np.meshgrid(*[np.arange(2)] * 4, indexing="ij"), -1).reshape(-1, 4)
    to_lab = [(black if ink[3] else 255, 128, 128) for ink in inks]
    labs = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    to_inks = [(0, 0, 0, 0 if lab[0] else 255) for lab in labs]
    tables = {b"A2B0": lut8((4, 3), to_lab), b"B2A0": lut8((3, 4), to_inks)}
    made = bytearray(icc(b"CMYK", {b"wtpt": xyz(D50), **tables}))
    made[12:24] = b"prtrCMYKLab "
    return bytes(made)


def test_the_darkest_black_of_a_press_is_shown_as_black() -> None:
    image = Image.new("CMYK", (50, 40), (0, 0, 0, 255))
    data = encoded(image, "JPEG", icc_profile=cmyk_profile(black=50), quality=95)
    assert decode(data).full.max() <= 3


def test_a_cmyk_profile_is_converted_and_only_in_a_child() -> None:
    image = Image.merge("CMYK", [Image.new("L", (50, 40), ink) for ink in (200, 100, 30, 0)])
    data = encoded(image, "JPEG", icc_profile=cmyk_profile(), quality=95)
    assert far(decode(data).full, np.full(3, 255)) < 3
    assert read_header(data, DecodeLimits()).needs_child
    decoder = Decoder()
    try:
        assert far(decoder.decode_blocking(data).full, np.full(3, 255)) < 3
        assert len(decoder.child_pids) == 1
    finally:
        decoder.close()


def test_profiles_of_a_matrix_and_curves_need_no_child() -> None:
    for name in PRIMARIES:
        data = encoded(drawing(), "JPEG", icc_profile=rgb_profile(name))
        assert not read_header(data, DecodeLimits()).needs_child
    assert colour.is_fragile(b"no profile")
    assert colour.is_fragile(rgb_profile("P3")[:-300])
    assert not colour.is_fragile(None)


def test_a_profile_that_is_broken_or_of_other_channels_is_ignored() -> None:
    plain = decode(encoded(drawing(), "JPEG")).full
    profiles = [
        b"x" * 500,
        rgb_profile("P3")[:200],
        icc(b"GRAY", {b"wtpt": xyz(D50), b"kTRC": curve(1.0)}),
        cmyk_profile(),
        bytes(5 << 20),
    ]
    for profile in profiles:
        data = encoded(drawing(), "JPEG", icc_profile=profile)
        assert np.array_equal(decode(data).full, plain)


def test_damaged_profiles_give_a_picture() -> None:
    rng = np.random.default_rng(1)
    for profile in (rgb_profile("P3"), cmyk_profile()):
        for _ in range(40):
            broken = bytearray(profile)
            for at in rng.integers(0, len(broken), 4):
                broken[at] = rng.integers(256)
            image = drawing().convert("CMYK" if profile[16:20] == b"CMYK" else "RGB")
            decode(encoded(image, "JPEG", icc_profile=bytes(broken)))


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("level", [0, 20, 128, 250])
def test_transparency_is_composited_in_srgb(name: str, level: int) -> None:
    profile = rgb_profile("Adobe RGB")
    options: dict[str, Any] = {"lossless": True, "exact": True} if name == "WEBP" else {}
    opaque = decode(encoded(drawing(), name, icc_profile=profile, **options)).full.astype(int)
    image = drawing().convert("RGBA")
    image.putalpha(level)
    blended = decode(encoded(image, name, icc_profile=profile, **options)).full
    assert far(blended, 255 - (255 - opaque) * level / 255) <= 1


def tagged_png(samples: np.ndarray, chunks: dict[bytes, bytes]) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    height, width = samples.shape[:2]
    return png(width, height, 8, 2, zlib.compress(rows), chunks)


def test_the_code_points_of_a_png_are_converted() -> None:
    samples = colour._encoding()[
        np.clip(
            np.rint(
                colour._srgb_light(muted() / 255)
                @ np.linalg.inv(colour._to_srgb_primaries(colour._P3)).T
                * 65535
            ),
            0,
            65535,
        ).astype(int)
    ]
    data = tagged_png(samples, {b"cICP": bytes([12, 13, 0, 1])})
    assert far(decode(data).full, muted()) < 1
    same = tagged_png(samples, {b"cICP": bytes([1, 13, 0, 1])})
    assert np.array_equal(decode(same).full, samples)


@pytest.mark.parametrize("transfer", [1, 6, 14, 15])
def test_the_curve_of_television_counts_in_png_and_not_in_containers(transfer: int) -> None:
    light = colour._srgb_light(muted() / 255)
    samples = np.rint(light ** (1 / 2.4) * 255).astype(np.uint8)
    data = tagged_png(samples, {b"cICP": bytes([1, transfer, 0, 1])})
    assert far(decode(data).full, muted()) < 1
    assert far(samples, muted()) > 3
    avif = bytearray(encoded(Image.fromarray(muted()), "AVIF", quality=95))
    at = avif.index(b"nclx") + 4
    plain = decode(bytes(avif)).full
    avif[at : at + 4] = struct.pack(">HH", 1, transfer)
    assert np.array_equal(decode(bytes(avif)).full, plain)


@pytest.mark.parametrize("primaries", [5, 6, 7])
def test_the_primaries_of_television_are_converted(primaries: int) -> None:
    light = colour._srgb_light(muted() / 255)
    to_theirs = np.linalg.inv(colour._to_srgb_primaries(colour._PRIMARIES[primaries])).T
    levels = np.rint(np.clip(light @ to_theirs, 0, 1) * 65535).astype(int)
    data = tagged_png(colour._encoding()[levels], {b"cICP": bytes([primaries, 13, 0, 1])})
    assert far(decode(data).full, muted()) < 1
    red = colour._to_srgb_primaries(colour._PRIMARIES[primaries])[:, 0]
    assert abs(red - [1, 0, 0]).max() > 0.01


def hdr(shown: np.ndarray, transfer: int) -> np.ndarray:
    """Return samples of BT.2020 primaries that show sRGB colours, with white at 203 nits."""
    light = (
        colour._srgb_light(shown / 255)
        @ np.linalg.inv(colour._to_srgb_primaries(colour._PRIMARIES[9])).T
    )
    light = np.clip(light, 0, None)
    if transfer == 16:
        power = (light * 203 / 10_000) ** (2610 / 16384)
        samples = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    else:
        display = light * 203 / 1000
        luma = np.maximum(display @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)[..., None]
        scene = display * luma ** (1 / 1.2 - 1)
        samples = np.where(
            scene <= 1 / 12,
            np.sqrt(3 * scene),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )
    return np.rint(np.clip(samples, 0, 1) * 255).astype(np.uint8)


def halved(shown: np.ndarray) -> np.ndarray:
    """Return sRGB colours of half the light."""
    return colour._encoding()[np.rint(colour._srgb_light(shown / 255) * 0.5 * 65535).astype(int)]


@pytest.mark.parametrize("transfer", [16, 18])
def test_pq_and_hlg_show_what_is_no_brighter_than_white_at_half_its_light(transfer: int) -> None:
    data = tagged_png(hdr(muted(), transfer), {b"cICP": bytes([9, transfer, 0, 1])})
    assert far(decode(data).full, muted()) > 20
    assert far(decode(data).full, halved(muted())) < 3


@pytest.mark.parametrize(
    ("transfer", "in_chromium"),
    [
        (16, [0, 1, 4, 13, 26, 42, 61, 85, 114, 150, 193, 221, 242, 255, 255, 255, 255, 255]),
        (18, [0, 2, 13, 26, 39, 52, 66, 79, 92, 106, 122, 142, 166, 194, 214, 229, 243, 255]),
    ],
)
def test_a_ramp_of_pq_or_hlg_looks_as_in_chromium_156(
    transfer: int, in_chromium: list[int]
) -> None:
    ramp = np.arange(0, 256, 15, np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
    full = decode(tagged_png(ramp, {b"cICP": bytes([9, transfer, 0, 1])})).full
    assert abs(full[0].astype(int) - np.array(in_chromium)[:, None]).max() <= 1


@pytest.mark.parametrize("transfer", [16, 18])
def test_highlights_are_compressed_without_an_edge(transfer: int) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
    full = decode(tagged_png(ramp, {b"cICP": bytes([9, transfer, 0, 1])})).full
    steps = np.diff(full[0, :, 1].astype(int))
    assert steps.min() >= 0
    assert full[0, -1].tolist() == [255, 255, 255]
    assert np.count_nonzero(full[0, :, 1] == 255) < 70


@pytest.mark.parametrize("name", ["AVIF", "HEIF"])
def test_the_code_points_of_a_container_are_converted(name: str) -> None:
    image = Image.fromarray(hdr(muted(), 16))
    data = bytearray(encoded(image, name, quality=95))
    if (at := data.find(b"nclx")) < 0:
        pytest.skip("the encoder writes no code points")
    data[at + 4 : at + 8] = struct.pack(">HH", 9, 16)
    assert far(decode(bytes(data)).full, halved(muted())) < 6


@pytest.mark.parametrize("gamma", [0.35, 0.45455, 1.0])
def test_the_gamma_of_a_png_is_applied(gamma: float) -> None:
    light = colour._srgb_light(muted() / 255)
    samples = np.rint(light**gamma * 255).astype(np.uint8)
    chunk = struct.pack(">I", round(gamma * 100_000))
    full = decode(tagged_png(samples, {b"gAMA": chunk})).full
    if gamma == 0.45455:
        assert np.array_equal(full, samples)
    else:
        assert far(full, muted()) < 2
    # A statement that the picture is sRGB goes before.
    srgb = tagged_png(samples, {b"gAMA": chunk, b"sRGB": b"\0"})
    assert np.array_equal(decode(srgb).full, samples)


@pytest.mark.parametrize("values", [(0,) * 8, (1,) * 8, (2**32 - 1,) * 8, (31270, 0, *(1,) * 6)])
def test_primaries_that_make_no_sense_are_survived(values: Any) -> None:
    chunks = {b"gAMA": struct.pack(">I", 50_000), b"cHRM": struct.pack(">8I", *values)}
    try:
        decode(tagged_png(muted(), chunks))
    except InvalidInput:
        pytest.fail("metadata killed a picture")


def test_every_array_of_code_points_gives_a_picture() -> None:
    for primaries in range(25):
        for transfer in range(20):
            tags = ColorTags(cicp=(primaries, transfer))
            assert colour.to_srgb(muted()[:9, :9], "RGB", tags).shape == (9, 9, 3)


def test_pillow_reads_the_profile_that_these_tests_make() -> None:
    assert ImageCms.ImageCmsProfile(io.BytesIO(rgb_profile("P3"))).profile.xcolor_space == "RGB "
