"""RapidOCR itself, with the models of its package, on pictures drawn here."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont

from models.annotator import Annotator
from models.annotators.ocr import reading_order
from models.errors import InvalidInput, RetrieverUnavailable
from models.registry import make_annotator
from models.types import Pixels

pytest.importorskip("rapidocr")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def ocr() -> Annotator:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was tried")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.setattr(socket.socket, "connect", refuse)
        annotator = make_annotator("ocr")
        annotator.load()
        annotator.annotate(sign(["warm up"]))
    return annotator


def sign(lines: list[str], size: tuple[int, int] = (640, 360)) -> Pixels:
    """Draw black words on white, each line 60 pixels below the last."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(36)
    for number, line in enumerate(lines):
        draw.text((40, 40 + 60 * number), line, "black", font)
    return np.asarray(image)


def test_lines_are_read_in_order_with_their_places(ocr: Annotator) -> None:
    found = ocr.annotate(sign(["Hello World", "second line 42"]))
    assert found.text == "Hello World\nsecond line 42"
    lines = found.details["lines"]
    assert [line["text"] for line in lines] == ["Hello World", "second line 42"]
    for number, line in enumerate(lines):
        box = np.array(line["box"])
        assert box.shape == (4, 2)
        assert box[:, 0].min() == pytest.approx(40, abs=12)
        assert box[:, 1].mean() == pytest.approx(62 + 60 * number, abs=12)
        assert 0.8 < line["score"] <= 1
    assert found.row()["text"] == found.text


def test_a_page_turned_right_is_read_like_the_page(ocr: Annotator) -> None:
    page = sign(["first of these lines", "second of them", "and the third one"])
    assert ocr.annotate(np.rot90(page, -1)).text == ocr.annotate(page).text


def test_red_words_on_blue_keep_their_channels(ocr: Annotator) -> None:
    image = Image.new("RGB", (400, 120), (20, 20, 200))
    font = ImageFont.load_default(40)
    ImageDraw.Draw(image).text((30, 30), "Danger 7", (255, 60, 60), font)
    assert ocr.annotate(np.asarray(image)).text == "Danger 7"


def test_a_small_crop_of_one_word_is_read(ocr: Annotator) -> None:
    image = Image.new("RGB", (110, 30), "white")
    ImageDraw.Draw(image).text((3, 2), "HOTEL", "black", ImageFont.load_default(24))
    found = ocr.annotate(np.asarray(image))
    assert found.text == "HOTEL"
    box = np.array(found.details["lines"][0]["box"])
    assert box.min() >= 0
    assert (box.max(0) <= (110, 30)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (2000, 3), (20, 90), (300, 400)])
def test_a_picture_without_text_has_an_empty_annotation(
    ocr: Annotator, shape: tuple[int, int]
) -> None:
    assert ocr.annotate(np.full((*shape, 3), 255, np.uint8)).row() == {}


def test_lines_below_the_least_score_are_left_out() -> None:
    strict = make_annotator("ocr", {"min_score": 1.0})
    strict.load()
    assert strict.annotate(sign(["Hello World"])).row() == {}


def test_rows_are_read_from_the_left_whatever_their_order() -> None:
    def box(x: float, y: float) -> list[list[float]]:
        return [[x, y], [x + 50, y], [x + 50, y + 20], [x, y + 20]]

    boxes: npt.NDArray[np.float64] = np.array([box(200, 4), box(0, 30), box(0, 0), box(100, 27)])
    assert reading_order(boxes) == [2, 0, 1, 3]


def test_the_fingerprint_names_models_and_least_score_but_not_threads(tmp_path: Path) -> None:
    default = make_annotator("ocr").fingerprint
    assert make_annotator("ocr", {"threads": 2}).fingerprint == default
    assert make_annotator("ocr", {"min_score": 0.7}).fingerprint != default
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode())
    options = {"folder": str(tmp_path), "detector": "a", "classifier": "b", "recognizer": "c"}
    other = make_annotator("ocr", options).fingerprint
    (tmp_path / "c").write_bytes(b"another")
    assert len({default, other, make_annotator("ocr", options).fingerprint}) == 3


def test_a_model_that_is_missing_is_named_and_not_fetched() -> None:
    with pytest.raises(RetrieverUnavailable, match=r"holds no whole arabic\.onnx"):
        make_annotator("ocr", {"recognizer": "arabic.onnx"}).load()
    with pytest.raises(RetrieverUnavailable, match="there is no folder"):
        make_annotator("ocr", {"folder": "owner/name"}).load()


def test_a_misspelt_option_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidInput, match=r"'ocr'(?s:.)*min_scor\b"):
        make_annotator("ocr", {"min_scor": 0.5})


def test_neither_import_nor_fingerprint_loads_a_runtime() -> None:
    script = (
        "import sys; from models.registry import make_annotator;"
        "make_annotator('ocr').fingerprint;"
        "heavy = {'onnxruntime', 'rapidocr', 'torch', 'cv2'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
