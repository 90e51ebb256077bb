"""What a word is, how it sounds, and where words occur in annotations. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import orjson
from anyascii import anyascii
from jellyfish import metaphone

from models.errors import InvalidInput
from models.types import Features

_MARKS = "".join(
    char for char in map(chr, range(0x300, 0x1F000)) if unicodedata.category(char)[0] == "M"
)
_WORD = re.compile(rf"[^\W_]+(?:[{_MARKS}]+[^\W_]*)*")
"""Letters and digits of any script, with the vowel signs and accents that \\w omits."""

CODE_LETTERS = 12
"""Length of a phonetic code; further letters are ignored."""
LEAST_CODE = 2
"""Minimum length of a phonetic code; too many words share shorter ones."""


class Word(NamedTuple):
    """A normalised word, and its position in the text as written."""

    folded: str
    start: int
    end: int


class Passage(NamedTuple):
    """A text, or one tag, of an annotation."""

    source: str
    """The annotator."""
    text: str
    is_tag: bool


def words_of(text: str) -> Iterator[Word]:
    """Words in order: NFKC and case-folded (Unicode, UAX #15 and section 3.13).

    Each word is folded by itself, so that its position in the text stays known.
    """
    for match in _WORD.finditer(text):
        written = match[0]
        if written.isascii():
            yield Word(written.lower(), match.start(), match.end())
            continue
        # Folding may split a word: `¾` becomes 3⁄4.
        for folded in _WORD.findall(_folded(written)):
            yield Word(folded, match.start(), match.end())


def passages_of(row: Features) -> Iterator[Passage]:
    """Texts and tags of a stored row, in the row's order of annotators; see `indexes.store.base`.

    Raises InvalidInput for a row that is no JSON object of objects.
    """
    try:
        annotations = orjson.loads(row.tobytes())
        for source, annotation in annotations.items():
            if annotation.get("text"):
                yield Passage(source, str(annotation["text"]), False)
            for tag in annotation.get("tags") or ():
                yield Passage(source, str(tag), True)
    except (ValueError, AttributeError, TypeError) as exc:
        raise InvalidInput(f"annotations are a JSON object of objects: {exc}") from exc


def in_latin(word: str) -> str:
    """A word of any script in the 26 letters (anyascii), without digits and marks."""
    latin = word if word.isascii() else anyascii(word).lower()
    return latin if latin.isalpha() else "".join(filter(str.isalpha, latin))


def sound_of(word: str) -> int:
    """How a word sounds, as a number below 2^60; 0 for words that are too short.

    The Metaphone code (Philips, 1990) of the word in Latin letters, with all initial vowels alike.
    """
    code = metaphone(in_latin(word)).replace(" ", "")[:CODE_LETTERS]
    if len(code) < LEAST_CODE:
        return 0
    if code[0] in "EIOU":
        code = "A" + code[1:]
    packed = 0
    for letter in code:
        packed = packed << 5 | (27 if letter == "0" else ord(letter) - ord("A") + 1)
    return packed


def signature_of(word: str) -> int:
    """A set of 64 bits; several characters may share a bit. One edit changes at most two bits."""
    signature = 0
    for char in word:
        signature |= 1 << (ord(char) & 63)
    return signature


def without_case(word: str) -> bool:
    """Whether the word's script has no case; many such scripts write no spaces between words."""
    return all(unicodedata.category(char) == "Lo" for char in word)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
