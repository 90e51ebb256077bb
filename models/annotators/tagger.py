"""Tags of drawings by a WD tagger (v3): what is shown, which characters, and a rating.

SmilingWolf, "wd-vit-tagger-v3", 2024, trained on Danbooru's tags; for photographs it is no use.
The preparation of pictures is that of the author's own demonstration.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from models.annotator import Annotation, Annotator
from models.errors import RetrieverUnavailable
from models.types import Options, Pixels, View
from models.weights import HubWeights, Weights

NETWORK, TAGS = "model.onnx", "selected_tags.csv"
GENERAL, CHARACTER, RATING = 0, 4, 9
"""Categories of tags in the list."""
FACES = {
    *("0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9"),
    *(">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"),
}
"""Tags whose underscores are no spaces."""


class TaggerOptions(Options):
    model: str = Field("SmilingWolf/wd-vit-tagger-v3", exclude=True)
    """A repository of the hub, or a local folder, with `model.onnx` and `selected_tags.csv`. Model
    and revision are excluded from the fingerprint, because the hash of the files identifies
    them."""
    revision: str = Field("7f6b584d0bd3f55c4531f14ba3d4761b2bccdc0f", exclude=True)
    min_general: float = Field(0.35, ge=0, le=1)
    """Probability below which a general tag does not apply; the defaults are the author's."""
    min_character: float = Field(0.85, ge=0, le=1)
    min_rating: float = Field(0.5, ge=0, le=1)
    """Probability below which the likeliest rating is no tag."""
    threads: int = Field(1, ge=1, exclude=True)
    """Threads for one picture."""


@dataclass(frozen=True, slots=True)
class TagList:
    """The tags of the network's outputs."""

    names: tuple[str, ...]
    categories: npt.NDArray[np.int64]
    """(tags,)"""

    @classmethod
    def read(cls, path: Path) -> TagList:
        """Read a list with the columns `name` and `category`. Raises RetrieverUnavailable."""
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = [(row["name"], int(row["category"])) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as exc:
            raise RetrieverUnavailable(f"{path} is no list of tags: {exc!r}") from exc
        names = tuple(name if name in FACES else name.replace("_", " ") for name, _ in rows)
        return cls(names, np.array([category for _, category in rows], np.int64))


class Tagger(Annotator):
    """Annotator whose `tags` are characters, then general tags, likeliest first, then the rating as
    `rating: …`.

    `details` has the probabilities by tag, in `characters`, `general` and `ratings`; of ratings
    all.
    """

    Config: ClassVar[type[Options]] = TaggerOptions
    view: ClassVar[View] = "preview"
    options: TaggerOptions

    def weights(self) -> Sequence[Weights]:
        return [HubWeights("model", self.options.model, self.options.revision, (TAGS, NETWORK))]

    def load(self) -> None:
        """Load the network and the list. Raises RetrieverUnavailable where they do not fit."""
        super().load()
        try:
            import onnxruntime
        except ImportError as exc:
            raise RetrieverUnavailable(f"{exc}: install ambience[ocr]") from exc
        folder = self.files["model"]
        self._list = TagList.read(folder / TAGS)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.inter_op_num_threads = self.options.threads, 1
        settings.log_severity_level = 3
        try:
            # Not by path: links of the hub's cache would lead outside the folder.
            network = (folder / NETWORK).read_bytes()
            self._session: Any = onnxruntime.InferenceSession(
                network, settings, providers=["CPUExecutionProvider"]
            )
            (given,), (answered,) = self._session.get_inputs(), self._session.get_outputs()
            self._input, (_, height, width, channels) = given.name, given.shape
            count = answered.shape[-1]
        except Exception as exc:  # The errors of onnxruntime have no common class.
            self.forget()
            reason = (str(exc).splitlines() or [""])[0][:200]
            raise RetrieverUnavailable(f"{folder / NETWORK} is no tagger: {reason}") from exc
        if count != len(self._list.names) or height != width or channels != 3:
            raise RetrieverUnavailable(
                f"{folder / NETWORK} takes {given.shape} and answers {answered.shape}, {TAGS} has "
                f"{len(self._list.names)} tags"
            )
        self._side = int(height)

    def annotate(self, pixels: Pixels) -> Annotation:
        """Tags of an RGB picture, (height, width, 3) uint8."""
        prepared = prepared_square(pixels, self._side)
        (answer,) = self._session.run(None, {self._input: prepared[np.newaxis]})
        given = np.asarray(answer[0], np.float64)
        characters = self._above(given, CHARACTER, self.options.min_character)
        general = self._above(given, GENERAL, self.options.min_general)
        ratings = self._above(given, RATING, 0)
        rated = [f"rating: {name}" for name, p in ratings.items() if p >= self.options.min_rating]
        return Annotation(
            tags=(*characters, *general, *rated[:1]),
            details={"characters": characters, "general": general, "ratings": ratings},
        )

    def _above(
        self, probabilities: npt.NDArray[np.float64], category: int, least: float
    ) -> dict[str, float]:
        """Tags of a category at or above a threshold with their probabilities, likeliest first."""
        chosen = (self._list.categories == category) & (probabilities >= least)
        places = np.flatnonzero(chosen)
        order = places[np.argsort(-probabilities[places], kind="stable")]
        return {self._list.names[at]: round(float(probabilities[at]), 4) for at in order}


def prepared_square(pixels: Pixels, side: int) -> npt.NDArray[np.float32]:
    """The picture on a white square, as BGR (side, side, 3) with values from 0 to 255."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    square = np.full((longest, longest, 3), 255, np.uint8)
    top, left = (longest - height) // 2, (longest - width) // 2
    square[top : top + height, left : left + width] = pixels
    resized = Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized, np.float32)[:, :, ::-1])


ANNOTATOR = Tagger
