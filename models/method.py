"""The common base of extractors and annotators: options, weights, fingerprint, loading."""

from __future__ import annotations

import hashlib
from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from models.types import Options, View
from models.weights import Weights, locate


class Method(ABC):
    """A method applied to pictures. Construction is cheap and imports nothing heavy."""

    Config: ClassVar[type[Options]] = Options
    view: ClassVar[View]
    """Which view of a Picture the method takes."""
    version: ClassVar[int] = 1
    """Version of the method, part of the fingerprint. Increase it when the method changes, so that
    old results never mix with new ones."""
    batch: int = 1
    """Number of pictures in one pass of a neural model."""
    uses_gpu: ClassVar[bool] = False
    """Whether the method computes on a GPU where there is one."""
    device: str = "cpu"
    """Device on which the method computes; known once it is loaded."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.files: Mapping[str, Path] = {}
        """Paths of the weights by their names in `weights`; set by `find`."""
        self._hashes: list[str] | None = None

    def weights(self) -> Sequence[Weights]:
        """The weights that `load` needs; most methods need none."""
        return ()

    def find(self, fetch: bool = False) -> None:
        """Find the weights on this machine or, with `fetch`, download them.

        Does not import torch. Raises RetrieverUnavailable with the reason when the weights are not
        there or can't be downloaded.
        """
        if self._hashes is not None:
            return
        located = [locate(weights, fetch) for weights in self.weights()]
        self.files = {found.name: found.path for found in located}
        self._hashes = [found.sha256 for found in located]

    def forget(self) -> None:
        """Discard the hashes of the weights; the next `find` locates and hashes them again."""
        self._hashes = None

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify method, version, options and weights.

        Raises RetrieverUnavailable while the weights are not on this machine.
        """
        self.find()
        assert self._hashes is not None
        parts = (
            type(self).__module__,
            str(self.version),
            self.options.model_dump_json(),
            *(self._hashes or [""]),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def load(self) -> None:
        """Find the weights, fetch them if needed, and build the model.

        Call it before any other use of the method. Raises RetrieverUnavailable with the reason.
        """
        self.find(fetch=True)
