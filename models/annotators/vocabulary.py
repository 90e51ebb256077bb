"""Zero-shot tags from the owner's list of words, by comparing the words with the image_text
features that images already have.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP),
2021, section 3.1.
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
"""Vectors (n, d) of unit length."""

TextVectors = Callable[[Sequence[str]], Vectors]
"""Function that embeds n texts in the feature space of the pictures."""

logger = logging.getLogger(__name__)


class VocabularyOptions(Options):
    retriever: str = "image_text"
    """Name of the application whose stored features are compared with the words."""
    clip: dict[str, Any] = Field(default_factory=dict)
    """Options of that application's extractor `clip`, whose text tower embeds the words."""
    words: str | None = Field(None, exclude=True)
    """A text file with one word or phrase per line. Empty lines and lines that begin with # are
    ignored. Excluded from the dump, because the fingerprint covers the contents."""
    template: str = Field("a photo of a {}", pattern=r"^[^{}]*\{\}[^{}]*$")
    """The prompt for each word."""
    top: int = Field(5, ge=1)
    """Maximum number of tags."""
    min_cosine: float = Field(0.2, ge=-1, le=1)
    """Cosine threshold below which a word does not apply. It is independent of the number of words.
    Matching pairs of CLIP ViT-B have a cosine of about 0.3 and other pairs under 0.2; other models
    have other ranges."""
    min_probability: float = Field(0.05, ge=0, le=1)
    """Probability threshold of the softmax over all words, which separates a word from its
    competitors."""
    logit_scale: float = Field(100.0, gt=0)
    """Factor of cosines before the softmax; CLIP learned 100."""


@dataclass(frozen=True, slots=True)
class Words:
    """A list of words as read from its file, with its vectors."""

    words: tuple[str, ...]
    vectors: Vectors
    file_version: tuple[int, int]
    """Modification time and size of its file."""


class Vocabulary(Annotator):
    """Annotator that compares the words with stored features. It extracts features only from
    uploads."""

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
        """Read the list and embed its words.

        Raises RetrieverUnavailable where the list can't be read.
        """
        self._text_vectors = text_vectors
        self._words = self._read()

    def tags_of(self, vectors: Vectors) -> list[Annotation]:
        """Tags of n images by their features (n, d) float32 of unit length.

        The list is read again when its file has changed; if that fails, the previous list stays in
        use. It takes n × words × 28 bytes of memory, so pass pages of images, not all of them.
        """
        self._follow()
        options = self.options
        chosen = rank_words(vectors @ self._words.vectors.T, options)
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
            if file_version(Path(words)) != self._words.file_version:
                self._words = self._read()
        except (OSError, RetrieverUnavailable) as exc:
            logger.warning("the previous list of words stays in use: %s", exc)

    def _read(self) -> Words:
        self._hashes = None  # The fingerprint must identify the list as it is now.
        self.find()
        path = self.files["words"]
        try:
            # Taken before the read, so that a change during it is noticed next time.
            stamped = file_version(path)
            words = parse(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as exc:
            raise RetrieverUnavailable(f"{path} can't be read as words in UTF-8: {exc}") from exc
        if not words:
            raise RetrieverUnavailable(f"{path} lists no words")
        template = self.options.template
        vectors = self._text_vectors([template.replace("{}", word) for word in words])
        return Words(words, vectors, stamped)


def parse(text: str) -> tuple[str, ...]:
    """The words of a list in its order; each word once, ignoring case."""
    words: dict[str, str] = {}
    for line in text.splitlines():
        word = " ".join(line.split())
        if word and not word.startswith("#"):
            words.setdefault(word.casefold(), word)
    return tuple(words.values())


def rank_words(cosines: Vectors, options: VocabularyOptions) -> list[list[tuple[int, float]]]:
    """The words for each row of cosines (n, words) with their probabilities, likeliest first."""
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


def file_version(path: Path) -> tuple[int, int]:
    """Modification time in nanoseconds and size in bytes. Equal values mean that the file is
    unchanged."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size


ANNOTATOR = Vocabulary
