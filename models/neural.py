"""What neural methods share. Import it anywhere: torch itself is imported inside the functions."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any


@cache
def import_torchvision() -> Any:
    """The torchvision package; call this before importing what imports it (open_clip, timm).

    Beside a torch of another build (the CPU's, say) its compiled operators don't load, and its
    import ends at the first one that it describes. Models and transforms need none of them.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_operators()
        import torchvision
    return torchvision


@cache
def _declare_operators() -> Any:
    """Kept by the cache: the declaration ends with its library object."""
    import torch

    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
