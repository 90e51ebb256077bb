"""An annotator for tests: whether a picture is bright. It needs no weights, unless told so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from models.annotator import Annotation, Annotator
from models.types import Options, Pixels, View
from models.weights import UrlWeights, Weights


class BrightnessOptions(Options):
    words: str | None = None
    """A file with the word for a bright picture: its weights."""


class Brightness(Annotator):
    """Says `bright` or `dark`, how wide its view is, and the mean of all values."""

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
    """The same of stored features: the bits that are set."""

    def reads(self) -> tuple[str, str]:
        return "phash", "f"

    def annotate_features(self, rows: Sequence[bytes]) -> list[Annotation]:
        return [Annotation(tags=(f"{int.from_bytes(row).bit_count()} bits",)) for row in rows]
