"""The tagger on a tiny network with the files and the layout of wd-vit-tagger-v3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.annotators.tagger import NETWORK, TAGS, Tagger, prepared_square
from models.errors import InvalidInput, RetrieverUnavailable
from models.registry import make_annotator
from models.types import Pixels

SIDE = 16
LIST = """tag_id,name,category,count
9999999,general,9,807858
9999998,explicit,9,100
470575,red_hair,0,4000
212816,green_grass,0,3000
401228,^_^,0,20
13197,blue_sky,0,2500
1,"miku,_hatsune",4,10
2,sonic,4,9
"""
WEIGHTS = np.array(  # Rows are B, G, R; a column is a tag of LIST.
    [
        [0.0, 0.0, -8.0, -8.0, -9.0, 8.0, 0.0, 9.0],
        [0.0, 0.0, -8.0, 8.0, -9.0, -8.0, 0.0, -9.0],
        [2.0, -2.0, 8.0, -8.0, -9.0, -8.0, 9.0, -9.0],
    ],
    np.float32,
)
BIAS = np.array([0.5, -0.5, -1, -1, -1, -1, -2, -2], np.float32)


def write_network(path: Path, tags: int = 8) -> None:
    """Write sigmoid(W · mean colour + b) as ONNX, with an input (batch, side, side, 3)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    scaled = (WEIGHTS / 255)[:, :tags]
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["mean", "weights", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", tags])],
        [numpy_helper.from_array(scaled, "weights"), numpy_helper.from_array(BIAS[:tags], "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_network(tmp_path / NETWORK)
    (tmp_path / TAGS).write_text(LIST)
    return tmp_path


def tagger(folder: Path, **options: Any) -> Tagger:
    made = make_annotator("tagger", {"model": str(folder), **options})
    assert isinstance(made, Tagger)
    made.load()
    return made


def plain(red: int, green: int, blue: int, height: int = 20, width: int = 20) -> Pixels:
    return np.full((height, width, 3), (red, green, blue), np.uint8)


def test_characters_come_first_then_general_tags_then_the_rating(folder: Path) -> None:
    said = tagger(folder).annotate(plain(255, 0, 0))
    assert said.tags == ("miku, hatsune", "red hair", "rating: general")
    assert said.details["characters"] == {"miku, hatsune": pytest.approx(0.9991, abs=1e-3)}
    assert said.details["general"] == {"red hair": pytest.approx(0.9991, abs=1e-3)}
    assert list(said.details["ratings"]) == ["general", "explicit"]
    assert tagger(folder).annotate(plain(0, 0, 255)).tags == (
        "sonic",
        "blue sky",
        "rating: general",
    )


def test_probabilities_are_the_networks_own(folder: Path) -> None:
    pixels = plain(200, 90, 30)
    made = tagger(folder, min_general=0, min_character=0, min_rating=0)
    said = made.annotate(pixels).details
    expected = 1 / (1 + np.exp(-(np.array([30, 90, 200]) / 255 @ WEIGHTS + BIAS)))
    assert said["general"]["green grass"] == pytest.approx(expected[3], abs=1e-3)
    assert said["general"]["^_^"] == pytest.approx(expected[4], abs=1e-3)
    assert said["ratings"]["explicit"] == pytest.approx(expected[1], abs=1e-3)
    assert list(said["general"].values()) == sorted(said["general"].values(), reverse=True)


def test_each_kind_of_tag_has_its_threshold(folder: Path) -> None:
    pixels = plain(255, 0, 0)
    assert tagger(folder, min_character=1).annotate(pixels).tags == ("red hair", "rating: general")
    assert "red hair" not in tagger(folder, min_general=1).annotate(pixels).tags
    assert tagger(folder, min_rating=1).annotate(pixels).tags == ("miku, hatsune", "red hair")
    prints = [tagger(folder, **some).fingerprint for some in ({}, {"min_general": 0.5})]
    assert prints[0] != prints[1]
    assert tagger(folder, threads=2).fingerprint == prints[0]


@pytest.mark.parametrize(("height", "width"), [(10, 40), (40, 10), (1, 1), (1, 300), (17, 16)])
def test_a_picture_is_set_on_a_white_square_whole(height: int, width: int) -> None:
    square = prepared_square(plain(10, 20, 30, height, width), SIDE)
    assert square.shape == (SIDE, SIDE, 3)
    assert square.dtype == np.float32
    share = min(height, width) / max(height, width)
    expected = share * np.array([30, 20, 10]) + (1 - share) * 255
    assert square.mean((0, 1)) == pytest.approx(expected, abs=4)


def test_a_square_picture_of_the_right_size_is_only_turned_to_bgr() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    assert np.array_equal(prepared_square(pixels, SIDE), pixels[:, :, ::-1])


def test_a_list_and_a_network_that_do_not_fit_are_refused(folder: Path) -> None:
    write_network(folder / NETWORK, tags=7)
    with pytest.raises(RetrieverUnavailable, match=r"selected_tags\.csv has 8 tags"):
        tagger(folder)


@pytest.mark.parametrize("text", ["", "tag_id,title\n1,x\n", "name,category\nx,often\n"])
def test_a_list_of_something_else_is_refused(folder: Path, text: str) -> None:
    (folder / TAGS).write_text(text)
    with pytest.raises(RetrieverUnavailable, match=r"selected_tags\.csv"):
        tagger(folder)


def test_missing_or_broken_files_are_named(folder: Path) -> None:
    (folder / NETWORK).write_bytes(b"no network")
    with pytest.raises(RetrieverUnavailable, match=r"model\.onnx is no tagger"):
        tagger(folder)
    (folder / NETWORK).unlink()
    with pytest.raises(RetrieverUnavailable, match="holds no whole"):
        tagger(folder)
    write_network(folder / NETWORK)
    (folder / TAGS).unlink()
    with pytest.raises(RetrieverUnavailable, match=r"selected_tags\.csv"):
        tagger(folder)


def test_a_threshold_out_of_range_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidInput, match="min_general"):
        make_annotator("tagger", {"min_general": 2})
