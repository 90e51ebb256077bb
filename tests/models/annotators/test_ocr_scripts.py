"""Several recognisers of scripts: real ones of the package beside tiny ones of the same format."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml

from models.annotators import ocr as module
from models.annotators.ocr import PUBLISHED, RECOGNISERS, Ocr, Script
from models.errors import InvalidInput, RetrieverUnavailable
from models.registry import make_annotator
from models.weights import torch_cache
from tests.models.annotators.test_ocr import sign

pytest.importorskip("rapidocr")


def write_recogniser(path: Path, character: str, sure: float, dark: bool = False) -> None:
    """Write a recogniser that reads this one character, with this score, in every line; or in
    lines on a dark ground only.

    Its input and output are those of PP-OCR: (batch, 3, 48, width) → (batch, width, characters),
    where the first is CTC's blank.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    probabilities = np.array([(1 - sure) / 2, sure, (1 - sure) / 2], np.float32)
    given = {
        "last": np.array([2]),
        "slope": np.array([0, -20000 if dark else 0, 0], np.float32),
        # The columns between letters, which are dark on a dark ground only.
        "logits": np.log(probabilities) - np.array([0, 17000 if dark else 0, 0], np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("Mul", ["column", "slope"], ["darkness"]),
        helper.make_node("Add", ["darkness", "logits"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "recogniser",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 48, "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "width", 3])],
        [numpy_helper.from_array(value, name) for name, value in given.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"character": character})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for recognisers."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch_cache().mkdir(parents=True)
    return torch_cache()


def put(cache: Path, patch: pytest.MonkeyPatch, script: Script, *recogniser: Any) -> None:
    """Put a tiny recogniser of a script where a fetched one would lie, and expect its hash."""
    name, _ = PUBLISHED[script]
    write_recogniser(cache / name, *recogniser)
    digest = hashlib.sha256((cache / name).read_bytes()).hexdigest()
    patch.setitem(module.PUBLISHED, script, (name, digest))


def loaded(**options: Any) -> Ocr:
    made = make_annotator("ocr", options)
    assert isinstance(made, Ocr)
    made.load()
    return made


def test_the_recognisers_are_those_that_rapidocr_publishes() -> None:
    found = find_spec("rapidocr")
    assert found is not None
    assert found.origin is not None
    listed = yaml.safe_load((Path(found.origin).parent / "default_models.yaml").read_text())
    models = listed["onnxruntime"]["PP-OCRv5"]["rec"].values()
    published = {model["model_dir"]: model["SHA256"] for model in models}
    assert set(PUBLISHED) == set(get_args(Script))
    for name, sha256 in PUBLISHED.values():
        assert published[f"{RECOGNISERS}/{name}"] == sha256


def test_of_each_line_the_surest_reading_is_taken(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, monkeypatch, "cyrillic", "Ж", 0.6)
    page = sign(["Hello World", "second line 42"])
    assert loaded(script="cyrillic").annotate(page).text == "Hello World\nsecond line 42"
    put(cache, monkeypatch, "cyrillic", "Ж", 0.999999)
    found = loaded(script="cyrillic").annotate(page)
    assert found.text == "Ж\nЖ"
    assert [line["score"] for line in found.details["lines"]] == [pytest.approx(1, abs=1e-4)] * 2


def test_all_scripts_are_read_with_auto(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for script, letter in zip(get_args(Script), "Жبकωㄱก", strict=True):
        put(cache, monkeypatch, script, letter, 0.999999 if script == "greek" else 0.5)
    assert loaded(script="auto").annotate(sign(["Hello World"])).text == "ω"


def test_a_recogniser_that_surely_reads_nothing_does_not_win(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, monkeypatch, "thai", " ", 0.999999)
    assert loaded(script="thai").annotate(sign(["Hello World"])).text == "Hello World"


def test_one_picture_may_hold_lines_of_several_scripts(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, monkeypatch, "korean", "ㄱ", 1e-6, True)
    light = sign(["Hello World"], (640, 160))
    page = np.concatenate([light, 255 - light])
    first, *others = loaded(script="korean").annotate(page).text.split("\n")
    assert first == "Hello World"
    assert set("".join(others)) == {"ㄱ"}
    assert loaded().annotate(page).text == "Hello World\nHello World"


def test_arabic_gets_its_logical_order(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache, monkeypatch, "arabic", "ب", 0.999999)
    engine = loaded(script="arabic")
    assert engine.annotate(sign(["Hello World"])).text == "ب"
    recogniser = engine._engine.text_rec._recognisers[1]
    assert str(recogniser.cfg.lang_type.value) == "arabic"


def test_a_script_begins_no_new_fingerprint_where_it_is_not_asked_for(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, monkeypatch, "greek", "ω", 0.5)
    plain = make_annotator("ocr")
    assert "script" not in plain.options.model_dump()
    assert make_annotator("ocr", {"script": "greek"}).fingerprint != plain.fingerprint


def test_without_its_recogniser_a_script_says_what_to_run(cache: Path) -> None:
    assert not list(cache.iterdir())
    with pytest.raises(RetrieverUnavailable, match=r"th_PP-OCRv5.*`ambience weights fetch --to"):
        make_annotator("ocr", {"script": "thai"}).find()
    with pytest.raises(InvalidInput, match="script"):
        make_annotator("ocr", {"script": "runes"})
