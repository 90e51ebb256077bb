"""Text in pictures, read by RapidOCR: PaddleOCR's models in ONNX form, shipped in its package.

Li et al., "PP-OCRv3", 2022, and its successors. DB (Liao et al., 2020) detects the boxes of lines,
a classifier finds lines that are upside down, and a CTC network recognises the characters. The
packaged models read Chinese, Japanese and languages in Latin script; recognisers of other scripts
are fetched where `script` asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from models.annotator import Annotation, Annotator
from models.errors import RetrieverUnavailable
from models.types import Options, Pixels, View
from models.weights import HubWeights, UrlWeights, Weights

LONG_SIDE = 2048
"""Long side in pixels up to which the detector works; the full view is never longer, so nothing is
reduced again."""
SHORT_SIDE = 320
"""Short side in pixels below which a picture gets a margin. RapidOCR enlarges a short side to 736,
and the detector misses giant letters and lines that fill the picture."""
LONGEST = 4
"""Aspect ratio, in either direction, above which a picture gets a margin: narrow strips would be
enlarged to gigabytes."""
MIN_LINE_HEIGHT, MAX_LINE_HEIGHT = 8, 64
"""Minimum and maximum height in pixels of a picture that is read as one line when no line is
detected in it."""
UPRIGHT = 1.5
"""Aspect ratio (height / width) from which RapidOCR rotates a line before it reads it."""


Script = Literal["cyrillic", "arabic", "devanagari", "greek", "korean", "thai"]
RECOGNISERS = "https://www.modelscope.cn/models/RapidAI/RapidOCR/resolve/v3.10.0/onnx/PP-OCRv5/rec"
PUBLISHED: dict[Script, tuple[str, str]] = {
    "cyrillic": (
        "cyrillic_PP-OCRv5_rec_mobile.onnx",
        "90f761b4bfcce0c8c561c0cb5c887b0971d3ec01c32164bdf7374a35b0982711",
    ),
    "arabic": (
        "arabic_PP-OCRv5_rec_mobile.onnx",
        "c1192e632d0baa9146ae5b756a0e635e3dc63c1733737ebfd1629e87144e9295",
    ),
    "devanagari": (
        "devanagari_PP-OCRv5_rec_mobile.onnx",
        "d6f0a906580e3fa6b324a318718f1f31f268b6ea8ef985f91c2012a37f52c91e",
    ),
    "greek": (
        "el_PP-OCRv5_rec_mobile.onnx",
        "b4368bccd557123c702b7549fee6cd1e94b581337d1c9b65310f109131542b7f",
    ),
    "korean": (
        "korean_PP-OCRv5_rec_mobile.onnx",
        "cd6e2ea50f6943ca7271eb8c56a877a5a90720b7047fe9c41a2e541a25773c9b",
    ),
    "thai": (
        "th_PP-OCRv5_rec_mobile.onnx",
        "de541dd83161c241ff426f7ecfd602a0ba77d686cf3ab9a6c255ea82fd08006e",
    ),
}
"""File and SHA-256 of each recogniser, as RapidOCR publishes them."""

Boxes = npt.NDArray[np.float64]
"""Boxes (n, 4, 2): four corners, x and y."""


class OcrOptions(Options):
    detector: str = "PP-OCRv6_det_small.onnx"
    """File of the detection model, in `folder`. The next two options name files in the same way."""
    classifier: str = "ch_ppocr_mobile_v2.0_cls_mobile.onnx"
    """File of the classifier that finds lines that are upside down."""
    recognizer: str = "PP-OCRv6_rec_small.onnx"
    """File of the recognition model. RapidOCR publishes models for other scripts."""
    script: Literal["auto"] | Script | None = Field(None, exclude_if=lambda given: given is None)
    """A script that is read besides those of `recognizer`; `auto` is all of them. Each recogniser
    reads every line, and the surest wins."""
    folder: str | None = None
    """Folder of the owner's own models; by default the models of the package are used."""
    min_score: float = Field(0.5, ge=0, le=1)
    """Lines with a lower recognition score are omitted."""
    threads: int = Field(1, ge=1, exclude=True)
    """Threads for one picture. Excluded from the dump, and so from the fingerprint."""


class Ocr(Annotator):
    """Annotator whose `details` are {"lines": [{"text", "box", "score"}]}.

    A box is the line's four corners [x, y] in pixels of the view, clockwise from the corner at
    which the text begins.
    """

    Config: ClassVar[type[Options]] = OcrOptions
    view: ClassVar[View] = "full"
    options: OcrOptions

    def weights(self) -> Sequence[Weights]:
        given = self.options
        folder = _package() / "models" if given.folder is None else Path(given.folder).expanduser()
        files = (given.detector, given.classifier, given.recognizer)
        # One entry per file, so that an error names the missing file. Paths are absolute,
        # so that none is taken for a repository of the hub.
        own = [HubWeights(name, str(folder.absolute()), "", (name,)) for name in files]
        others = [
            UrlWeights(script, f"{RECOGNISERS}/{PUBLISHED[script][0]}", PUBLISHED[script][1])
            for script in self._scripts()
        ]
        return [*own, *others]

    def _scripts(self) -> Sequence[Script]:
        given = self.options.script
        if given is None:
            return ()
        return get_args(Script) if given == "auto" else (given,)

    def load(self) -> None:
        """Build the models. RapidOCR fetches nothing, because it gets the paths of its files."""
        super().load()
        _package()
        from rapidocr import LangRec, RapidOCR

        given = self.options
        paths = {
            f"{part}.model_path": str(self.files[name] / name)
            for part, name in (
                ("Det", given.detector),
                ("Cls", given.classifier),
                ("Rec", given.recognizer),
            )
        }
        threads = {
            f"EngineConfig.onnxruntime.{kind}_op_num_threads": count
            for kind, count in (("intra", given.threads), ("inter", 1))
        }
        limits = {"Global.text_score": given.min_score, "Global.max_side_len": LONG_SIDE}
        params = {**paths, **threads, **limits, "Global.log_level": "error"}
        engines: list[Any] = [RapidOCR(params=params)]
        for script in self._scripts():
            of_script: dict[str, Any] = {"Rec.model_path": str(self.files[script])}
            if script == "arabic":
                # What is written from right to left gets its logical order.
                of_script["Rec.lang_type"] = LangRec.ARABIC
            engines.append(RapidOCR(params=params | of_script))
        self._engine = engines[0]
        if len(engines) > 1:
            self._engine.text_rec = SurestRecogniser(engines)

    def annotate(self, pixels: Pixels) -> Annotation:
        """Lines of an RGB picture, (height, width, 3) uint8, in reading order."""
        texts, scores, boxes = self._read(pixels)
        if not texts:
            return Annotation()
        lines = [
            {
                "text": texts[place],
                "box": boxes[place].round(1).tolist(),
                "score": round(float(scores[place]), 4),
            }
            for place in reading_order(boxes)
        ]
        return Annotation("\n".join(line["text"] for line in lines), details={"lines": lines})

    def _read(self, pixels: Pixels) -> tuple[Sequence[str], Sequence[float], Boxes]:
        height, width = pixels.shape[:2]
        framed, left, top = _with_margin(pixels)
        # Pass `use_det` with every call, because RapidOCR keeps the value of the previous call.
        found = self._engine(_bgr(framed), use_det=True)
        if found.txts:
            boxes = np.asarray(found.boxes, np.float64) - (left, top)
            return found.txts, found.scores, boxes.clip(0, (width, height))
        if not MIN_LINE_HEIGHT <= height <= MAX_LINE_HEIGHT:
            return (), (), np.empty((0, 4, 2))
        found = self._engine(_bgr(pixels), use_det=False)
        if not found.txts or not found.txts[0].strip() or found.scores[0] < self.options.min_score:
            return (), (), np.empty((0, 4, 2))
        corners = [(0, 0), (width, 0), (width, height), (0, height)]
        return found.txts, found.scores, np.array([corners], np.float64)


class SurestRecogniser:
    """Reads each line with the recognisers of several engines and takes the surest reading.

    It stands in for the recogniser of an engine of RapidOCR.
    """

    def __init__(self, engines: Sequence[Any]) -> None:
        self._recognisers = [engine._load_rec_model() for engine in engines]

    def __call__(self, lines: Any) -> Any:
        """The first recogniser's output for these lines, with the surest texts and scores."""
        found = [recognise(lines) for recognise in self._recognisers]
        readings = [list(zip(one.scores, one.txts, strict=True)) for one in found]
        surest = [max(of_line, key=_sureness) for of_line in zip(*readings, strict=True)]
        chosen = found[0]
        chosen.scores = tuple(score for score, _ in surest)
        chosen.txts = tuple(text for _, text in surest)
        return chosen


def _sureness(reading: tuple[float, str]) -> float:
    """The score; a recogniser that reads nothing may be very sure of it."""
    score, text = reading
    return score if text.strip() else -1.0


def reading_order(boxes: Boxes) -> list[int]:
    """Reading order of boxes (n, 4, 2): row by row from the top, each row from the left.

    A box joins the last row when its middle lies in the upper three quarters of that row's first
    box; else it starts a new row. Where most boxes are upright, as on a page turned right or in
    vertical writing, the rows are columns from the right.
    """
    sides = np.ptp(boxes, axis=1)
    if np.mean(sides[:, 1] > UPRIGHT * sides[:, 0]) > 0.5:
        boxes = np.stack([boxes[:, :, 1], -boxes[:, :, 0]], axis=2)
    top, foot, left = boxes[:, :, 1].min(1), boxes[:, :, 1].max(1), boxes[:, :, 0].min(1)
    middle = (top + foot) / 2
    rows: list[list[int]] = []
    for place in np.argsort(middle, kind="stable").tolist():
        if rows and middle[place] < (middle[rows[-1][0]] + foot[rows[-1][0]]) / 2:
            rows[-1].append(place)
        else:
            rows.append([place])
    return [place for row in rows for place in sorted(row, key=lambda at: (left[at], at))]


def _with_margin(pixels: Pixels) -> tuple[Pixels, int, int]:
    """The picture with a margin in the colour of its border, if it needs one, and its left and top
    offset inside the margin."""
    height, width = pixels.shape[:2]
    least = max(SHORT_SIDE, -(-max(height, width) // LONGEST))
    tall, wide = max(height, least), max(width, least)
    if (tall, wide) == (height, width):
        return pixels, 0, 0
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    framed = np.empty((tall, wide, 3), np.uint8)
    framed[:] = np.median(border, axis=0)
    top, left = (tall - height) // 2, (wide - width) // 2
    framed[top : top + height, left : left + width] = pixels
    return framed, left, top


def _bgr(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[..., ::-1])


def _package() -> Path:
    for name in ("rapidocr", "onnxruntime"):
        if find_spec(name) is None:
            raise RetrieverUnavailable(f"{name} is not installed; it comes with the extra `ocr`")
    found = find_spec("rapidocr")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


ANNOTATOR = Ocr
