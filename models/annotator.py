"""The annotator contract: text of a picture; one file in `models/annotators/` each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.method import Method
from models.types import Pixels


@dataclass(frozen=True, slots=True)
class Annotation:
    """What an annotator says of one picture."""

    text: str = ""
    """A caption, or the text in the picture, lines separated by newlines."""
    tags: tuple[str, ...] = ()
    """Best first."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More, as JSON: probabilities, boxes of lines."""

    def row(self) -> dict[str, Any]:
        """As JSON shows it: what is empty is left out."""
        shown = {"text": self.text, "tags": list(self.tags), **self.details}
        return {name: value for name, value in shown.items() if value}


class Annotator(Method):
    """Makes text of one view of a picture."""

    def reads(self) -> tuple[str, str] | None:
        """Kind and fingerprint of the stored features that do instead of pictures, or None."""
        return None

    def annotate_features(self, rows: Sequence[bytes]) -> list[Annotation]:
        """The same of several pictures' stored features, where it `reads` such."""
        raise NotImplementedError

    @abstractmethod
    def annotate(self, pixels: Pixels) -> Annotation:
        """What there is to say of one picture's view."""

    def annotate_many(self, pixels: Sequence[Pixels]) -> list[Annotation]:
        """The same for several, in one pass where the method has a batch."""
        return [self.annotate(one) for one in pixels]
