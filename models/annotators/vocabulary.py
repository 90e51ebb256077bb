"""Zero-shot tags from a list of words, by comparing the words with the image_text features that
images already have.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP),
2021, section 3.1; Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (SigLIP), 2023.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from models.annotator import Annotation, Annotator
from models.errors import InvalidInput, RetrieverUnavailable
from models.types import Options, Pixels, TextFeatures, View
from models.weights import UrlWeights, Weights

Vectors = npt.NDArray[np.float32]
"""Vectors (n, d) of unit length."""

EVERYDAY = "everyday"
"""Name of the list that is shipped."""
BACKGROUND = (
    "a photo",
    "a picture",
    "an image",
    "a photo of something",
    "a photo of some things",
    "a photo of a place",
    "an ordinary photo",
    "a photo of nothing in particular",
)
"""Prompts that fit any picture. A model of softmax has no probability of one text alone, so each
word competes with these, and its probability does not depend on the other words."""
SOFTMAX_PROBABILITY, SIGMOID_PROBABILITY = 0.5, 0.1
"""Default thresholds. Models trained with a sigmoid give even true pairs low probabilities, because
nearly all pairs of their training were false."""
LOOK_SECONDS = 10.0
"""Time between looks whether the retriever has another model."""
LINE = re.compile(r"(?P<word>[^|]*?)\s*(?:\|\s*(?P<threshold>.*))?")

logger = logging.getLogger(__name__)


class VocabularyOptions(Options):
    retriever: str = "image_text"
    """Name of the application whose stored features are compared with the words, and which makes
    the words' features."""
    words: str | None = Field(None, exclude=True)
    """`everyday`, or a text file with one word or phrase per line, which a threshold of its own
    may follow: `red balloon | 0.3`. Empty lines and lines that begin with # are ignored. Excluded
    from the dump, because the fingerprint covers the contents."""
    template: str = Field("a photo of a {}", pattern=r"^[^{}]*\{\}[^{}]*$")
    """The prompt for each word."""
    top: int = Field(5, ge=1)
    """Maximum number of tags."""
    min_probability: float | None = Field(None, ge=0, le=1)
    """Probability below which a word does not apply; by default SOFTMAX_PROBABILITY or
    SIGMOID_PROBABILITY, as the model was trained."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the list, and its own threshold where it has one."""

    text: str
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Words:
    """A list of words as read from its file, with its features."""

    words: tuple[Word, ...]
    features: TextFeatures
    """Of the words, then of BACKGROUND."""
    file_version: tuple[int, int]
    """Modification time and size of its file."""

    def probabilities(self, pictures: Vectors) -> npt.NDArray[np.float64]:
        """Probabilities (n, words) that words apply to pictures (n, d), as the model scores them.

        sigmoid(scale · cosine + bias). Without a learned bias it is the softmax of each word
        against BACKGROUND, which has the same form: the bias is minus the log of the background's
        summed exponentials.
        """
        from scipy.special import expit, logsumexp

        given = self.features
        logits = given.logit_scale * (pictures @ given.vectors.T).astype(np.float64)
        of_words, of_background = np.split(logits, [len(self.words)], axis=1)
        if given.logit_bias is not None:
            return np.asarray(expit(of_words + given.logit_bias), np.float64)
        return np.asarray(expit(of_words - logsumexp(of_background, axis=1, keepdims=True)))

    def thresholds(self, default: float | None) -> npt.NDArray[np.float64]:
        """Thresholds (words,) of the probabilities."""
        if default is None:
            softmax = self.features.logit_bias is None
            default = SOFTMAX_PROBABILITY if softmax else SIGMOID_PROBABILITY
        own = [word.threshold for word in self.words]
        return np.array([default if one is None else one for one in own])


class Vocabulary(Annotator):
    """Annotator that compares the words with stored features. It loads no model: the retriever
    makes the features of words and of uploads."""

    Config: ClassVar[type[Options]] = VocabularyOptions
    view: ClassVar[View] = "preview"
    version: ClassVar[int] = 2
    options: VocabularyOptions
    _words: Words
    _looked = 0.0

    def weights(self) -> Sequence[Weights]:
        words = self.options.words
        if words is None:
            raise RetrieverUnavailable(
                f"there is no list of words: write `{EVERYDAY}` for the one that is shipped, or "
                "name its file in `words`"
            )
        path = Path(__file__).with_name(f"{EVERYDAY}.txt") if words == EVERYDAY else words
        return (UrlWeights("words", "", None, str(path)),)

    def asks(self) -> str:
        return self.options.retriever

    def reads(self) -> tuple[str, str]:
        """The feature space of the retriever's model; rows that `annotate_features` gets must be
        of the space that was read last."""
        self._follow()
        return self.options.retriever, self._words.features.fingerprint

    def find(self, fetch: bool = False) -> None:
        """Read the list and ask the retriever for the words' features.

        Raises RetrieverUnavailable where the list can't be read, or the retriever does not answer.
        """
        if self._hashes is not None:
            return
        super().find(fetch)
        assert self._hashes is not None
        try:
            self._words = self._read(self.files["words"])
        except RetrieverUnavailable:
            self.forget()
            raise
        self._hashes = [*self._hashes, self._words.features.fingerprint]

    def annotate_features(self, rows: Sequence[bytes]) -> list[Annotation]:
        return self.tags_of(np.stack([np.frombuffer(row, np.float32) for row in rows]))

    def annotate(self, pixels: Pixels) -> Annotation:
        assert self.source is not None
        self._follow()
        try:
            features = self.source.of_picture(pixels, self._words.features.fingerprint)
        except RetrieverUnavailable:
            self._looked = 0.0
            raise
        return self.tags_of(features[np.newaxis])[0]

    def tags_of(self, vectors: Vectors) -> list[Annotation]:
        """Tags of n images by their features (n, d) float32 of unit length.

        It takes n × words × 40 bytes of memory, so pass pages of images, not all of them.
        """
        listed, options = self._words, self.options
        probabilities = listed.probabilities(vectors)
        thresholds = listed.thresholds(options.min_probability)
        return [
            Annotation(
                tags=tuple(listed.words[at].text for at in row),
                details={
                    "probabilities": {listed.words[at].text: round(float(p[at]), 4) for at in row}
                },
            )
            for row, p in zip(
                best_words(probabilities, thresholds, options.top), probabilities, strict=True
            )
        ]

    def _follow(self) -> None:
        """Read the list again when its file, or the retriever's model, has changed; if that fails,
        the previous list stays in use."""
        before = self._hashes, self._words
        try:
            if not self._changed():
                return
            self.forget()
            self.find()
        except (OSError, RetrieverUnavailable) as exc:
            self._hashes, self._words = before
            logger.warning("the previous list of words stays in use: %s", exc)

    def _changed(self) -> bool:
        if file_version(self.files["words"]) != self._words.file_version:
            return True
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        assert self.source is not None
        return self.source.of_texts(()).fingerprint != self._words.features.fingerprint

    def _read(self, path: Path) -> Words:
        if self.source is None:
            raise RetrieverUnavailable(f"{self.options.retriever} can't be asked for features")
        try:
            # Taken before the read, so that a change during it is noticed next time.
            stamped = file_version(path)
            words = parse(path.read_text(encoding="utf-8-sig"))
        except InvalidInput as exc:
            raise RetrieverUnavailable(f"{path}: {exc}") from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise RetrieverUnavailable(f"{path} can't be read as words in UTF-8: {exc}") from exc
        if not words:
            raise RetrieverUnavailable(f"{path} lists no words")
        prompts = [self.options.template.replace("{}", word.text) for word in words]
        try:
            features = self.source.of_texts((*prompts, *BACKGROUND))
        except InvalidInput as exc:
            raise RetrieverUnavailable(
                f"{self.options.retriever} can't read the words of {path}: {exc}"
            ) from exc
        self._looked = time.monotonic()
        return Words(words, features, stamped)


def parse(text: str) -> tuple[Word, ...]:
    """The words of a list in its order; each word once, ignoring case.

    Raises InvalidInput for a threshold that is no number from 0 to 1, naming its line.
    """
    words: dict[str, Word] = {}
    for number, line in enumerate(text.splitlines(), 1):
        found = LINE.fullmatch(" ".join(line.split()))
        if found is None or not found["word"] or found["word"].startswith("#"):
            continue
        word = Word(found["word"], _threshold(found["threshold"], number))
        words.setdefault(word.text.casefold(), word)
    return tuple(words.values())


def _threshold(given: str | None, line: int) -> float | None:
    if given is None:
        return None
    try:
        threshold = float(given)
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise InvalidInput(f"line {line}: the threshold {given!r} is no number from 0 to 1")
    return threshold


def best_words(
    probabilities: npt.NDArray[np.float64], thresholds: npt.NDArray[np.float64], top: int
) -> list[list[int]]:
    """For each row of probabilities (n, words) the words at or above their thresholds (words,),
    likeliest first, at most `top`."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    kept = probabilities >= thresholds
    return [
        [int(word) for word in row[keep[row]][:top]] for row, keep in zip(order, kept, strict=True)
    ]


def file_version(path: Path) -> tuple[int, int]:
    """Modification time in nanoseconds and size in bytes. Equal values mean that the file is
    unchanged."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size


ANNOTATOR = Vocabulary
