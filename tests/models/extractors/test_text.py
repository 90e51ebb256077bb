from __future__ import annotations

import json

import numpy as np
import pytest

from indexes.store.base import ANNOTATIONS
from models.errors import InvalidInput
from models.registry import make_extractor


def test_it_searches_the_space_of_the_annotations() -> None:
    extractor = make_extractor("text")
    assert (ANNOTATIONS.kind, ANNOTATIONS.fingerprint) == ("text", extractor.fingerprint)
    assert extractor.reads_text
    assert not extractor.of_pictures


@pytest.mark.parametrize("text", ["receipt", "two\nlines\tand a tab", "北京 Straße", "a" * 1000])
def test_words_become_their_utf8(text: str) -> None:
    features = make_extractor("text").extract_text(text)
    assert features.dtype == np.uint8
    assert features.tobytes().decode() == text


@pytest.mark.parametrize(
    "text", ["", "  \n ", "a" * 1001, "bell\x07", "nul\x00", "\x85next line", "\ud800"]
)
def test_what_is_no_text_is_refused_and_the_field_named(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        make_extractor("text").extract_text(text)
    assert refused.value.field == "text"


def test_a_stored_row_is_read_as_its_bytes() -> None:
    row = json.dumps({"ocr": {"text": "a"}}).encode()
    features = make_extractor("text").from_row(row)
    assert features.tobytes() == row


@pytest.mark.parametrize("row", [b"", b"{", b"[]", b'{"ocr":"a"}'])
def test_a_row_that_is_no_object_of_objects_is_refused(row: bytes) -> None:
    with pytest.raises(ValueError, match=r"object|document|input|unexpected"):
        make_extractor("text").from_row(row)


def test_a_picture_is_no_query() -> None:
    with pytest.raises(InvalidInput, match="by words"):
        make_extractor("text").extract(np.zeros((4, 4, 3), np.uint8))
