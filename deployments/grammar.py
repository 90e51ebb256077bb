"""The grammar of composed queries, such as `snowy peak -people ~123 #beach "trail closed"`.

    query  = parts separated by spaces
    part   = [ "-" ] ( word | image | tag | exact )
    image  = "~" digits                       like this stored image
    tag    = "#" ( word | quoted )            only images with this tag
    exact  = quoted                           only images in which this text stands
    quoted = '"' any text '"'                 \\" and \\\\ stand for the character itself

A mark counts at the beginning of a part only: `well-known` is one word. A backslash before a mark
makes it a plain character. A part of dashes alone, or that begins with two, is a word, and so is a
lone `~` or `#`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.errors import MalformedQuery
from models.types import MAX_IMAGE_ID

MARKS = '-~#"\\'
FIELD = "composed"
MAX_TAG = 200

Kind = Literal["word", "image", "tag", "exact"]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a query."""

    kind: Kind
    text: str
    """The word, tag or text, without marks and escapes; of an image the digits of its id."""
    minus: bool
    at: tuple[int, int]
    """Where it begins and ends in the query, in characters."""
    escaped: bool = False
    """Whether a backslash made a mark plain."""

    @property
    def is_plain(self) -> bool:
        """Whether it is a word as it stands in the query."""
        return self.kind == "word" and not self.minus and not self.escaped


def parse(query: str) -> list[Part]:
    """The parts in order; none of a blank query. Raises MalformedQuery."""
    parts = []
    reader = _Reader(query)
    while reader.skip_space():
        parts.append(reader.part())
    return parts


class _Reader:
    """Reads a query from its beginning to its end."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._at = 0

    def skip_space(self) -> bool:
        """Go to the next part. Returns whether there is one."""
        while self._at < len(self._query) and self._query[self._at].isspace():
            self._at += 1
        return self._at < len(self._query)

    def part(self) -> Part:
        begin = self._at
        minus = self._next("-") and not self._ends(1) and not self._next("-", 1)
        self._at += minus
        if self._next('"'):
            text = self._quoted()
            if not any(letter.isalnum() for letter in text):
                raise error("there is no word between these quotes", self._at - 1)
            return Part("exact", text, minus, (begin, self._at))
        if self._next("~") and not self._ends(1):
            return Part("image", self._image_id(), minus, (begin, self._at))
        if self._next("#") and not self._ends(1):
            return Part("tag", self._tag(), minus, (begin, self._at))
        text, escaped = self._word()
        return Part("word", text, minus, (begin, self._at), escaped)

    def _image_id(self) -> str:
        self._at += 1
        begin = self._at
        while not self._ends(0):
            if self._query[self._at] not in "0123456789":
                raise error("the id of an image has digits only, as in ~123", self._at)
            self._at += 1
        digits = self._query[begin : self._at]
        if len(digits) > len(str(MAX_IMAGE_ID)) or int(digits) > MAX_IMAGE_ID:
            raise error(f"the id of an image is at most {MAX_IMAGE_ID}", begin)
        return digits

    def _tag(self) -> str:
        self._at += 1
        begin = self._at
        tag = self._quoted() if self._next('"') else self._word()[0]
        if not tag.strip():
            raise error("this tag is empty", begin)
        if len(tag) > MAX_TAG:
            raise error(f"a tag has at most {MAX_TAG} characters", begin)
        return tag

    def _quoted(self) -> str:
        """The text of a quoted part, which begins here."""
        begin = self._at
        self._at += 1
        text = ""
        while not self._next('"'):
            if self._at >= len(self._query):
                raise error("this quote does not end", begin)
            if self._next("\\") and self._query[self._at + 1 : self._at + 2] in ('"', "\\"):
                self._at += 1
            text += self._query[self._at]
            self._at += 1
        self._at += 1
        if not self._ends(0):
            raise error("a space must follow the end of a quote", self._at)
        return text

    def _word(self) -> tuple[str, bool]:
        """A word up to the next space, and whether a mark in it was escaped."""
        text, escaped = "", False
        while not self._ends(0):
            following = self._query[self._at + 1 : self._at + 2]
            if self._next("\\") and following and following in MARKS:
                self._at, escaped = self._at + 1, True
            text += self._query[self._at]
            self._at += 1
        return text, escaped

    def _next(self, mark: str, ahead: int = 0) -> bool:
        return self._query.startswith(mark, self._at + ahead)

    def _ends(self, ahead: int) -> bool:
        """Whether a space or the end of the query comes there."""
        at = self._at + ahead
        return at >= len(self._query) or self._query[at].isspace()


def error(what: str, position: int) -> MalformedQuery:
    """The error of a character of a composed query."""
    return MalformedQuery(f"character {position + 1}: {what}", FIELD, position)
