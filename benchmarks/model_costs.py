"""What the models of docs/models.md cost: `python benchmarks/model_costs.py [NAME …]`.

Published shapes with random weights, on one thread in float32: parameters, counted multiply-adds of
one picture, and its processor time as a multiple of CLIP ViT-B/16's, which runs twice in each of
the rounds. Pictures are prepared beforehand. A caption has as many tokens as docs/models.md
configures.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.utils.flop_counter import FlopCounterMode

from models.annotators import places365
from models.extractors import sscd
from models.neural import import_torchvision
from models.registry import make_annotator, make_extractor

ROUNDS, SLOW = 5, 20.0
"""Rounds of timing; a model that takes longer than SLOW seconds is timed once."""
BEAMS = 3

Run = Callable[[], object]


def pixels(side: int, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, side, side)


def open_clip(name: str, side: int) -> tuple[Any, Run]:
    import_torchvision()
    from open_clip import create_model

    network = create_model(name, pretrained=None).eval()
    return network, partial(network.encode_image, pixels(side))


def transformer(kind: str, side: int, **config: Any) -> tuple[Any, Run]:
    import transformers

    auto: Any = transformers
    network = getattr(auto, f"{kind}Model")(getattr(auto, f"{kind}Config")(**config)).eval()
    return network, partial(network, pixels(side))


def plain(network: Any, side: int) -> tuple[Any, Run]:
    return network, partial(network.eval(), pixels(side))


def copy(dimensions: int, large: bool) -> tuple[Any, Run]:
    return plain(sscd.architecture(dimensions, large), 320)


def scenes() -> tuple[Any, Run]:
    """ResNet-50 and wideresnet18."""
    made = (places365.make_resnet50(365), places365.make_wideresnet18(365))
    both = torch.nn.ModuleList(one.to_empty(device="cpu") for one in made).eval()
    picture = pixels(224)
    return both, lambda: [network(picture) for network in both]


def tagger() -> tuple[Any, Run]:
    import timm

    given = {"img_size": 448, "num_classes": 10861, "global_pool": "avg", "class_token": False}
    return plain(timm.create_model("vit_base_patch16_224", fc_norm=False, **given), 448)


def generation(network: Any, tokens: int, beams: int, **inputs: Any) -> tuple[Any, Run]:
    exactly: dict[str, Any] = {"min_new_tokens": tokens, "max_new_tokens": tokens}
    network = network.eval()
    return network, partial(network.generate, num_beams=beams, **inputs, **exactly)


def blip() -> tuple[Any, Run]:
    from transformers import BlipConfig, BlipForConditionalGeneration

    vision, text = {"image_size": 384}, {"encoder_hidden_size": 768, "vocab_size": 30524}
    config = BlipConfig(vision_config=vision, text_config=text)
    network = BlipForConditionalGeneration(config)
    return generation(network, 20, BEAMS, pixel_values=pixels(384))


def florence() -> tuple[Any, Run]:
    from transformers import BartConfig, Florence2Config, Florence2ForConditionalGeneration

    tokens = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    text = BartConfig(
        vocab_size=51328,
        d_model=768,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        **tokens,
    )
    config = Florence2Config(
        text_config=text.to_dict(), vision_config={"projection_dim": 768}, **tokens
    )
    # 24 x 24 patches and their mean, and the words that the task stands for
    asked = torch.tensor([[config.image_token_id] * 577 + [100] * 12])
    network = Florence2ForConditionalGeneration(config)
    return generation(network, 100, BEAMS, input_ids=asked, pixel_values=pixels(768))


def smolvlm() -> tuple[Any, Run]:
    """A picture of 4:3 is read as 12 tiles and once as a whole, in 64 tokens each."""
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    vision = {
        "model_type": "smolvlm_vision",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    }
    text = {
        "model_type": "llama",
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "vocab_size": 49280,
    }
    tokens = {"image_token_id": 49190, "pad_token_id": 2}
    config = SmolVLMConfig(
        vision_config=vision, text_config=text | {"pad_token_id": 2}, scale_factor=4, **tokens
    )
    asked = torch.tensor([[config.image_token_id] * 64 * 13 + [100] * 40])
    network = SmolVLMForConditionalGeneration(config)
    return generation(network, 60, 1, input_ids=asked, pixel_values=pixels(512, 13)[None])


def ocr() -> tuple[None, Run]:
    """A page of 12 lines; the models are those of the package."""
    page = Image.new("RGB", (1024, 768), "white")
    font = ImageFont.load_default(28)
    for line in range(12):
        text = f"line {line} of a page that has about fifty characters"
        ImageDraw.Draw(page).text((40, 40 + 58 * line), text, "black", font)
    annotator = make_annotator("ocr")
    annotator.load()
    return None, partial(annotator.annotate, np.asarray(page))


def local() -> tuple[None, Run]:
    """`rootsift`, of a picture with as many keypoints as it stores."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128), np.uint8)
    picture = np.asarray(Image.fromarray(noise).resize((1024, 768)))
    return None, partial(make_extractor("local").extract, picture)


REFERENCE = "CLIP ViT-B/16"
MODELS: dict[str, Callable[[], tuple[Any, Run]]] = {
    REFERENCE: partial(open_clip, "ViT-B-16-quickgelu", 224),
    "PE-Core-S/16 384": partial(open_clip, "PE-Core-S-16-384", 384),
    "SigLIP 2 B/16": partial(open_clip, "ViT-B-16-SigLIP2", 224),
    "SigLIP 2 B/32 256": partial(open_clip, "ViT-B-32-SigLIP2-256", 256),
    "PE-Core-L/14 336": partial(open_clip, "PE-Core-L-14-336", 336),
    "BEiT base": partial(
        transformer,
        "Beit",
        224,
        use_shared_relative_position_bias=False,
        use_relative_position_bias=True,
        image_size=224,
    ),
    "DINOv2 base with registers": partial(
        transformer, "Dinov2WithRegisters", 224, patch_size=14, image_size=518
    ),
    "SSCD ResNet-50": partial(copy, 512, False),
    "SSCD ResNeXt-101": partial(copy, 1024, True),
    "BLIP base, 20 tokens": blip,
    "Florence-2 base, 100 tokens": florence,
    "SmolVLM2 500M, 60 tokens": smolvlm,
    "Places365": scenes,
    "WD ViT tagger v3": tagger,
    "OCR of 12 lines": ocr,
    "local, rootsift": local,
}


def seconds(run: Run) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def row(name: str, reference: Run) -> str:
    network, run = MODELS[name]()
    counter = FlopCounterMode(display=False)
    mha = torch.backends.mha
    mha.set_fastpath_enabled(False)  # Its fused operation is not counted.
    with counter:
        run()
    mha.set_fastpath_enabled(True)
    size = sum(one.numel() for one in network.parameters()) if network is not None else None
    first = seconds(run)
    ratios = [
        seconds(run) * 2 / (seconds(reference) + seconds(reference))
        for _ in range(1 if first > SLOW else ROUNDS)
    ]
    counted = "–" if size is None else f"{size / 1e6:.1f} M"
    adds = "–" if size is None else f"{counter.get_total_flops() / 2e9:.1f} G"
    return f"| {name} | {counted} | {adds} | {statistics.median(ratios):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="; ".join(MODELS))
    names = parser.parse_args().names or list(MODELS)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| model | parameters | multiply-adds | cost |\n|---|---|---|---|")
    with torch.inference_mode():
        _, reference = MODELS[REFERENCE]()
        reference()
        for name in names:
            print(row(name, reference), flush=True)


if __name__ == "__main__":
    main()
