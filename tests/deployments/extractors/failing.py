"""An extractor that fails while it loads or while it extracts, with the error that its options
name."""

from __future__ import annotations

import errno
import os
from typing import Any, ClassVar, Literal

import numpy as np

from models.base import Extractor
from models.errors import StoreUnavailable
from models.types import Features, Options, Pixels, View

ERRORS: dict[str, Exception] = {
    "store": StoreUnavailable("the store is gone: bring it back"),
    "disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/photos/part"),
    "bug": KeyError("a bug"),
}


class FailingOptions(Options):
    error: Literal["store", "disk", "bug"]
    while_loading: bool = False


class Failing(Extractor):
    Config: ClassVar[type[Options]] = FailingOptions
    view: ClassVar[View] = "preview"
    index: ClassVar[str] = "vectors"
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    shape: ClassVar[tuple[int, ...]] = (1,)
    options: FailingOptions

    def load(self) -> None:
        super().load()
        if self.options.while_loading:
            raise ERRORS[self.options.error]

    def _extract(self, pixels: Pixels) -> Features:  # noqa: ARG002
        raise ERRORS[self.options.error]


EXTRACTOR = Failing
