"""The few types that travel through every room."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Pixels = npt.NDArray[np.uint8]
"""RGB of shape (height, width, 3), or grey of shape (height, width); uint8."""

Features = npt.NDArray[Any]
"""What an extractor makes of one picture: its class says dtype and shape."""

View = Literal["full", "preview", "gray"]
"""Which of a Picture's three derived pictures an extractor takes."""

Variants = Literal["identity", "mirror", "dihedral"]
"""The symmetries a query is tried under: none; and its mirror image; all 8 flips and turns."""

MAX_IMAGE_ID = 2**47 - 1


class Options(BaseModel):
    """Base of every configuration: frozen, and a misspelt key is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
