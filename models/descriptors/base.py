"""The descriptor contract: where a grey picture's keypoints are, and what they look like."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from models.descriptors.keypoints import Floats, Keypoints, Rows
from models.errors import RetrieverUnavailable
from models.types import Pixels
from models.weights import Weights

WIDTH = 128
Quantised = npt.NDArray[np.uint8] | npt.NDArray[np.int8]
"""(n, 128) descriptors, each some multiple of a unit vector: their index makes them unit again."""


class Described(NamedTuple):
    """The keypoints of one picture. Only those that were chosen need be described."""

    keypoints: Keypoints
    describe: Callable[[Rows], Quantised]
    """Descriptors of these rows of `keypoints`, of the class's dtype."""


class Descriptor(ABC):
    """Finds keypoints and describes them. Construction is cheap and imports nothing heavy."""

    dtype: ClassVar[np.dtype[Any]]
    """uint8 or, where values have signs, int8."""

    def weights(self, path: str | None) -> Sequence[Weights]:  # noqa: ARG002
        """What must be had before `load`, from the owner's `path` if given; nothing for some."""
        return ()

    def load(self, files: Mapping[str, Path]) -> None:  # noqa: B027 (nothing, without weights)
        """Build the model of its weights, by their names. Raises RetrieverUnavailable."""

    @abstractmethod
    def look(self, gray: Pixels, sides: tuple[int, int]) -> Described:
        """Keypoints of a (height, width) uint8 picture, its long side first resized into `sides`.

        Places and scales are in pixels of the picture as given.
        """

    def mirrored(self, descriptors: Quantised) -> Quantised | None:  # noqa: ARG002
        """Those of the mirrored picture's keypoints, or None if only that picture can tell."""
        return None


def quantise(descriptors: Floats) -> npt.NDArray[np.int8]:
    """(n, 128) float32 as int8, each row scaled so that its largest value becomes ±127.

    That costs no row more than 4e-4 of its cosine to what it was. A row of zeros stays zero.
    """
    largest = np.abs(descriptors).max(axis=1, initial=0, keepdims=True)
    scaled = descriptors * (127 / np.maximum(largest, 1e-9))
    return np.asarray(np.rint(scaled), np.int8)


def load_weights(model: Any, path: Path, constants: frozenset[str] = frozenset()) -> None:
    """Give a torch module the state dict at `path`, whole but for its `constants`; for inference.

    Raises RetrieverUnavailable when the file is broken, or another model's.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing, unknown = model.load_state_dict(state, strict=False)
    except (AttributeError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError) as exc:
        raise RetrieverUnavailable(f"{path} holds no weights of {_name(model)}: {exc}") from exc
    if lacks := set(missing) - constants:
        raise RetrieverUnavailable(f"{path} holds no {min(lacks)} of {_name(model)}")
    if unknown:
        raise RetrieverUnavailable(f"{path} holds {unknown[0]}, which {_name(model)} has not")
    model.eval()


def _name(model: Any) -> str:
    return type(model).__name__
