"""Pictures are prepared alike by Pillow, by torchvision, and by torch on a device."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from models.neural import import_torchvision
from models.preparation import Preparation
from models.types import Pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BOTH = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC]


def picture(seed: int, height: int, width: int) -> Pixels:
    """Smooth colours with an edge."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.array(smooth)
    pixels[height // 2 :, width // 3 :] //= 2
    return pixels


def test_pictures_are_prepared_as_torchvision_does() -> None:
    transforms = import_torchvision().transforms
    look = transforms.Compose(
        [transforms.Resize([20, 24]), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    pixels = picture(3, 60, 80)
    ours = Preparation(20, 24, Image.Resampling.BILINEAR, MEAN, STD).of(pixels)
    assert ours.dtype == np.float32
    assert np.allclose(ours, look(Image.fromarray(pixels)), atol=1e-5)


@pytest.mark.parametrize("resample", BOTH)
def test_a_device_prepares_pictures_of_several_sizes_as_the_cpu_does(
    resample: Image.Resampling,
) -> None:
    preparation = Preparation(40, 56, resample, MEAN, STD)
    assert preparation.on_device
    pixels = [picture(1, 100, 120), picture(2, 30, 50), picture(3, 100, 120), picture(4, 40, 56)]
    batch = preparation.of_batch(pixels, "cpu").numpy()
    assert batch.shape == (4, 3, 40, 56)
    for ours, one in zip(batch, pixels, strict=True):
        expected = preparation.of(one)
        # Pillow rounds after the horizontal pass as well: at most one or two of 255 values.
        assert np.abs(ours - expected).max() <= 2.01 / 255 / min(STD)
        assert np.abs(ours - expected).mean() <= 0.3 / 255 / min(STD)


def test_a_filter_that_torch_lacks_is_not_for_devices() -> None:
    assert not Preparation(4, 4, Image.Resampling.LANCZOS, MEAN, STD).on_device
