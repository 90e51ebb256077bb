"""Vocabulary: which words describe an image, computed from stored features."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models.annotators.vocabulary import (
    BACKGROUND,
    EVERYDAY,
    LOOK_SECONDS,
    Vectors,
    Vocabulary,
    Word,
    Words,
    best_words,
    parse,
)
from models.errors import InvalidInput, RetrieverUnavailable
from models.extractors.clip import Clip
from models.registry import make_annotator
from models.types import Features, Pixels, TextFeatures
from tests.models.extractors.open_clip_checkpoints import PE_CORE, SIGLIP2, write_checkpoint
from tests.models.extractors.test_clip import loaded

DIM = 1024


class Space:
    """A space of features in which each text has a direction of its own."""

    def __init__(self, fingerprint: str = "f", scale: float = 100, bias: float | None = None):
        self.known = TextFeatures(fingerprint, np.empty((0, DIM), np.float32), scale, bias)
        self.asked: list[Sequence[str]] = []
        self.broken = False

    def of_texts(self, texts: Sequence[str]) -> TextFeatures:
        self.asked.append(texts)
        if self.broken:
            raise RetrieverUnavailable("image_text: loading")
        return replace(self.known, vectors=text_vectors(texts)) if texts else self.known

    def of_picture(self, pixels: Pixels, fingerprint: str) -> Features:
        raise NotImplementedError


class Loaded:
    """The source that a loaded extractor is."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def of_texts(self, texts: Sequence[str]) -> TextFeatures:
        return self.clip.text_features(texts)

    def of_picture(self, pixels: Pixels, fingerprint: str) -> Features:
        assert fingerprint == self.clip.fingerprint
        return self.clip.extract(pixels)


def text_vectors(texts: Sequence[str]) -> Vectors:
    """Return unit vectors (n, DIM) of a space in which each text has a direction of its own."""
    rows = [np.random.default_rng([*text.encode()]).standard_normal(DIM) for text in texts]
    vectors = np.asarray(rows, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def picture_of(*words: str) -> Vectors:
    """Return the features (1, DIM) of a picture that shows all of these words, and that the
    background fits a little, as it fits any picture."""
    shown = text_vectors([f"a photo of a {word}" for word in words]).sum(axis=0, keepdims=True)
    vector = shown + 0.2 * text_vectors(BACKGROUND).sum(axis=0)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def vocabulary(path: Path, source: Space | None = None, **options: object) -> Vocabulary:
    """Return a loaded annotator over the space of `text_vectors` instead of a model's."""
    made = make_annotator("vocabulary", {"words": str(path), **options})
    assert isinstance(made, Vocabulary)
    made.source = source or Space()
    made.load()
    return made


def tags(tagger: Vocabulary, picture: Vectors) -> tuple[str, ...]:
    """Return the tags of one picture, as completion asks for them."""
    tagger.reads()
    return tagger.annotate_features([picture[0].tobytes()])[0].tags


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("# pets\ncat\ndog\n\n  red   balloon | 0.3\nDOG\nC#\n")
    return path


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))


def test_a_list_has_one_word_or_phrase_per_line_without_comments_and_repeats(words: Path) -> None:
    listed = parse(words.read_text())
    assert listed == (Word("cat"), Word("dog"), Word("red balloon", 0.3), Word("C#"))


@pytest.mark.parametrize("threshold", ["", "often", "1.5", "-0.1", "nan"])
def test_a_threshold_that_is_none_is_refused_naming_its_line(words: Path, threshold: str) -> None:
    words.write_text(f"cat\ndog | {threshold}\n")
    with pytest.raises(RetrieverUnavailable, match=r"words\.txt: line 2: the threshold"):
        vocabulary(words)


def test_the_shipped_list_has_each_word_once_and_no_thresholds() -> None:
    path = Path(__file__).parents[3] / "models" / "annotators" / "everyday.txt"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert parse(path.read_text()) == tuple(Word(line) for line in lines)
    assert len(lines) > 200
    made = make_annotator("vocabulary", {"words": EVERYDAY})
    made.source = space = Space()
    made.load()
    assert made.files["words"] == path
    assert space.asked == [(*(f"a photo of a {line}" for line in lines), *BACKGROUND)]


def test_pictures_are_tagged_with_the_words_they_are_near(words: Path) -> None:
    pictures = np.concatenate([picture_of("dog"), picture_of("red balloon")])
    said = vocabulary(words).tags_of(pictures)
    assert [one.tags for one in said] == [("dog",), ("red balloon",)]


def test_a_picture_of_two_words_has_both_tags(words: Path) -> None:
    assert set(tags(vocabulary(words), picture_of("cat", "dog"))) == {"cat", "dog"}


@pytest.mark.parametrize("bias", [None, -10.0])
def test_a_picture_of_something_else_has_no_tags(words: Path, bias: float | None) -> None:
    tagger = vocabulary(words, Space(scale=50, bias=bias))
    assert tags(tagger, picture_of("volcano")) == ()
    assert tags(tagger, picture_of("cat")) == ("cat",)


def test_pictures_at_once_are_tagged_as_one_by_one(words: Path) -> None:
    tagger = vocabulary(words, min_probability=0)
    pictures = text_vectors([str(number) for number in range(20)])
    assert tagger.tags_of(pictures) == [
        tagger.tags_of(pictures[at : at + 1])[0] for at in range(20)
    ]
    assert tagger.tags_of(pictures[:0]) == []


def listed(cosines: npt.NDArray[np.float32], count: int, scale: float, bias: float | None) -> Words:
    """Return `count` words and a background with these cosines (texts,) to the vector e₀."""
    vectors = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
    names = tuple(Word(str(number)) for number in range(count))
    return Words(names, TextFeatures("f", vectors, scale, bias), (0, 0))


PICTURE = np.array([[1, 0]], np.float32)


def test_with_a_bias_a_probability_is_the_sigmoid_of_the_scaled_cosine() -> None:
    cosines = np.array([0.2, 0.12, -0.3, 0.9], np.float32)
    found = listed(cosines, 3, 112.7, -16.5).probabilities(PICTURE)
    expected = 1 / (1 + np.exp(-(112.7 * cosines[:3].astype(float) - 16.5)))
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_without_a_bias_it_is_the_softmax_of_the_word_against_the_background() -> None:
    cosines = np.array([0.3, 0.2, 0.25, 0.21, 0.22, 0.1], np.float32)
    found = listed(cosines, 2, 100.0, None).probabilities(PICTURE)
    powers = np.exp(100 * cosines.astype(float))
    expected = [powers[at] / (powers[at] + powers[2:].sum()) for at in (0, 1)]
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_a_words_probability_does_not_depend_on_the_other_words(words: Path) -> None:
    def of_cat(text: str) -> float:
        rewrite(words, text)
        row = vocabulary(words, min_probability=0, top=9).tags_of(picture_of("cat", "dog"))[0]
        return float(row.details["probabilities"]["cat"])

    assert of_cat("cat\n") == of_cat("cat\nkitten\nfeline\ncats\n") > 0.5


def test_top_and_probability_each_bound_the_tags_and_a_word_may_have_its_own_bound() -> None:
    probabilities = np.array([[0.5, 0.9, 0.2, 0.1]])
    alike = np.full(4, 0.15)
    assert best_words(probabilities, alike, 9) == [[1, 0, 2]]
    assert best_words(probabilities, alike, 2) == [[1, 0]]
    assert best_words(probabilities, np.array([0.6, 0.15, 0.15, 0.05]), 9) == [[1, 2, 3]]


def test_the_lists_own_threshold_has_precedence_over_the_option(words: Path) -> None:
    words.write_text("cat | 1\ndog | 0\nfox\n")
    tagger = vocabulary(words, Space(scale=20), min_probability=0.5)
    assert tags(tagger, picture_of("cat", "fox")) == ("fox", "dog")


@pytest.mark.parametrize(("bias", "default"), [(None, 0.5), (-10.0, 0.1)])
def test_the_default_threshold_is_that_of_the_models_training(
    words: Path, bias: float | None, default: float
) -> None:
    words.write_text("cat\n")
    space = Space(bias=bias)
    chosen = vocabulary(words, space)._words.thresholds(None)
    assert chosen.tolist() == [default]
    assert vocabulary(words, space)._words.thresholds(0.7).tolist() == [0.7]


def test_the_template_is_what_is_asked(words: Path) -> None:
    space = Space()
    vocabulary(words, space, template="a scan of {}, old")
    assert space.asked[0][:2] == ("a scan of cat, old", "a scan of dog, old")


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{0}"])
def test_a_template_without_one_place_for_the_word_is_refused(template: str) -> None:
    with pytest.raises(InvalidInput, match="template"):
        make_annotator("vocabulary", {"template": template})


def test_a_changed_list_is_read_anew_and_has_another_fingerprint(words: Path) -> None:
    tagger = vocabulary(words)
    before = tagger.fingerprint
    assert tags(tagger, picture_of("volcano")) == ()
    rewrite(words, "cat\nvolcano\n")
    assert tags(tagger, picture_of("volcano")) == ("volcano",)
    assert tags(tagger, picture_of("dog")) == ()
    assert tagger.fingerprint != before


def test_an_unchanged_list_is_asked_for_once(words: Path) -> None:
    space = Space()
    tagger = vocabulary(words, space)
    tags(tagger, picture_of("dog"))
    tags(tagger, picture_of("cat"))
    assert len(space.asked) == 1


def test_another_model_of_the_retriever_is_followed(words: Path) -> None:
    space = Space("old")
    tagger = vocabulary(words, space)
    before = tagger.fingerprint
    space.known = Space("new", 112, -16).known
    assert tagger.reads() == ("image_text", "old")
    tagger._looked -= LOOK_SECONDS
    assert tagger.reads() == ("image_text", "new")
    assert tagger.fingerprint != before
    assert tags(tagger, picture_of("dog")) == ("dog",)


def test_a_retriever_that_stops_answering_leaves_its_features_in_force(
    words: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = Space()
    tagger = vocabulary(words, space)
    before = tagger.fingerprint
    space.broken = True
    tagger._looked -= LOOK_SECONDS
    with caplog.at_level(logging.WARNING):
        assert tags(tagger, picture_of("dog")) == ("dog",)
    assert "image_text: loading" in caplog.text
    assert tagger.fingerprint == before


def test_a_retriever_that_does_not_answer_yet_is_asked_again(words: Path) -> None:
    made = make_annotator("vocabulary", {"words": str(words)})
    made.source = space = Space()
    space.broken = True
    for _ in range(2):
        with pytest.raises(RetrieverUnavailable, match="image_text: loading"):
            made.find(fetch=True)
    space.broken = False
    made.load()
    assert made.fingerprint


@pytest.mark.parametrize("broken", ["", "# nothing yet\n", None])
def test_a_list_that_breaks_leaves_the_last_one_in_force(
    words: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    tagger = vocabulary(words)
    if broken is None:
        words.unlink()
    else:
        rewrite(words, broken)
    with caplog.at_level(logging.WARNING):
        assert tags(tagger, picture_of("dog")) == ("dog",)
    assert "stays in use" in caplog.text


def test_without_a_list_the_annotator_is_unavailable_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(RetrieverUnavailable, match=r"write `everyday`.* its file in `words`"):
        make_annotator("vocabulary").load()
    with pytest.raises(RetrieverUnavailable, match="no file"):
        make_annotator("vocabulary", {"words": str(tmp_path / "none.txt")}).load()
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Käse\n".encode("latin-1"))
    with pytest.raises(RetrieverUnavailable, match="UTF-8"):
        vocabulary(latin)
    latin.write_text("x" * 1001)
    made = make_annotator("vocabulary", {"words": str(latin)})
    with pytest.raises(RetrieverUnavailable, match="image_text can't be asked"):
        made.load()


@pytest.mark.parametrize(("name", "scale", "bias"), [(SIGLIP2, 112.7, -16.5), (PE_CORE, 99, None)])
def test_pixels_and_stored_features_of_a_picture_get_the_same_tags(
    words: Path, tmp_path: Path, name: str, scale: float, bias: float | None
) -> None:
    write_checkpoint(tmp_path / "model", name, scale, bias)
    clip = loaded(tmp_path / "model")
    tagger = make_annotator("vocabulary", {"words": str(words), "min_probability": 0})
    tagger.source = Loaded(clip)
    tagger.load()
    pixels = np.random.default_rng(1).integers(0, 256, (48, 70, 3), np.uint8)
    said = tagger.annotate(pixels)
    assert set(said.tags) <= {"cat", "dog", "red balloon", "C#"}
    assert {"cat", "dog", "C#"} <= set(said.tags)
    row = clip.to_row(clip.extract(pixels))
    assert [one.tags for one in tagger.annotate_features([row, row])] == [said.tags, said.tags]
    assert tagger.reads() == ("image_text", clip.fingerprint)
    if bias is not None:
        cosine = clip.extract(pixels) @ clip.extract_text("a photo of a cat")
        expected = 1 / (1 + np.exp(-(scale * float(cosine) + bias)))
        assert said.details["probabilities"]["cat"] == pytest.approx(expected, abs=2e-3)
