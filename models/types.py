"""Types that all packages share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Pixels = npt.NDArray[np.uint8]
"""RGB (height, width, 3) or grey (height, width), uint8."""

Features = npt.NDArray[Any]
"""Features of one picture; the extractor's class defines dtype and shape."""

View = Literal["full", "preview", "gray"]
"""Name of the view of a Picture that a method takes."""

Variants = Literal["identity", "mirror", "dihedral"]
"""Symmetries under which a query is tried: none, the mirror image, or all 8 flips and rotations."""


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Features of texts, and how their model scores a picture by them."""

    fingerprint: str
    """Feature space that the texts share with pictures."""
    vectors: npt.NDArray[np.float32]
    """Unit vectors (n, d)."""
    logit_scale: float
    """Learned factor of cosines."""
    logit_bias: float | None
    """Learned bias of a model trained with a sigmoid for each pair (SigLIP); None for a model
    trained with a softmax over texts (CLIP)."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the file of an image says beside its pixels."""

    format: str
    """The encoding, such as `JPEG`, `HEIC` or `RAW`."""
    bytes: int
    """Size of the file."""
    taken: float | None = None
    """When the picture was taken, in seconds since the epoch; a local time without its offset is
    read as UTC."""
    exif_tags: int = 0
    """Number of EXIF tags about the photograph and the camera."""
    quality: int | None = None
    """Of a JPEG, the quality from 1 to 100 whose standard table is nearest to the file's."""


MAX_IMAGE_ID = 2**47 - 1


class Options(BaseModel):
    """Base class of configurations: frozen; an unknown key raises an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
