"""The annotator contract: text of a picture; one file in `models/annotators/` each."""

from __future__ import annotations

import importlib
import pkgutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from models.errors import InvalidInput, UnknownName
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


@cache
def annotator_names() -> tuple[str, ...]:
    """The modules in `models/annotators/`, sorted: the folder listing is the registry."""
    import models.annotators

    return tuple(sorted(found.name for found in pkgutil.iter_modules(models.annotators.__path__)))


def make_annotator(name: str, options: Mapping[str, Any] | None = None) -> Annotator:
    """Build the annotator of `models/annotators/{name}.py`, not yet loaded.

    Raises UnknownName, listing the known ones, and InvalidInput, naming a misspelt option.
    """
    if name not in annotator_names():
        raise UnknownName(f"no annotator {name!r}; there are {', '.join(annotator_names())}")
    kind: type[Annotator] = importlib.import_module(f"models.annotators.{name}").ANNOTATOR
    try:
        return kind(kind.Config.model_validate(dict(options or {})))
    except ValueError as exc:
        raise InvalidInput(f"options of annotator {name!r}: {exc}") from exc
