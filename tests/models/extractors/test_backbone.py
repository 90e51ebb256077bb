"""The global retriever's features against transformers, on tiny models in its file format.

The published architecture is compared without its weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import InvalidInput, RetrieverUnavailable
from models.extractors.backbone import Backbone, architecture
from models.neural import import_torchvision, import_transformers
from models.registry import make_extractor
from models.types import Pixels

BEIT = {  # config.json of microsoft/beit-base-patch16-224-pt22k-ft22k
    "architectures": ["BeitForImageClassification"],
    "drop_path_rate": 0.1,
    "hidden_size": 768,
    "image_size": 224,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "layer_scale_init_value": 0.1,
    "model_type": "beit",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "patch_size": 16,
    "use_absolute_position_embeddings": False,
    "use_mask_token": False,
    "use_mean_pooling": True,
    "use_relative_position_bias": True,
    "use_shared_relative_position_bias": False,
    "vocab_size": 8192,
}
BEIT_LOOK = {  # its preprocessor_config.json, which names the class as transformers did in 2021
    "crop_size": 32,
    "do_center_crop": False,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "BeitFeatureExtractor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "size": 32,
}
Shapes = dict[str, tuple[int, ...]]
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32}


def picture(seed: int, height: int = 48, width: int = 70) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def randomised(network: Any) -> Any:
    """Redraw every weight: a fresh model's many zeros and ones would hide mistakes."""
    import torch

    torch.manual_seed(3)
    with torch.no_grad():
        for weights in network.parameters():
            weights.normal_(0, 0.2)
    return network.eval()


@pytest.fixture(scope="module")
def beit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier like the published default model: a head, and names that start with `beit.`."""
    transformers = import_transformers()
    folder = tmp_path_factory.mktemp("beit")
    config = transformers.BeitConfig(
        **{**BEIT, **TINY, "intermediate_size": 64, "patch_size": 8, "num_labels": 5}
    )
    randomised(transformers.BeitForImageClassification(config)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(BEIT_LOOK))
    return folder


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = import_transformers()
    folder = tmp_path_factory.mktemp("dinov2")
    network = transformers.Dinov2Model(transformers.Dinov2Config(**TINY, patch_size=8))
    randomised(network).save_pretrained(folder)
    look = transformers.BitImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    )
    look.save_pretrained(folder)
    return folder


def loaded(folder: Path, **options: Any) -> Backbone:
    """Load in float32 by default: on some processors the extractor's default is bfloat16."""
    extractor = make_extractor(
        "backbone", {"model": str(folder), "precision": "float32", **options}
    )
    assert isinstance(extractor, Backbone)
    extractor.load()
    return extractor


def reference(folder: Path, pixels: Pixels) -> Any:
    """Return transformers' own output for the pixels, prepared by its default processor."""
    import torch

    transformers = import_transformers()
    look = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return network(**look([pixels], return_tensors="pt"))


def cosine(one: Any, other: Any) -> float:
    one, other = (np.asarray(vector, np.float64).ravel() for vector in (one, other))
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_beit_is_the_pooler_of_transformers_which_is_layernorm_of_the_mean_patch(
    beit: Path,
) -> None:
    extractor = loaded(beit, runtime="torch")
    pixels = picture(1)
    features, output = extractor.extract(pixels), reference(beit, pixels)
    assert features.dtype == np.float32
    assert np.linalg.norm(features) == pytest.approx(1, abs=1e-5)
    assert cosine(features, output.pooler_output) > 1 - 1e-5
    pooler = extractor._network.pooler.layernorm
    by_hand = pooler(output.last_hidden_state[:, 1:].mean(1)).detach()
    assert cosine(features, by_hand) > 1 - 1e-5
    assert cosine(features, output.last_hidden_state[:, 0]) < 0.99


def test_dinov2_is_the_mean_of_its_patch_tokens(dinov2: Path) -> None:
    pixels = picture(2)
    features, output = loaded(dinov2).extract(pixels), reference(dinov2, pixels)
    assert output.last_hidden_state.shape == (1, 17, 32)
    assert cosine(features, output.last_hidden_state[:, 1:].mean(1)) > 1 - 1e-5
    assert cosine(features, output.last_hidden_state.mean(1)) < 1 - 1e-4


def test_register_tokens_are_left_out_and_maps_are_averaged(tmp_path: Path) -> None:
    transformers = import_transformers()
    config = transformers.Dinov2WithRegistersConfig(**TINY, patch_size=8, num_register_tokens=4)
    network = transformers.Dinov2WithRegistersModel(config)
    convolutional = transformers.ConvNextModel(
        transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 24], depths=[1, 1, 1, 1])
    )
    look = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
    pixels = picture(3)
    for model, name in ((network, "registers"), (convolutional, "convnext")):
        randomised(model).save_pretrained(tmp_path / name)
        look.save_pretrained(tmp_path / name)
        extractor = loaded(tmp_path / name)
        output = reference(tmp_path / name, pixels).last_hidden_state
        mean = output[:, 5:].mean(1) if name == "registers" else output.mean((2, 3))
        assert cosine(extractor.extract(pixels), mean) > 1 - 1e-5, name
        assert extractor.shape == ((32,) if name == "registers" else (24,))


@pytest.fixture(scope="module")
def registers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DINOv2 with registers, whose tokens are: class, four registers, patches."""
    transformers = import_transformers()
    folder = tmp_path_factory.mktemp("registers")
    config = transformers.Dinov2WithRegistersConfig(**TINY, patch_size=8, num_register_tokens=4)
    randomised(transformers.Dinov2WithRegistersModel(config)).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_pooling_takes_the_class_token_the_mean_or_the_pooler(registers: Path, beit: Path) -> None:
    pixels = picture(9)
    for folder, others in ((registers, 5), (beit, 1)):
        output = reference(folder, pixels)
        tokens = output.last_hidden_state
        assert tokens.shape == (1, others + 16, 32)
        expected = {
            "cls": tokens[:, 0],
            "mean": tokens[:, others:].mean(1),
            "pooler": output.pooler_output,
        }
        for pooling, features in expected.items():
            found = loaded(folder, pooling=pooling).extract(pixels)
            assert cosine(found, features) > 1 - 1e-5, (folder, pooling)
        assert cosine(expected["cls"], expected["mean"]) < 0.99


def test_pooling_begins_a_feature_space_and_its_absence_leaves_the_old_one(registers: Path) -> None:
    given = {"model": str(registers)}
    prints = [
        make_extractor("backbone", given | some).fingerprint
        for some in ({}, {"pooling": None}, {"pooling": "mean"}, {"pooling": "cls"})
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert make_extractor("backbone", given).options.model_dump_json() == "{}"


def test_pooling_by_what_the_model_lacks_is_refused(tmp_path: Path, beit: Path) -> None:
    transformers = import_transformers()
    config = transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 24], depths=[1, 1, 1, 1])
    models = {
        "convnext": transformers.ConvNextModel(config),
        "swin": transformers.SwinModel(
            transformers.SwinConfig(
                image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
            )
        ),
    }
    for name, network in models.items():
        randomised(network).save_pretrained(tmp_path / name)
        look = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
        look.save_pretrained(tmp_path / name)
        with pytest.raises(RetrieverUnavailable, match="this model has no class token"):
            loaded(tmp_path / name, pooling="cls")
        output = reference(tmp_path / name, picture(9))
        pooled = loaded(tmp_path / name, pooling="pooler").extract(picture(9))
        assert cosine(pooled, output.pooler_output) > 1 - 1e-5
    with pytest.raises(InvalidInput, match="pooling"):
        loaded(beit, pooling="max")


def test_the_shape_is_the_models_own_once_it_is_loaded(beit: Path) -> None:
    extractor = make_extractor("backbone", {"model": str(beit)})
    assert extractor.shape == (768,)
    extractor.load()
    assert extractor.shape == (32,)
    features = extractor.extract(picture(4))
    unloaded = make_extractor("backbone", {"model": str(beit)})
    assert np.array_equal(unloaded.from_row(extractor.to_row(features)), features)


def test_a_batch_gives_the_features_of_each_picture(beit: Path) -> None:
    extractor = loaded(beit)
    pictures = [picture(seed, 20 + seed, 90 - seed) for seed in range(11)]
    together = extractor.extract_many(pictures)
    assert len(together) == 11
    for features, pixels in zip(together, pictures, strict=True):
        assert cosine(features, extractor.extract(pixels)) > 1 - 1e-6
    assert extractor.extract_many([]) == []


def test_a_mirrored_query_is_the_features_of_the_mirrored_picture(beit: Path) -> None:
    extractor = loaded(beit)
    pixels = picture(5)
    plain, mirror = extractor.extract_variants(pixels, "mirror")
    assert cosine(plain, extractor.extract(pixels)) > 1 - 1e-6
    assert cosine(mirror, extractor.extract(np.ascontiguousarray(pixels[:, ::-1]))) > 1 - 1e-6


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 800), (800, 1), (2, 3)])
def test_any_shape_of_picture_has_features(
    beit: Path, dinov2: Path, height: int, width: int
) -> None:
    for folder in (beit, dinov2):
        features = loaded(folder).extract(picture(6, height, width))
        assert np.isfinite(features).all()


def test_a_very_long_picture_has_the_features_that_the_uncut_one_would(dinov2: Path) -> None:
    pixels = np.repeat(np.repeat(picture(7, 4, 60), 8, axis=0), 8, axis=1)
    output = reference(dinov2, pixels).last_hidden_state[:, 1:].mean(1)
    assert cosine(loaded(dinov2).extract(pixels), output) > 1 - 1e-5


def test_the_fingerprint_names_the_weights_and_not_how_they_run_or_are_called(
    beit: Path, dinov2: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in beit.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    options = [
        {"model": str(beit)},
        {"model": str(copy), "revision": "other", "precision": "bfloat16", "threads": 2},
        {"model": str(dinov2)},
    ]
    first, same, other = (make_extractor("backbone", some).fingerprint for some in options)
    assert first == same
    assert first != other


def test_weights_that_lack_a_part_are_refused_rather_than_drawn_at_random(
    beit: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    for file in beit.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(beit / "model.safetensors")
    del weights["beit.pooler.layernorm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RetrieverUnavailable, match=r"lack pooler\.layernorm\.weight"):
        loaded(tmp_path)


def test_a_broken_file_makes_it_unavailable_until_it_is_mended(beit: Path, tmp_path: Path) -> None:
    for file in beit.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:1000])
    extractor = make_extractor("backbone", {"model": str(tmp_path)})
    with pytest.raises(RetrieverUnavailable, match="no weights for this architecture"):
        extractor.load()
    (tmp_path / "model.safetensors").write_bytes(whole)
    extractor.load()
    assert extractor.fingerprint == loaded(beit).fingerprint
    assert np.isfinite(extractor.extract(picture(8))).all()


def published(width: int, inner: int, heads: int, patch: int, grid: int, layers: int) -> Shapes:
    """Return names and shapes of the published checkpoint, without `beit.` and the classifier."""
    layer: Shapes = {
        "lambda_1": (width,),
        "lambda_2": (width,),
        "attention.attention.query.weight": (width, width),
        "attention.attention.query.bias": (width,),
        "attention.attention.key.weight": (width, width),
        "attention.attention.value.weight": (width, width),
        "attention.attention.value.bias": (width,),
        "attention.attention.relative_position_bias.relative_position_bias_table": (
            (2 * grid - 1) ** 2 + 3,
            heads,
        ),
        "attention.output.dense.weight": (width, width),
        "attention.output.dense.bias": (width,),
        "intermediate.dense.weight": (inner, width),
        "intermediate.dense.bias": (inner,),
        "output.dense.weight": (width, inner),
        "output.dense.bias": (width,),
        "layernorm_before.weight": (width,),
        "layernorm_before.bias": (width,),
        "layernorm_after.weight": (width,),
        "layernorm_after.bias": (width,),
    }
    names: Shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "pooler.layernorm.weight": (width,),
        "pooler.layernorm.bias": (width,),
    }
    for index in range(layers):
        names |= {f"encoder.layer.{index}.{name}": shape for name, shape in layer.items()}
    return names


def test_the_tests_checkpoint_has_the_published_names(beit: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(beit / "model.safetensors")
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    expected = published(width=32, inner=64, heads=4, patch=8, grid=4, layers=2)
    head = {"classifier.weight": (5, 32), "classifier.bias": (5,)}
    assert shapes == {f"beit.{name}": shape for name, shape in expected.items()} | head


def test_the_default_architecture_is_the_published_one(tmp_path: Path) -> None:
    """In memory transformers renames the parameters; the test above shows their published names."""
    import torch

    import_torchvision()
    import timm

    (tmp_path / "config.json").write_text(json.dumps(BEIT))
    with torch.device("meta"):
        network = architecture(tmp_path)
        # The same checkpoint in another library, which fuses query, key and value.
        other = timm.create_model("beit_base_patch16_224.in22k_ft_in22k", num_classes=0)
    count = sum(weights.numel() for weights in network.parameters())
    assert count == sum(weights.numel() for weights in other.parameters()) == 85_761_984
    expected = published(width=768, inner=3072, heads=12, patch=16, grid=14, layers=12)
    assert sorted(tuple(weights.shape) for weights in network.parameters()) == sorted(
        expected.values()
    )
