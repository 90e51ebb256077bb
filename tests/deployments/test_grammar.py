"""Composed queries: what each part means, and where a query is wrong."""

from __future__ import annotations

import pickle
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.grammar import MARKS, Part, parse
from models.errors import MalformedQuery

SPACES = st.sampled_from([" ", "  ", "\u00a0", "\u3000"])
WORDS = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Z"), exclude_characters='\\"'), min_size=1
).filter(lambda word: word[0] not in MARKS)
TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).filter(
    lambda text: any(letter.isalnum() for letter in text)
)


def said(query: str) -> list[tuple[str, str]]:
    """The parts as kinds, with a sign before those of a minus, and texts."""
    return [(("-" if part.minus else "") + part.kind, part.text) for part in parse(query)]


def written(part: Part) -> str:
    """A part as somebody could have written it."""
    sign = "-" if part.minus else ""
    quoted = part.text.replace("\\", "\\\\").replace('"', '\\"')
    if part.kind == "exact":
        return f'{sign}"{quoted}"'
    if part.kind == "tag":
        return f'{sign}#"{quoted}"'
    if part.kind == "image":
        return f"{sign}~{part.text}"
    escaped = "".join("\\" + letter if letter in MARKS else letter for letter in part.text)
    return sign + escaped


PARTS = st.one_of(
    st.builds(lambda text, minus: Part("exact", text, minus, (0, 0)), TEXTS, st.booleans()),
    st.builds(lambda text, minus: Part("tag", text, minus, (0, 0)), TEXTS, st.booleans()),
    st.builds(
        lambda number, minus: Part("image", str(number), minus, (0, 0)),
        st.integers(0, 2**47 - 1),
        st.booleans(),
    ),
    st.builds(
        lambda text, minus: Part("word", text, minus, (0, 0)),
        st.text(st.characters(exclude_categories=("Cc", "Cs", "Z")), min_size=1),
        st.booleans(),
    ),
)


def test_every_part_of_a_query_is_told_apart() -> None:
    assert said('snowy peak -people ~123 -~124 #beach -#sea "trail closed" -"no entry"') == [
        ("word", "snowy"),
        ("word", "peak"),
        ("-word", "people"),
        ("image", "123"),
        ("-image", "124"),
        ("tag", "beach"),
        ("-tag", "sea"),
        ("exact", "trail closed"),
        ("-exact", "no entry"),
    ]


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("well-known", [("word", "well-known")]),
        ("a - b -- c --d", [("word", one) for one in ("a", "-", "b", "--", "c", "--d")]),
        ("rock~n~roll a#b", [("word", "rock~n~roll"), ("word", "a#b")]),
        ('6" pipe', [("word", '6"'), ("word", "pipe")]),
        (r"\-people \~1 \#x", [("word", "-people"), ("word", "~1"), ("word", "#x")]),
        (r"-\-x", [("-word", "-x")]),
        (r"\"quoted\"", [("word", '"quoted"')]),
        (r"C:\photos \\", [("word", r"C:\photos"), ("word", "\\")]),
        ("~ #", [("word", "~"), ("word", "#")]),
        ('#"two words"', [("tag", "two words")]),
        (r'"a \"b\" \\ c"', [("exact", 'a "b" \\ c')]),
        ('"-not ~1 #marks"', [("exact", "-not ~1 #marks")]),
        ("  \t ", []),
    ],
)
def test_marks_count_at_the_beginning_of_a_part_unless_they_are_escaped(
    query: str, parts: list[tuple[str, str]]
) -> None:
    assert said(query) == parts


@pytest.mark.parametrize(
    ("query", "position", "what"),
    [
        ("peak ~12a", 8, "digits only"),
        ("~people", 1, "digits only"),
        ("~999999999999999", 1, "at most"),
        ("~" + "9" * 500, 1, "at most"),
        ('snow "trail', 5, "does not end"),
        ('#"a', 1, "does not end"),
        ('"a"b', 3, "a space must follow"),
        ('snow "--"', 8, "no word"),
        ('#""', 1, "empty"),
        ("#" + "x" * 201, 1, "at most 200"),
    ],
)
def test_an_error_points_at_the_character(query: str, position: int, what: str) -> None:
    with pytest.raises(MalformedQuery, match=what) as caught:
        parse(query)
    assert caught.value.position == position
    assert f"character {position + 1}:" in caught.value.detail
    assert pickle.loads(pickle.dumps(caught.value)).position == position


@settings(deadline=None)
@given(st.lists(WORDS), st.lists(SPACES, min_size=20, max_size=20))
def test_words_without_marks_are_plain_and_stand_as_they_were_written(
    words: list[str], spaces: list[str]
) -> None:
    query = "".join(word + space for word, space in zip(words, spaces, strict=False))
    parts = parse(query)
    assert [part.text for part in parts] == words[:20]
    assert all(part.is_plain for part in parts)


@settings(deadline=None)
@given(st.lists(PARTS, max_size=8))
def test_what_is_written_with_marks_and_escapes_is_read_back(parts: list[Part]) -> None:
    query = " ".join(written(part) for part in parts)
    found = parse(query)
    assert [(one.kind, one.text, one.minus) for one in found] == [
        (one.kind, one.text, one.minus) for one in parts
    ]
    assert [query[slice(*one.at)] for one in found] == [written(part) for part in parts]


@settings(deadline=None)
@given(st.text(alphabet='-~#"\\ a1\u00e9', max_size=40) | st.text(max_size=40))
def test_any_text_is_read_or_refused_at_one_of_its_characters(query: str) -> None:
    with suppress(MalformedQuery):
        parts = parse(query)
        ends = [0, *(edge for part in parts for edge in part.at), len(query)]
        assert ends == sorted(ends)
        gaps = [query[end:begin] for end, begin in zip(ends[::2], ends[1::2], strict=True)]
        assert not "".join(gaps).strip()


@settings(deadline=None)
@given(st.text(alphabet="-~#\\ a1", max_size=40))
def test_an_error_lies_within_the_query(query: str) -> None:
    wrong = query + ' "'
    with pytest.raises(MalformedQuery) as caught:
        parse(wrong)
    assert 0 <= caught.value.position <= len(wrong)
