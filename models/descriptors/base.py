"""The descriptor contract: find the keypoints of a grey picture, and describe the selected ones."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from models.descriptors.keypoints import Keypoints
from models.descriptors.selection import Floats, Selection
from models.errors import RetrieverUnavailable
from models.types import Pixels
from models.weights import REPLACE, Weights, broken

Quantised = npt.NDArray[np.uint8] | npt.NDArray[np.int8]
"""Descriptors (n, width), each a multiple of a unit vector. The index normalises them."""


class Described(NamedTuple):
    """The selected keypoints of one picture."""

    keypoints: Keypoints
    descriptors: Quantised
    """Their descriptors, with the dtype of the Descriptor."""


class Descriptor(ABC):
    """Base class of methods that detect keypoints and describe them. Construction is cheap and
    imports nothing heavy."""

    dtype: ClassVar[np.dtype[Any]]
    """Dtype of descriptors: uint8, or int8 where values have signs."""
    width: ClassVar[int] = 128
    """Number of values of a descriptor."""

    def weights(self, path: str | None) -> Sequence[Weights]:  # noqa: ARG002
        """The weights that `load` needs, at the owner's `path` if given; empty for methods without
        weights."""
        return ()

    def load(self, files: Mapping[str, Path]) -> None:  # noqa: B027 (nothing, without weights)
        """Build the model from its weights, given by name, and compile kernels. Raises
        RetrieverUnavailable."""

    @abstractmethod
    def describe(self, gray: Pixels, sides: tuple[int, int], selection: Selection) -> Described:
        """The selected keypoints of a (height, width) uint8 picture whose long side is first
        resized into `sides`.

        Positions and scales are in pixels of the picture as given.
        """

    def mirrored(self, descriptors: Quantised) -> Quantised | None:  # noqa: ARG002
        """Descriptors of the mirrored picture's keypoints; None where they can't be computed
        without that picture."""
        return None


def quantise(descriptors: Floats) -> npt.NDArray[np.int8]:
    """Quantise (n, width) float32 to int8, each row scaled so that its largest value becomes ±127.

    The cosine of a row to its original drops by at most 4e-4. A row of zeros stays zero.
    """
    largest = np.abs(descriptors).max(axis=1, initial=0, keepdims=True)
    scaled = descriptors * (127 / np.maximum(largest, 1e-9))
    return np.asarray(np.rint(scaled), np.int8)


def load_weights(
    model: Any,
    path: Path,
    constants: frozenset[str] = frozenset(),
    renamed: Callable[[str], str] = str,
) -> None:
    """Load the state dict at `path` into a torch module, for inference; only `constants` may be
    missing. `renamed` gives the module's name of a tensor of the file.

    From then on torch uses one thread for a picture, because pictures are described side by side.

    Raises RetrieverUnavailable when the file is broken or belongs to another model.
    """
    import torch

    torch.set_num_threads(1)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}, no dict of tensors")
        state = {renamed(name): tensor for name, tensor in state.items()}
        missing, unknown = model.load_state_dict(state, strict=False)
    except (AttributeError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError) as exc:
        raise RetrieverUnavailable(
            f"{path} holds no weights of {_name(model)} ({broken(exc)}); {REPLACE}"
        ) from exc
    if lacks := set(missing) - constants:
        raise RetrieverUnavailable(f"{path} holds no {min(lacks)} of {_name(model)}; {REPLACE}")
    if unknown:
        raise RetrieverUnavailable(
            f"{path} holds {unknown[0]}, which {_name(model)} does not have; {REPLACE}"
        )
    model.eval()


def _name(model: Any) -> str:
    return type(model).__name__
