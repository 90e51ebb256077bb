"""Copy detection by SSCD, a descriptor trained to recognise edited copies.

Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022.
"""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from pydantic import Field

from models.neural import NeuralExtractor, NeuralOptions, import_torchvision
from models.preparation import Preparation
from models.types import Options
from models.weights import UrlWeights, Weights

URL = "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchscript.pt"
SHA256 = "9f26bd4c848cc19b73d2ae92eea6e04886f61a7b764ceb7a13aeee62e6a6db56"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet."""
DIMENSIONS, GEM_POWER = 512, 3.0
LARGE_BLOCK = "backbone.layer3.22.conv3.weight"
"""A parameter of ResNeXt-101, which ResNet-50 lacks."""


class SscdOptions(NeuralOptions):
    path: str | None = Field(None, exclude=True)
    """Path of another file of weights: TorchScript, or a state dict of torchvision's layout, as
    published (`*.torchscript.pt`, `*.torchvision.pt`); among them is `sscd_disc_large`, a
    ResNeXt-101 with 1,024 values. The hash of the file in use is part of the
    fingerprint. TorchScript is a program: use only a file whose origin you trust."""
    size: int = Field(320, ge=64, le=512)
    """Side of the square to which pictures are squashed, as the authors recommend for batches."""


class Sscd(NeuralExtractor):
    """Features of one picture: (512,) float32 of unit length, or as many as the weights have.

    With the default weights, a cosine above 0.75 means a copy with a precision of 90 %, according
    to the authors.
    """

    Config: ClassVar[type[Options]] = SscdOptions
    shape = (DIMENSIONS,)
    options: SscdOptions

    def weights(self) -> Sequence[Weights]:
        return [UrlWeights("model", URL, SHA256, self.options.path)]

    def _build(self) -> Any:
        import torch

        path = self.files["model"]
        if _is_torchscript(path):
            jit: Any = torch.jit
            return jit.load(path, map_location="cpu")
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network = architecture(len(weights["backbone.fc.weight"]), LARGE_BLOCK in weights)
        network.load_state_dict(weights)
        return network

    def _preparation(self) -> Preparation:
        size = self.options.size
        return Preparation(size, size, Image.Resampling.BILINEAR, MEAN, STD)


def architecture(dimensions: int = DIMENSIONS, large: bool = False) -> Any:
    """ResNet-50, or ResNeXt-101 32x4d, with GeM pooling and a linear layer; `backbone` has
    torchvision's parameter names."""
    import torch
    from torch import nn

    class GeM(nn.Module):
        """Generalised mean over both axes (Radenović et al., 2018)."""

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            powers = maps.float().clamp(min=1e-6).pow(GEM_POWER)
            return powers.mean((2, 3)).pow(1 / GEM_POWER).to(maps.dtype)

    resnet = import_torchvision().models.resnet
    blocks, groups, width = ([3, 4, 23, 3], 32, 4) if large else ([3, 4, 6, 3], 1, 64)
    backbone = resnet.ResNet(
        resnet.Bottleneck, blocks, num_classes=dimensions, groups=groups, width_per_group=width
    )
    backbone.avgpool = GeM()
    return nn.Sequential(OrderedDict(backbone=backbone))


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


EXTRACTOR = Sscd
