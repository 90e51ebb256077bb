"""A test annotator that says whether a picture is bright; it needs no weights by default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from models.annotator import Annotation, Annotator
from models.types import Options, Pixels, View
from models.weights import UrlWeights, Weights


class BrightnessOptions(Options):
    words: str | None = None
    """Path of a file with the word for a bright picture, which serves as the weights."""


class Brightness(Annotator):
    """Annotates with `bright` or `dark`, the width of the view and the mean of all values."""

    Config: ClassVar[type[Options]] = BrightnessOptions
    view: ClassVar[View] = "preview"
    batch: ClassVar[int] = 4
    options: BrightnessOptions
    bright = "bright"

    def weights(self) -> Sequence[Weights]:
        path = self.options.words
        return [UrlWeights("words", "", "", path)] if path is not None else []

    def load(self) -> None:
        super().load()
        if "words" in self.files:
            self.bright = Path(self.files["words"]).read_text().strip()

    def annotate(self, pixels: Pixels) -> Annotation:
        mean = round(float(pixels.mean()), 3)
        word = self.bright if mean > 127 else "dark"
        return Annotation(f"a {word} picture", (word, f"{pixels.shape[1]} wide"), {"mean": mean})


ANNOTATOR = Brightness


class StoredBrightness(Brightness):
    """Annotates stored pHash features with their number of set bits."""

    def reads(self) -> tuple[str, str]:
        return "phash", "f"

    def annotate_features(self, rows: Sequence[bytes]) -> list[Annotation]:
        return [Annotation(tags=(f"{int.from_bytes(row).bit_count()} bits",)) for row in rows]
