"""How networks want their pictures: the whole picture squashed to a size, then normalised.

On a CPU Pillow does it; on a GPU torch does, with the same filters, so that only the pixels travel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.types import Pixels

Batch = npt.NDArray[np.float32]
"""Prepared pictures (n, 3, height, width), or one of (3, height, width)."""

MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
"""Filters that torch has too."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """A size, the filter that leads to it, and mean and standard deviation of values in 0…1."""

    height: int
    width: int
    resample: Image.Resampling
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def on_device(self) -> bool:
        """Whether `of_batch` can do it."""
        return self.resample in MODES

    def of(self, pixels: Pixels) -> Batch:
        """One picture (3, height, width)."""
        squashed = resized(pixels, (self.width, self.height), self.resample)
        return normalised(squashed, self.mean, self.std)

    def of_batch(self, pixels: Sequence[Pixels], device: Any) -> Any:
        """Pictures of any sizes as a float32 tensor (n, 3, height, width) on the device."""
        import torch

        batch = torch.empty((len(pixels), 3, self.height, self.width), device=device)
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, one in enumerate(pixels):
            alike[one.shape].append(number)
        # From locked memory the copy runs beside what the device computes.
        pinned = batch.is_cuda
        for shape, numbers in alike.items():
            stacked = torch.empty((len(numbers), *shape), dtype=torch.uint8, pin_memory=pinned)
            np.stack([pixels[number] for number in numbers], out=stacked.numpy())
            batch[numbers] = torch.nn.functional.interpolate(
                stacked.to(device, non_blocking=pinned).permute(0, 3, 1, 2).float(),
                (self.height, self.width),
                mode=MODES[self.resample],
                antialias=True,
            )
        # Pillow rounds to whole values, too.
        batch.round_().clamp_(0, 255)
        scale, shift = _scale_and_shift(self.mean, self.std)
        batch *= torch.from_numpy(scale).to(device)[:, None, None]
        batch -= torch.from_numpy(shift).to(device)[:, None, None]
        return batch


def resized(pixels: Pixels, size: tuple[int, int], resample: Image.Resampling) -> Pixels:
    """The whole picture squashed to (width, height)."""
    return np.asarray(Image.fromarray(pixels).resize(size, resample))


def normalised(pixels: Pixels, mean: Sequence[float], std: Sequence[float]) -> Batch:
    """RGB (height, width, 3) as (3, height, width) float32; mean and std refer to values in 0…1."""
    scale, shift = _scale_and_shift(mean, std)
    return np.ascontiguousarray((pixels * scale - shift).transpose(2, 0, 1))


def _scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[Batch, Batch]:
    deviation = np.asarray(std, np.float32)
    scale: Batch = np.float32(1) / (np.float32(255) * deviation)
    return scale, np.asarray(mean, np.float32) / deviation


def probe_pictures() -> list[Pixels]:
    """Noise and smooth gradients, whose features reveal a loss of precision."""
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (2, 300, 400, 3), np.uint8)
    coarse = rng.integers(0, 256, (2, 4, 4, 3), np.uint8)
    return [*noise, *(resized(one, (400, 300), Image.Resampling.BICUBIC) for one in coarse)]
