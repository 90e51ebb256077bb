"""Types that all packages share."""

from __future__ import annotations

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

MAX_IMAGE_ID = 2**47 - 1


class Options(BaseModel):
    """Base class of configurations: frozen; an unknown key raises an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
