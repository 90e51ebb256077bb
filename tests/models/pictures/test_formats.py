"""File formats by their bytes, and which of them are fragile and go to a child process."""

from __future__ import annotations

import pytest

from models.pictures.decoding import decode
from models.pictures.formats import needs_child
from tests.models.pictures.test_decoding import drawing, encoded


@pytest.mark.parametrize("name", ["TIFF", "AVIF", "HEIF"])
def test_fragile_formats_belong_in_a_child(name: str) -> None:
    assert needs_child(encoded(drawing(), name))


@pytest.mark.parametrize("name", ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "PPM"])
def test_safe_formats_stay_in_the_process(name: str) -> None:
    assert not needs_child(encoded(drawing(), name))


def test_formats_read_by_python_loops_belong_in_a_child() -> None:
    rle = bytearray(encoded(drawing().convert("P"), "BMP"))
    rle[30:34] = (1).to_bytes(4, "little")
    assert needs_child(bytes(rle))
    assert needs_child(b"P3\n1 1\n255\n1 2 3\n")
    assert decode(b"P3\n1 1\n255\n1 2 3\n").full.tolist() == [[[1, 2, 3]]]
