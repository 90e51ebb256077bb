from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from anyascii import anyascii
from hypothesis import given, settings
from hypothesis import strategies as st
from jellyfish import metaphone
from rapidfuzz.distance import OSA, Levenshtein

from indexes.base import Hit, Query
from indexes.text import postings as text_postings
from indexes.text.index import TextIndex
from indexes.text.vocabulary import KINDS, Vocabulary, edits_allowed
from models.errors import InvalidInput
from models.types import Features, Options

Annotations = Mapping[str, Mapping[str, Any]]


class Collection:
    """A TextIndex over a dict that stands for the store."""

    def __init__(self, texts: Mapping[int, str | Annotations] | None = None) -> None:
        self.stored: dict[int, Features] = {}
        self.index = TextIndex(Options(), self._rows)
        self.apply(texts or {})

    def apply(self, changes: Mapping[int, str | Annotations | None]) -> None:
        rows = {key: None if said is None else row(said) for key, said in changes.items()}
        for key, features in rows.items():
            self.stored.pop(key, None)
            if features is not None:
                self.stored[key] = features
        self.index.apply(rows)

    def search(
        self, text: str, allowed: Sequence[int] | None = None, k: int | None = 20, **given: Any
    ) -> list[Hit]:
        ids = None if allowed is None else np.array(allowed, np.int64)
        query = Query([np.frombuffer(text.encode(), np.uint8)], ids)
        return self.index.search(query, self.index.Params.parse({"k": k, **given}))

    def found(self, text: str, **given: Any) -> list[int]:
        return [hit.image_id for hit in self.search(text, **given)]

    def how(self, text: str, **given: Any) -> dict[int, list[str]]:
        hits = self.search(text, **given)
        return {hit.image_id: [one["as"] for one in hit.matched or ()] for hit in hits}

    def _rows(self, image_ids: Sequence[int]) -> dict[int, Features]:
        return {key: self.stored[key] for key in image_ids if key in self.stored}


def row(said: str | Annotations) -> Features:
    annotations = {"ocr": {"text": said}} if isinstance(said, str) else said
    return np.frombuffer(json.dumps(annotations).encode(), np.uint8)


def test_the_same_word_is_better_than_part_of_one_than_a_misspelt_one_than_a_sound() -> None:
    kept = Collection({4: "receipt", 3: "receipts", 2: "reciept", 1: "resseeppet", 0: "invoice"})
    assert kept.how("receipt") == {4: ["exact"], 3: ["substring"], 2: ["fuzzy"], 1: ["sound"]}
    first = kept.search("receipt")[0]
    assert (first.score, first.distance) == (1.0, 0.0)


def test_a_hit_says_which_word_matched_and_where() -> None:
    annotations = {
        "caption": {"text": "a dog on a beach"},
        "ocr": {"text": "Ｂeach  Hotel\nOpen"},
        "places365": {"tags": ["outdoor", "sandy beach"]},
    }
    kept = Collection({7: annotations})
    (hit,) = kept.search("Beach HOTELS outdoors")
    assert hit.matched == [
        {"word": "Beach", "as": "exact", "found": "beach", "in": "caption", "at": [11, 16]},
        {"word": "HOTELS", "as": "fuzzy", "found": "Hotel", "in": "ocr", "at": [7, 12]},
        {
            "word": "outdoors",
            "as": "fuzzy",
            "found": "outdoor",
            "in": "places365",
            "at": [0, 7],
            "tag": "outdoor",
        },
    ]
    (only_ocr,) = Collection({1: {"ocr": annotations["ocr"]}}).search("beach")
    assert only_ocr.matched == [
        {"word": "beach", "as": "exact", "found": "Ｂeach", "in": "ocr", "at": [0, 5]}
    ]


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("Straße", "STRASSE"),
        ("ﬁne", "fine"),
        ("CAFE\u0301", "café"),
        ("हिन्दी", "हिन्दी"),
        ("１２３", "123"),
        ("snake_case", "case"),
    ],
)
def test_words_that_differ_in_form_alone_are_the_same(written: str, asked: str) -> None:
    assert Collection({1: f"x, {written}!"}).how(asked, match=["exact"]) == {1: ["exact"]}


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("Москва", "moskva"),
        ("北京", "Beijing"),
        ("φωτογραφία", "fotografia"),
        ("Müller", "Mueller"),
        ("Чайковский", "Chaikovsky"),
        ("photograph", "fotograf"),
        ("東京", "dongjing"),
    ],
)
def test_words_written_differently_meet_by_their_sound(written: str, asked: str) -> None:
    kept = Collection({1: "entirely unrelated", 2: written})
    assert kept.found(asked) == [2]
    assert kept.found(asked, match=["sound"]) == [2]


def test_part_of_a_text_without_spaces_is_found() -> None:
    kept = Collection({1: "我是中国人", 2: "日本語"})
    assert kept.how("中国") == {1: ["substring"]}
    assert kept.how("本") == {2: ["substring"]}


def test_short_words_are_not_sought_inside_others() -> None:
    assert Collection({1: "instant"}).found("an", match=["substring"]) == []


@pytest.mark.parametrize("typo", ["plazza", "paizza", "piaza", "piazzza"])
def test_one_typo_is_forgiven(typo: str) -> None:
    assert Collection({1: "piazza del campo", 2: "torre"}).found(typo) == [1]


def test_images_with_all_words_come_first_and_rare_words_weigh_more() -> None:
    texts = {key: f"total {key + 100}" for key in range(20)}
    kept = Collection({**texts, 30: "zanzibar", 31: "total zanzibar"})
    assert kept.found("total zanzibar", k=3) == [31, 30, 0]
    assert kept.search("total zanzibar")[0].score == 1


def test_only_the_kinds_asked_for_match() -> None:
    kept = Collection({4: "receipt", 3: "receipts", 2: "reciept", 1: "resseeppet"})
    assert kept.found("receipt", match=["exact"]) == [4]
    assert kept.found("receipt", match=["substring"]) == [4, 3]
    assert 3 not in kept.found("receipt", match=["exact", "sound"])


def test_limits_cut_the_list_and_ties_go_by_image_id() -> None:
    kept = Collection(dict.fromkeys([5, 3, 2**47 - 1, 0, 9], "same words") | {1: "some words"})
    assert kept.found("same words", k=3) == [0, 3, 5]
    assert kept.found("same words", k=2, offset=3) == [9, 2**47 - 1]
    assert kept.found("same words", k=None, distance_threshold=0.01) == [0, 3, 5, 9, 2**47 - 1]
    assert kept.found("same words", allowed=[1, 3, 4, 9]) == [3, 9, 1]
    assert kept.found("same words", allowed=[]) == []


def test_a_query_without_a_word_or_of_unknown_words_finds_nothing() -> None:
    kept = Collection({1: "words"})
    assert kept.found("?! — …") == []
    assert kept.found("xylophone") == []
    assert Collection().found("words") == []


def test_an_image_without_a_word_is_indexed_and_not_found() -> None:
    kept = Collection({1: {}, 2: {"ocr": {}}, 3: "here"})
    assert len(kept.index) == 3
    assert kept.found("here") == [3]


def test_a_stored_row_looks_for_texts_with_its_words() -> None:
    kept = Collection({1: "lines of a text", 2: "ocr text box", 3: "a poem of three lines"})
    (features,) = (kept.stored[1],)
    hits = kept.index.search(Query([features]), kept.index.Params.parse({"k": 3}))
    assert [hit.image_id for hit in hits] == [1, 3, 2]
    assert {one["word"] for one in hits[2].matched or ()} == {"text"}


def test_words_beyond_the_limit_are_passed_over() -> None:
    kept = Collection({1: "w0", 2: "w32"})
    assert kept.found(" ".join(f"w{number}" for number in range(33)), match=["exact"]) == [1]


def test_a_replaced_and_a_removed_text_are_found_no_more() -> None:
    kept = Collection({1: "first words", 2: "second words"})
    kept.apply({1: "third", 2: None, 99: None})
    assert kept.found("words") == []
    kept.apply({2: "back again"})
    assert kept.found("again third", match=["exact"]) == [1, 2] or len(kept.index) == 2
    assert kept.found("back") == [2]


def test_a_hit_whose_row_has_gone_is_shown_without_places() -> None:
    kept = Collection({1: "words"})
    kept.stored.clear()
    assert kept.search("words") == [Hit(1, distance=0.0, score=1.0)]


@pytest.mark.parametrize("bad", [b"no json", b"[1]", b'{"ocr":"text"}'])
def test_a_row_that_is_no_annotations_is_refused_and_nothing_applied(bad: bytes) -> None:
    kept = Collection({9: "words"})
    with pytest.raises(InvalidInput, match="JSON object"):
        kept.index.apply({1: row("words"), 2: np.frombuffer(bad, np.uint8)})
    assert kept.found("words") == [9]


@pytest.mark.parametrize("match", [[], ["exactly"], "exact"])
def test_unknown_ways_to_match_are_refused_by_name(match: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        Collection({1: "a"}).search("a", match=match)
    assert str(refused.value.field).startswith("match")


def test_words_in_no_text_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_postings, "SMALLEST_TAIL", 100)
    kept = Collection()
    for turn in range(60):
        kept.apply({key: f"word{turn}x{key} common" for key in range(20)})
    assert len(kept.index) == 20
    assert len(kept.index._vocabulary) < 400
    assert kept.found("word59x7") == [7, *[key for key in kept.found("word59x7") if key != 7]]
    assert kept.found("word58x7", match=["exact"]) == []


# --- comparison with the documented formula ------------------------------------------------------

WORDS = ["total", "totals", "tonal", "cafe", "café", "kafe", "москва", "moskva", "ab", "subtotal"]
WORDS += ["中国人", "中国", "photo", "foto", "fotos", "2018"]


def quality(asked: str, word: str) -> float:
    """Compute the documented formula independently of the index."""
    longer = max(len(asked), len(word))
    if asked == word:
        return 1.0
    if asked in word and (len(asked) >= 3 or asked == "中国"):
        return 0.7 + 0.2 * len(asked) / len(word)
    gap = OSA.distance(asked, word)
    if gap <= edits_allowed(asked):
        return 0.4 + 0.3 * (1 - gap / longer)
    latin = [anyascii(one).lower() for one in (asked, word)]
    codes = [metaphone(one) for one in latin]
    if codes[0] == codes[1] and len(codes[0]) >= 2 and all(one.isalpha() for one in latin):
        return 0.3 + 0.3 * Levenshtein.normalized_similarity(*latin)
    return 0.0


def by_definition(texts: Mapping[int, list[str]], asked: Sequence[str]) -> dict[int, float]:
    asked = list(dict.fromkeys(asked))
    sums, matched, weights = dict.fromkeys(texts, 0.0), dict.fromkeys(texts, 0), 0.0
    for one in asked:
        best = {key: max((quality(one, w) for w in said), default=0) for key, said in texts.items()}
        top = max(best.values(), default=0)
        having = sum(value == top > 0 for value in best.values())
        weight = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        weights += weight
        for key, value in best.items():
            sums[key] += weight * value
            matched[key] += value > 0
    return {
        key: sums[key] / weights * (1 + matched[key] / len(asked)) / 2
        for key in texts
        if matched[key]
    }


said = st.lists(st.sampled_from(WORDS), max_size=5)
steps = st.lists(
    st.dictionaries(st.integers(0, 12), st.none() | said, min_size=1, max_size=8),
    min_size=1,
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(steps, st.lists(st.sampled_from([*WORDS, "ttoal"]), min_size=1, max_size=3), st.data())
def test_any_changes_leave_it_equal_to_the_definition(
    changes: list[dict[int, list[str] | None]], asked: list[str], data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_postings, "SMALLEST_TAIL", data.draw(st.sampled_from([1, 8, 1000])))
        kept, texts = Collection(), dict[int, list[str]]()
        for step in changes:
            kept.apply({k: None if said is None else " ".join(said) for k, said in step.items()})
            for key, words in step.items():
                texts.pop(key, None)
                if words is not None:
                    texts[key] = words
        assert len(kept.index) == len(texts)
        hits = kept.search(" ".join(asked), k=100)
    expected = by_definition(texts, asked)
    scores = {hit.image_id: hit.score for hit in hits}
    assert scores == pytest.approx(expected, abs=3e-6)
    assert hits == sorted(hits, key=lambda hit: (hit.distance, hit.image_id))
    assert all(hit.matched for hit in hits)
    fresh = Collection({key: " ".join(words) for key, words in texts.items()})
    assert fresh.search(" ".join(asked), k=100) == hits
    assert fresh.search(" ".join(asked), k=3) == hits[:3]


letters = st.text("abcdeé", min_size=3, max_size=9)


@settings(max_examples=100, deadline=None)
@given(st.lists(letters, unique=True, min_size=1, max_size=30), letters)
def test_no_word_within_the_edits_allowed_is_missed(words: list[str], asked: str) -> None:
    vocabulary = Vocabulary()
    vocabulary.numbers(words)
    found = {words[number] for number in vocabulary.match(asked, ["fuzzy"]).words}
    assert found == {one for one in words if OSA.distance(one, asked) <= edits_allowed(asked)}


def test_no_query_waits_for_a_compiler() -> None:
    from indexes.text import kernels

    kept = Collection({1: "warm words", 2: "wärme"})
    compiled = [
        kernel
        for kernel in vars(kernels).values()
        if hasattr(kernel, "signatures") and kernel.__module__ == kernels.__name__
    ]
    before = [len(kernel.signatures) for kernel in compiled]
    for _ in range(2):
        kept.search("worm wod")
        kept.index._merge()
    kept.apply({3: "new", 1: None})
    kept.search("new warm")
    kept.index._merge()
    assert [len(kernel.signatures) for kernel in compiled] == before == [1] * len(compiled)


def test_every_kind_is_named() -> None:
    assert KINDS == ("exact", "substring", "fuzzy", "sound")
