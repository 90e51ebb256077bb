"""Tags from the owner's own list of words, by the image_text features that pictures already have.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP),
2021, section 3.1: zero-shot classification.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from models.annotator import Annotation, Annotator
from models.errors import RetrieverUnavailable
from models.registry import make_extractor
from models.types import Options, Pixels, View
from models.weights import UrlWeights, Weights

Vectors = npt.NDArray[np.float32]
"""(n, d), each row of unit length."""

TextVectors = Callable[[Sequence[str]], Vectors]
"""Vectors of n texts, in the space of the pictures' features."""

logger = logging.getLogger(__name__)


class VocabularyOptions(Options):
    retriever: str = "image_text"
    """The application whose stored features are compared with the words."""
    clip: dict[str, Any] = Field(default_factory=dict)
    """Options of that application's extractor, `clip`: its text tower reads the words."""
    words: str | None = Field(None, exclude=True)
    """A text file: one word or phrase per line; empty lines and those that begin with # don't
    count. Excluded from the dump: the fingerprint names its contents."""
    template: str = Field("a photo of a {}", pattern=r"^[^{}]*\{\}[^{}]*$")
    """What is asked about each word."""
    top: int = Field(5, ge=1)
    """At most so many tags."""
    min_cosine: float = Field(0.2, ge=-1, le=1)
    """Tells a picture of none of the words, whatever their number. Matching pairs of CLIP ViT-B lie
    about 0.3, others under 0.2; other models have other ranges."""
    min_probability: float = Field(0.05, ge=0, le=1)
    """Of the softmax over all words: tells a word from the others that it competes with."""
    logit_scale: float = Field(100.0, gt=0)
    """What cosines are multiplied by before the softmax: CLIP learned 100."""


@dataclass(frozen=True, slots=True)
class Words:
    """The list as it was read, with its vectors."""

    words: tuple[str, ...]
    vectors: Vectors
    stamp: tuple[int, int]
    """Modification time and size of its file."""


class Vocabulary(Annotator):
    """Compares the words with stored features; only an upload's are made of its pixels."""

    Config: ClassVar[type[Options]] = VocabularyOptions
    view: ClassVar[View] = "preview"
    options: VocabularyOptions

    def __init__(self, options: VocabularyOptions) -> None:
        super().__init__(options)
        self._clip = make_extractor("clip", options.clip)

    def weights(self) -> Sequence[Weights]:
        if self.options.words is None:
            raise RetrieverUnavailable("there is no list of words: name its file in `words`")
        return (UrlWeights("words", "", None, self.options.words), *self._clip.weights())

    def load(self) -> None:
        super().load()
        self._clip.load()
        self.use(lambda texts: np.stack([self._clip.extract_text(text) for text in texts]))

    def reads(self) -> tuple[str, str]:
        return self.options.retriever, self._clip.fingerprint

    def annotate_features(self, rows: Sequence[bytes]) -> list[Annotation]:
        return self.tags_of(np.stack([self._clip.from_row(row) for row in rows]))

    def use(self, text_vectors: TextVectors) -> None:
        """Read the list and make its vectors.

        Raises RetrieverUnavailable where the list can't be read.
        """
        self._text_vectors = text_vectors
        self._words = self._read()

    def tags_of(self, vectors: Vectors) -> list[Annotation]:
        """Tags of n pictures by their features (n, d) float32 of unit length.

        The list is read anew when its file has changed; a file that can't be read leaves the last
        one in force. Takes n × words × 8 bytes of memory: hand over pages of pictures, not all.
        """
        self._follow()
        options = self.options
        chosen = choose(vectors @ self._words.vectors.T, options)
        return [
            Annotation(
                tags=tuple(self._words.words[at] for at, _ in row),
                details={
                    "probabilities": {self._words.words[at]: round(p, 4) for at, p in row},
                },
            )
            for row in chosen
        ]

    def annotate(self, pixels: Pixels) -> Annotation:
        return self.tags_of(self._clip.extract(pixels)[np.newaxis])[0]

    def _follow(self) -> None:
        words = self.options.words
        assert words is not None
        try:
            if stamp(Path(words)) != self._words.stamp:
                self._words = self._read()
        except (OSError, RetrieverUnavailable) as exc:
            logger.warning("the last list of words stays in force: %s", exc)

    def _read(self) -> Words:
        self._hashes = None  # So that the fingerprint names the list as it is now.
        self.find()
        path = self.files["words"]
        try:
            stamped = stamp(path)  # Before reading: a change meanwhile is seen next time.
            words = parse(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as exc:
            raise RetrieverUnavailable(f"{path} can't be read as words in UTF-8: {exc}") from exc
        if not words:
            raise RetrieverUnavailable(f"{path} lists no words")
        template = self.options.template
        vectors = self._text_vectors([template.replace("{}", word) for word in words])
        return Words(words, vectors, stamped)


def parse(text: str) -> tuple[str, ...]:
    """The words of a list, in its order, each once whatever its case."""
    words: dict[str, str] = {}
    for line in text.splitlines():
        word = " ".join(line.split())
        if word and not word.startswith("#"):
            words.setdefault(word.casefold(), word)
    return tuple(words.values())


def choose(cosines: Vectors, options: VocabularyOptions) -> list[list[tuple[int, float]]]:
    """Of cosines (n, words), each picture's words with their probabilities, likeliest first."""
    scaled = options.logit_scale * (cosines - cosines.max(axis=1, keepdims=True))
    powers = np.exp(scaled)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    best = np.argsort(-cosines, axis=1, kind="stable")[:, : options.top]
    likely = np.take_along_axis(probabilities, best, axis=1)
    near = np.take_along_axis(cosines, best, axis=1) >= options.min_cosine
    kept = near & (likely >= options.min_probability)
    return [
        [(int(at), float(p)) for at, p in zip(words[keep], chances[keep], strict=True)]
        for words, chances, keep in zip(best, likely, kept, strict=True)
    ]


def stamp(path: Path) -> tuple[int, int]:
    """Modification time in nanoseconds and size in bytes: both the same means unchanged."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size


ANNOTATOR = Vocabulary
