"""Vocabulary: which of the owner's words describe an image, computed from stored features."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.annotators.vocabulary import Vectors, Vocabulary, VocabularyOptions, parse, rank_words
from models.errors import InvalidInput, RetrieverUnavailable
from models.registry import make_annotator
from tests.models.extractors.test_clip import loaded, tiny  # noqa: F401

DIM = 1024


def text_vectors(texts: Sequence[str]) -> Vectors:
    """Return unit vectors (n, DIM) of a space in which each text has a direction of its own."""
    rows = [np.random.default_rng([*text.encode()]).standard_normal(DIM) for text in texts]
    vectors = np.asarray(rows, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def picture_of(*words: str) -> Vectors:
    """Return the features (1, DIM) of a picture that shows all of these words."""
    vector = text_vectors([f"a photo of a {word}" for word in words]).sum(axis=0, keepdims=True)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def vocabulary(path: Path, **options: object) -> Vocabulary:
    """Return an annotator over the space of `text_vectors` instead of a model's."""
    folder = path.parent / "model"
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text("{}")
    (folder / "open_clip_model.safetensors").write_bytes(b"")
    clip = {"model": str(folder)}
    made = make_annotator("vocabulary", {"words": str(path), "clip": clip, **options})
    assert isinstance(made, Vocabulary)
    made.use(text_vectors)
    return made


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("# pets\ncat\ndog\n\n  red   balloon \nDOG\nC#\n")
    return path


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))


def test_a_list_has_one_word_or_phrase_per_line_without_comments_and_repeats(words: Path) -> None:
    assert parse(words.read_text()) == ("cat", "dog", "red balloon", "C#")


def test_pictures_are_tagged_with_the_words_they_are_near(words: Path) -> None:
    pictures = np.concatenate([picture_of("dog"), picture_of("red balloon")])
    said = vocabulary(words).tags_of(pictures)
    assert [one.tags for one in said] == [("dog",), ("red balloon",)]


def test_a_picture_of_two_words_has_both_tags(words: Path) -> None:
    said = vocabulary(words, min_probability=0.01).tags_of(picture_of("cat", "dog"))
    assert set(said[0].tags) == {"cat", "dog"}


def test_a_picture_of_something_else_has_no_tags(words: Path) -> None:
    cosines = picture_of("volcano") @ text_vectors(["a photo of a cat"]).T
    assert vocabulary(words, min_cosine=0.5).tags_of(picture_of("volcano"))[0].tags == ()
    assert cosines.max() < 0.5


def test_pictures_at_once_are_tagged_as_one_by_one(words: Path) -> None:
    tagger = vocabulary(words, min_cosine=-1, min_probability=0)
    pictures = text_vectors([str(number) for number in range(20)])
    assert tagger.tags_of(pictures) == [
        tagger.tags_of(pictures[at : at + 1])[0] for at in range(20)
    ]
    assert tagger.tags_of(pictures[:0]) == []


def test_probabilities_are_the_softmax_of_scaled_cosines_over_all_words() -> None:
    cosines = np.array([[0.30, 0.28, 0.10], [0.1, 0.25, 0.31]], np.float32)
    options = VocabularyOptions(min_cosine=-1, min_probability=0, logit_scale=50)
    for row, expected in zip(
        rank_words(cosines, options), np.exp(50 * cosines.astype(float)), strict=True
    ):
        chances = expected / expected.sum()
        assert [at for at, _ in row] == np.argsort(-chances).tolist()
        assert [p for _, p in row] == pytest.approx(sorted(chances, reverse=True), abs=1e-5)


def test_top_cosine_and_probability_each_bound_the_tags() -> None:
    cosines = np.array([[0.31, 0.30, 0.29, 0.19]], np.float32)

    def chosen(**options: float) -> list[int]:
        everything = {"min_cosine": -1, "min_probability": 0, "top": 9}
        made = VocabularyOptions.model_validate({**everything, **options})
        return [at for at, _ in rank_words(cosines, made)[0]]

    assert chosen() == [0, 1, 2, 3]
    assert chosen(top=2) == [0, 1]
    assert chosen(min_cosine=0.2) == [0, 1, 2]
    assert chosen(min_probability=0.3) == [0]


def test_the_template_is_what_is_asked(words: Path) -> None:
    asked: list[str] = []

    def remember(texts: Sequence[str]) -> Vectors:
        asked.extend(texts)
        return text_vectors(texts)

    vocabulary(words, template="a scan of {}, old").use(remember)
    assert asked[:2] == ["a scan of cat, old", "a scan of dog, old"]


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{0}"])
def test_a_template_without_one_place_for_the_word_is_refused(template: str) -> None:
    with pytest.raises(InvalidInput, match="template"):
        make_annotator("vocabulary", {"template": template})


def test_a_changed_list_is_read_anew_and_has_another_fingerprint(words: Path) -> None:
    tagger = vocabulary(words)
    before = tagger.fingerprint
    assert tagger.tags_of(picture_of("volcano"))[0].tags == ()
    rewrite(words, "cat\nvolcano\n")
    assert tagger.tags_of(picture_of("volcano"))[0].tags == ("volcano",)
    assert tagger.tags_of(picture_of("dog"))[0].tags == ()
    assert tagger.fingerprint != before


def test_an_unchanged_list_is_read_once(words: Path) -> None:
    calls: list[int] = []

    def count(texts: Sequence[str]) -> Vectors:
        calls.append(len(texts))
        return text_vectors(texts)

    tagger = vocabulary(words)
    tagger.use(count)
    tagger.tags_of(picture_of("dog"))
    tagger.tags_of(picture_of("cat"))
    assert calls == [4]


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
        assert tagger.tags_of(picture_of("dog"))[0].tags == ("dog",)
    assert "stays in use" in caplog.text


def test_without_a_list_the_annotator_is_unavailable_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(RetrieverUnavailable, match="words"):
        make_annotator("vocabulary").load()
    with pytest.raises(RetrieverUnavailable, match="no file"):
        make_annotator("vocabulary", {"words": str(tmp_path / "none.txt")}).load()
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Käse\n".encode("latin-1"))
    with pytest.raises(RetrieverUnavailable, match="UTF-8"):
        vocabulary(latin)


def test_pixels_and_stored_features_of_a_picture_get_the_same_tags(
    words: Path,
    tiny: Path,  # noqa: F811
) -> None:
    options = {"words": str(words), "clip": {"model": str(tiny)}, "min_cosine": -1}
    tagger, clip = make_annotator("vocabulary", options), loaded(tiny)
    tagger.load()
    pixels = np.random.default_rng(1).integers(0, 256, (48, 70, 3), np.uint8)
    said = tagger.annotate(pixels)
    assert set(said.tags) <= {"cat", "dog", "red balloon", "C#"}
    assert said.tags
    row = clip.to_row(clip.extract(pixels))
    assert [one.tags for one in tagger.annotate_features([row, row])] == [said.tags, said.tags]
    assert tagger.reads() == ("image_text", clip.fingerprint)
