"""What EXIF tells of a photograph, and the facts of a file."""

from __future__ import annotations

import io
import struct
from datetime import UTC, datetime

import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pillow_jxl import JpegXLImagePlugin

from models.pictures.decoder import Decoder
from models.pictures.decoding import decode
from models.pictures.files.exif import Exif, read_exif
from models.pictures.files.heif import exif_of
from models.pictures.files.jpeg import estimated_quality
from models.types import FileFacts
from tests.models.pictures.test_decoding import drawing, encoded

pillow_heif.register_heif_opener()
assert JpegXLImagePlugin
NOON = datetime(2021, 6, 5, 12, 0, 0, tzinfo=UTC).timestamp()
ORIGINAL, DIGITIZED, CHANGED = 36867, 36868, 306
OFFSET, FRACTION = 36881, 37521


def block(tags: dict[int, str | int]) -> bytes:
    """A block of EXIF with these tags, in the directories where they belong."""
    exif = Image.Exif()
    for tag, value in tags.items():
        (exif if tag < 1000 else exif.get_ifd(0x8769))[tag] = value
    return exif.tobytes()


def test_the_moment_of_the_shot_comes_before_that_of_a_scan_and_of_a_change() -> None:
    dates: dict[int, str | int] = {
        CHANGED: "2023:01:01 00:00:00",
        DIGITIZED: "2022:01:01 00:00:00",
        ORIGINAL: "2021:06:05 12:00:00",
    }
    assert read_exif(block(dates)).taken == NOON
    del dates[ORIGINAL]
    assert read_exif(block(dates)).taken == datetime(2022, 1, 1, tzinfo=UTC).timestamp()
    del dates[DIGITIZED]
    assert read_exif(block(dates)).taken == datetime(2023, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("offset", "hours"),
    [("+02:00", -2), ("-05:30", 5.5), ("Z", 0), ("   :  ", 0), ("+99:00", None)],
)
def test_a_local_time_without_an_offset_is_read_as_utc(offset: str, hours: float | None) -> None:
    taken = read_exif(block({ORIGINAL: "2021:06:05 12:00:00", OFFSET: offset})).taken
    assert taken == (None if hours is None else NOON + 3600 * hours)


def test_the_fraction_of_a_second_orders_a_burst() -> None:
    taken = read_exif(block({ORIGINAL: "2021:06:05 12:00:00", FRACTION: "25"})).taken
    assert taken == NOON + 0.25


@pytest.mark.parametrize(
    "date",
    [
        "0000:00:00 00:00:00",
        "    :  :     :  :  ",
        "2021:13:05 12:00:00",
        "2021:02:30 12:00:00",
        "0021:06:05 12:00:00",
        "2999:06:05 12:00:00",
        "yesterday",
        "",
    ],
)
def test_a_date_that_can_not_be_is_none_and_the_next_one_counts(date: str) -> None:
    assert read_exif(block({ORIGINAL: date})).taken is None
    both: dict[int, str | int] = {ORIGINAL: date, CHANGED: "2021:06:05 12:00:00"}
    assert read_exif(block(both)).taken == NOON


def test_tags_about_the_photograph_count_and_those_about_the_pixels_do_not() -> None:
    camera: dict[int, str | int] = {271: "Maker", 272: "Model", 33437: 4, 34855: 100}
    assert read_exif(block(camera)).tags == 4
    assert read_exif(block({274: 6})) == Exif(orientation=6, taken=None, tags=0)


@pytest.mark.parametrize("value", [None, "text", b"", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0"])
def test_no_exif_says_nothing(value: object) -> None:
    assert read_exif(value) == Exif()


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200), st.binary(max_size=12))
def test_damage_never_raises(noise: bytes, at: int, patch: bytes) -> None:
    whole = bytearray(block({ORIGINAL: "2021:06:05 12:00:00", 271: "Maker", 274: 3}))
    whole[at : at + len(patch)] = patch
    for data in (noise, b"Exif\0\0II*\0" + noise, bytes(whole)):
        exif = read_exif(data)
        assert 1 <= exif.orientation <= 8
        assert exif.tags >= 0


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@settings(deadline=None)
@given(noise=st.binary(min_size=1, max_size=8), at=st.integers(0, 600))
def test_a_damaged_container_has_no_exif_or_another_one(kind: str, noise: bytes, at: int) -> None:
    data = bytearray(CONTAINERS[kind])
    data[at : at + len(noise)] = noise
    assert 1 <= read_exif(exif_of(bytes(data))).orientation <= 8


EXIF = block({ORIGINAL: "2021:06:05 12:00:00", 271: "Maker"})
CONTAINERS = {kind: encoded(drawing(), kind, exif=EXIF) for kind in ("AVIF", "HEIF")}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("JPEG", "JPEG"),
        ("PNG", "PNG"),
        ("WEBP", "WebP"),
        ("TIFF", "TIFF"),
        ("AVIF", "AVIF"),
        ("HEIF", "HEIC"),
        ("JXL", "JPEG XL"),
    ],
)
def test_the_facts_of_a_file_are_read_with_its_pixels(kind: str, name: str) -> None:
    data = encoded(drawing(), kind, exif=EXIF)
    quality = 75 if kind == "JPEG" else None
    assert decode(data).facts == FileFacts(name, len(data), NOON, 2, quality)


@pytest.mark.parametrize(("kind", "name"), [("BMP", "BMP"), ("PPM", "PNM"), ("GIF", "GIF")])
def test_formats_without_exif_have_a_name_and_a_size(kind: str, name: str) -> None:
    data = encoded(drawing(), kind)
    assert decode(data).facts == FileFacts(name, len(data))


def test_the_child_process_tells_the_same_facts() -> None:
    data = encoded(drawing(), "TIFF", exif=EXIF)
    decoder = Decoder()
    try:
        assert decoder.decode_blocking(data).facts == decode(data).facts
    finally:
        decoder.close()


@pytest.mark.parametrize("quality", [5, 30, 49, 50, 75, 85, 95, 100])
def test_the_quality_of_a_jpeg_is_read_off_its_table(quality: int) -> None:
    file = io.BytesIO()
    drawing().save(file, "JPEG", quality=quality)
    facts = decode(file.getvalue()).facts
    assert facts is not None
    assert facts.quality == quality


@settings(deadline=None)
@given(st.lists(st.integers(1, 65535), min_size=64, max_size=64))
def test_any_table_has_a_nearest_quality(table: list[int]) -> None:
    assert 1 <= (estimated_quality(table) or 0) <= 100
    assert estimated_quality(table[:8]) is None


def test_the_first_of_two_orientations_counts() -> None:
    entries = b"".join(struct.pack("<HHIHH", 0x112, 3, 1, turn, 0) for turn in (6, 3))
    twice = b"II" + struct.pack("<HIH", 42, 8, 2) + entries + bytes(4)
    assert read_exif(twice).orientation == 6
