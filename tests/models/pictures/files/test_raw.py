"""Camera RAW: the largest preview stands for the picture, or a sentence says what is missing."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from models.errors import UnsupportedPicture
from models.pictures.decoding import decode
from models.pictures.formats import needs_child
from tests.models.pictures.test_decoding import drawing, encoded, exif, far

SHOWN = drawing(600, 400)
JPEG = encoded(SHOWN, "JPEG", quality=95)
SMALL = encoded(SHOWN.resize((160, 106)), "JPEG")
SENSOR = np.random.default_rng(4).integers(0, 4096, (1200, 1800)).astype(np.uint16)


def layout(
    previews: list[bytes], orientation: int = 1, sensor: bool = True, dng: bool = False
) -> bytes:
    """Return a TIFF as cameras write it: a small copy first, then the sensor, then JPEGs."""
    file = io.BytesIO()
    tags: list[Any] = [(271, 2, 0, "CAMERA", True), (274, 3, 1, orientation, True)]
    if dng:
        tags.append((50706, 1, 4, bytes([1, 4, 0, 0]), True))
    with tifffile.TiffWriter(file) as writer:
        small = np.asarray(SHOWN.resize((160, 106)))
        writer.write(
            small, photometric="rgb", subfiletype=1, extratags=tags, subifds=1 if sensor else None
        )
        if sensor:
            writer.write(
                SENSOR,
                photometric="cfa",
                subfiletype=0,
                extratags=[(33421, 3, 2, (2, 2), True), (33422, 1, 4, bytes([0, 1, 1, 2]), True)],
            )
    return file.getvalue() + b"".join(previews)


@pytest.mark.parametrize("dng", [False, True])
def test_the_largest_preview_stands_for_a_picture_of_the_sensors_size(dng: bool) -> None:
    data = layout([SMALL, JPEG], dng=dng)
    picture = decode(data)
    assert (picture.width, picture.height, picture.format) == (1800, 1200, "RAW")
    assert far(picture.full, np.asarray(SHOWN)) < 3
    assert needs_child(data)


def test_the_orientation_of_the_raw_file_turns_its_preview() -> None:
    stored = encoded(SHOWN.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif(1))
    picture = decode(layout([stored], orientation=6))
    assert (picture.width, picture.height) == (1200, 1800)
    assert far(picture.full, np.asarray(SHOWN)) < 4


@pytest.mark.parametrize("previews", [[], [SMALL]])
def test_raw_without_a_useful_preview_is_refused_by_its_name(previews: list[bytes]) -> None:
    for sensor in (True, False):
        with pytest.raises(UnsupportedPicture, match=r"camera RAW with .*develop it"):
            decode(layout(previews, sensor=sensor))


def test_sensor_data_that_is_packed_as_jpeg_is_no_preview() -> None:
    lossless = bytearray(JPEG)
    at = lossless.index(b"\xff\xc0")
    lossless[at + 1] = 0xC3
    with pytest.raises(UnsupportedPicture, match="camera RAW with no preview"):
        decode(layout([bytes(lossless)]))


@pytest.mark.parametrize(
    "head",
    [
        b"FUJIFILMCCD-RAW 0201" + bytes(100),
        b"IIRO\x08\0\0\0" + bytes(40),
        b"IIU\0\x08\0\0\0" + bytes(40),
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40),
    ],
)
def test_the_formats_of_other_makers_show_their_preview_too(head: bytes) -> None:
    picture = decode(head + SMALL + bytes(100) + JPEG + SENSOR.tobytes()[:5000])
    assert (picture.width, picture.height, picture.format) == (600, 400, "RAW")
    assert far(picture.full, np.asarray(SHOWN)) < 3


def test_the_orientation_in_canons_boxes_counts() -> None:
    cmt1 = b"CMT1II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 274, 3, 1, 6, 0, 0)
    stored = encoded(SHOWN.transpose(Image.Transpose.ROTATE_90), "JPEG")
    data = b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(8) + cmt1 + bytes(30) + stored
    assert far(decode(data).full, np.asarray(SHOWN)) < 4


def test_a_photograph_saved_as_tiff_is_no_raw() -> None:
    data = encoded(SHOWN, "TIFF", tiffinfo={271: "CAMERA", 272: "MODEL"})
    assert decode(data).format == "TIFF"
