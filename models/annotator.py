"""The annotator contract. An annotator describes a picture in text; each is one file in
`models/annotators/`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from models.method import Method
from models.types import Features, Pixels, TextFeatures


@dataclass(frozen=True, slots=True)
class Annotation:
    """The result of one annotator for one picture."""

    text: str = ""
    """A caption, or the text read in the picture with lines separated by newlines."""
    tags: tuple[str, ...] = ()
    """Tags, best first."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further values as JSON, such as probabilities or the boxes of lines."""

    def row(self) -> dict[str, Any]:
        """The annotation as JSON; empty fields are omitted."""
        shown = {"text": self.text, "tags": list(self.tags), **self.details}
        return {name: value for name, value in shown.items() if value}


class FeatureSource(Protocol):
    """A retriever that makes features for an annotator. Raises RetrieverUnavailable."""

    def of_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Features of texts; of none, what else is known of the feature space."""

    def of_picture(self, pixels: Pixels, fingerprint: str) -> Features:
        """Features of a preview in this feature space."""


class Annotator(Method):
    """Base class of annotators. An annotator makes text and tags from one view of a picture."""

    source: FeatureSource | None = None
    """The retriever named by `asks`; set by who makes the annotator."""

    def asks(self) -> str | None:
        """Name of the retriever that makes features for this annotator, or None."""
        return None

    def reads(self) -> tuple[str, str] | None:
        """Feature space (kind, fingerprint) of the stored features that this annotator reads
        instead of pictures, or None."""
        return None

    def annotate_features(self, rows: Sequence[bytes]) -> list[Annotation]:
        """Annotate several images from their stored features; only for annotators whose `reads` is
        not None."""
        raise NotImplementedError

    @abstractmethod
    def annotate(self, pixels: Pixels) -> Annotation:
        """Annotate one view of a picture."""

    def annotate_many(self, pixels: Sequence[Pixels]) -> list[Annotation]:
        """Annotate several views; neural models annotate them in one pass."""
        return [self.annotate(one) for one in pixels]
