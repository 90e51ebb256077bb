"""Image-text features against open_clip itself, on a tiny model saved as open_clip publishes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import InvalidInput, RetrieverUnavailable
from models.extractors.clip import Clip, open_network
from models.neural import import_torchvision, import_transformers
from models.registry import make_extractor
from models.types import Pixels

LOOK = {  # OpenAI's mean and standard deviation of RGB
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
TINY = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
VIT_B_16 = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
    "text_cfg": {**TEXT, "width": 512, "heads": 8, "layers": 12},
}


def picture(seed: int, height: int = 48, width: int = 70) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_config(folder: Path, model: dict[str, Any]) -> None:
    config = {"model_cfg": model, "preprocess_cfg": LOOK}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    write_config(folder, TINY)
    torch.manual_seed(5)
    save_file(
        open_network(folder, load_weights=False).state_dict(),
        folder / "open_clip_model.safetensors",
    )
    return folder


@pytest.fixture(scope="module")
def clip(tiny: Path) -> Clip:
    return loaded(tiny)


def loaded(folder: Path, **options: Any) -> Clip:
    """Load in float32 by default: on some processors the extractor's default is bfloat16."""
    extractor = make_extractor("clip", {"model": str(folder), "precision": "float32", **options})
    assert isinstance(extractor, Clip)
    extractor.load()
    return extractor


def reference(folder: Path) -> Any:
    """Load the model with open_clip alone."""
    import_torchvision()
    import open_clip

    return open_clip.create_model(f"local-dir:{folder}").eval()


def cosine(one: Any, other: Any) -> float:
    one, other = (np.asarray(vector, np.float64).ravel() for vector in (one, other))
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_a_picture_is_squashed_whole_and_encoded_as_by_open_clip(clip: Clip, tiny: Path) -> None:
    import torch

    pixels = picture(1)
    import_torchvision()
    import open_clip

    look = open_clip.image_transform(
        32, is_train=False, mean=LOOK["mean"], std=LOOK["std"], resize_mode="squash"
    )
    with torch.inference_mode():
        expected = reference(tiny).encode_image(look(Image.fromarray(pixels))[None])
    features = clip.extract(pixels)
    assert features.dtype == np.float32
    assert features.shape == clip.shape == (24,)
    assert np.linalg.norm(features) == pytest.approx(1, abs=1e-5)
    assert cosine(features, expected) > 1 - 1e-5


@pytest.mark.parametrize("text", ["a red fox in the snow", "лиса", "x " * 400])
def test_words_are_encoded_as_by_open_clip(clip: Clip, tiny: Path, text: str) -> None:
    import open_clip
    import torch

    with torch.inference_mode():
        expected = reference(tiny).encode_text(open_clip.tokenize([text]))
    features = clip.extract_text(text)
    assert np.linalg.norm(features) == pytest.approx(1, abs=1e-5)
    assert cosine(features, expected) > 1 - 1e-5


@pytest.mark.parametrize("text", ["", " \n\t", "a" * 1001, "a\x00b", "a\x1b[0m"])
def test_words_that_are_none_are_refused_naming_the_field(clip: Clip, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        clip.extract_text(text)
    assert refused.value.field == "text"


def test_a_batch_gives_the_features_of_each_picture(clip: Clip) -> None:
    pictures = [picture(seed, 20 + seed, 90 - seed) for seed in range(9)]
    for features, pixels in zip(clip.extract_many(pictures), pictures, strict=True):
        assert cosine(features, clip.extract(pixels)) > 1 - 1e-6


def test_bfloat16_has_a_cosine_of_at_least_0_999_to_float32(clip: Clip, tiny: Path) -> None:
    lower = loaded(tiny, precision="bfloat16")
    assert lower.precision == "bfloat16"
    assert lower.fingerprint == clip.fingerprint
    for seed in range(4):
        assert cosine(lower.extract(picture(seed)), clip.extract(picture(seed))) >= 0.999
    assert cosine(lower.extract_text("a fox"), clip.extract_text("a fox")) >= 0.999
    assert lower.extract(picture(1)).dtype == np.float32


def test_the_older_file_format_gives_the_same_features(
    clip: Clip, tiny: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    write_config(tmp_path, TINY)
    torch.save(
        load_file(tiny / "open_clip_model.safetensors"), tmp_path / "open_clip_pytorch_model.bin"
    )
    assert cosine(loaded(tmp_path).extract(picture(2)), clip.extract(picture(2))) > 1 - 1e-6


def test_weights_of_another_architecture_are_refused(tiny: Path, tmp_path: Path) -> None:
    write_config(tmp_path, {**TINY, "embed_dim": 16})
    weights = (tiny / "open_clip_model.safetensors").read_bytes()
    (tmp_path / "open_clip_model.safetensors").write_bytes(weights)
    with pytest.raises(RetrieverUnavailable, match="no weights for this architecture"):
        loaded(tmp_path)


def test_the_default_architecture_is_the_published_one(tmp_path: Path) -> None:
    import torch

    import_torchvision()
    import open_clip

    write_config(tmp_path, VIT_B_16)
    assert open_clip.get_model_config("ViT-B-16-quickgelu") == VIT_B_16
    with torch.device("meta"):
        network = open_network(tmp_path, load_weights=False, device="meta")
        # The same model in another library, which splits query, key and value.
        transformers = import_transformers()
        vision = transformers.CLIPVisionConfig(patch_size=16)
        other = transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision.to_dict()))
    shapes = {name: tuple(weights.shape) for name, weights in network.named_parameters()}
    count = sum(weights.numel() for weights in network.parameters())
    assert count == sum(weights.numel() for weights in other.parameters()) == 149_620_737
    assert len(shapes) == 302
    published = {
        "positional_embedding": (77, 512),
        "text_projection": (512, 512),
        "logit_scale": (),
        "visual.class_embedding": (768,),
        "visual.positional_embedding": (197, 768),
        "visual.proj": (768, 512),
        "visual.conv1.weight": (768, 3, 16, 16),
        "visual.transformer.resblocks.11.attn.in_proj_weight": (2304, 768),
        "visual.transformer.resblocks.11.mlp.c_fc.weight": (3072, 768),
        "transformer.resblocks.11.attn.in_proj_weight": (1536, 512),
        "transformer.resblocks.11.mlp.c_proj.weight": (512, 2048),
        "token_embedding.weight": (49408, 512),
        "ln_final.weight": (512,),
    }
    assert published.items() <= shapes.items()
