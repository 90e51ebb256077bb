"""Speed and precision of the default neural models on this machine: `python benchmarks/neural.py`.

The published architectures with random weights, saved as they are published and loaded by the
production path, in float32 and in bfloat16: milliseconds a picture (median) singly and in batches
of 8, and the lowest cosine to float32 over 16 drawn pictures. Real weights are faster by nothing,
but their cosines are their own: the service takes them anew at each load.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from models.base import Extractor
from models.extractors import backbone, clip, sscd
from models.registry import make_extractor
from models.types import Features, Pixels
from tests.models.extractors.test_backbone import BEIT, BEIT_LOOK
from tests.models.extractors.test_clip import VIT_B_16, write_config

PICTURES, SINGLY = 16, 3


def beit(folder: Path) -> dict[str, Any]:
    """A folder of BEiT base; the options that name it."""
    (folder / "config.json").write_text(json.dumps(BEIT))
    look = BEIT_LOOK | {"size": 224, "crop_size": 224}
    (folder / "preprocessor_config.json").write_text(json.dumps(look))
    backbone.architecture(folder).save_pretrained(folder)
    return {"model": str(folder)}


def vit_b_16(folder: Path) -> dict[str, Any]:
    """A folder of CLIP ViT-B/16; the options that name it."""
    from safetensors.torch import save_file

    write_config(folder, VIT_B_16)
    weights = clip.open_network(folder, load_weights=False).state_dict()
    save_file(weights, folder / "open_clip_model.safetensors")
    return {"model": str(folder)}


def resnet_50(folder: Path) -> dict[str, Any]:
    """A file of SSCD's state dict; the options that name it."""
    import torch

    torch.save(sscd.architecture().state_dict(), folder / "sscd.torchvision.pt")
    return {"path": str(folder / "sscd.torchvision.pt")}


MODELS: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "global (BEiT base)": ("backbone", beit),
    "image_text (CLIP ViT-B/16)": ("clip", vit_b_16),
    "copy (SSCD ResNet-50)": ("sscd", resnet_50),
}


def pictures() -> list[Pixels]:
    """Noise, and smooth colours: the extremes between which photographs lie."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (PICTURES // 2, 384, 512, 3), np.uint8)
    coarse = rng.integers(0, 256, (PICTURES // 2, 6, 8, 3), np.uint8)
    return [*noise, *coarse.repeat(64, axis=1).repeat(64, axis=2)]


def measured(extractor: Extractor, some: Sequence[Pixels]) -> tuple[float, float, list[Features]]:
    """Milliseconds a picture, singly and in batches; the features."""
    singly = []
    for one in some[:SINGLY]:
        began = time.perf_counter()
        extractor.extract(one)
        singly.append(time.perf_counter() - began)
    began = time.perf_counter()
    features = extractor.extract_many(some)
    batch = (time.perf_counter() - began) / len(some)
    return statistics.median(singly) * 1e3, batch * 1e3, features


def main() -> None:
    some = pictures()
    print("| model | precision | ms singly | ms in batches of 8 | lowest cosine to float32 |")
    print("|---|---|---|---|---|")
    for name, (method, written) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            named = written(Path(folder))
            exact: list[Features] = []
            for precision in ("float32", "bfloat16"):
                extractor = make_extractor(method, named | {"precision": precision})
                extractor.load()
                used = getattr(extractor, "precision", precision)
                one, batch, features = measured(extractor, some)
                exact = exact or features
                cosines = [float(a @ b) for a, b in zip(exact, features, strict=True)]
                print(f"| {name} | {used} | {one:.0f} | {batch:.0f} | {min(cosines):.5f} |")


if __name__ == "__main__":
    main()
