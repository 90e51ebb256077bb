"""SigLIP 2 and PE-Core by `model:` alone, against open_clip itself and its tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import RetrieverUnavailable
from models.extractors.clip import Clip, open_network
from models.neural import import_torchvision, import_transformers
from tests.models.extractors.open_clip_checkpoints import (
    LOOKS,
    PE_CORE,
    SIGLIP2,
    config_of,
    write_checkpoint,
    write_config,
    write_gemma_tokenizer,
)
from tests.models.extractors.test_clip import cosine, loaded, picture, reference

FAMILIES = [SIGLIP2, PE_CORE]
SCALES = {SIGLIP2: (112.7, -16.5), PE_CORE: (100.0, None)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in FAMILIES}
    for name, folder in made.items():
        write_checkpoint(folder, name, *SCALES[name])
    return made


@pytest.fixture(scope="module")
def extractors(folders: dict[str, Path]) -> dict[str, Clip]:
    return {name: loaded(folder) for name, folder in folders.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_picture_is_encoded_as_by_open_clip(
    name: str, folders: dict[str, Path], extractors: dict[str, Clip]
) -> None:
    import open_clip
    import torch

    size = config_of(name)["vision_cfg"]["image_size"]
    look: dict[str, Any] = {**LOOKS[name], "mean": [0.5] * 3, "std": [0.5] * 3}
    transform = open_clip.image_transform(size, is_train=False, **look)
    with torch.inference_mode():
        pixels = transform(Image.fromarray(picture(1)))[None]
        expected = reference(folders[name]).encode_image(pixels)
    features = extractors[name].extract(picture(1))
    assert features.shape == extractors[name].shape == (config_of(name)["embed_dim"],)
    assert cosine(features, expected) > 1 - 1e-5
    assert cosine(features, extractors[name].extract(picture(2))) < 1 - 1e-4


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("text", ["A Red Fox in the SNOW!", "лиса", "fox " * 200])
def test_words_are_encoded_as_by_open_clip(
    name: str, text: str, folders: dict[str, Path], extractors: dict[str, Clip]
) -> None:
    import open_clip
    import torch

    tokenizer = open_clip.get_tokenizer(f"local-dir:{folders[name]}")
    with torch.inference_mode():
        expected = reference(folders[name]).encode_text(tokenizer([text]))
    assert cosine(extractors[name].extract_text(text), expected) > 1 - 1e-5
    assert cosine(extractors[name].extract_text(text), extractors[name].extract_text("a")) < 0.9999


def test_siglip_words_are_lower_cased_stripped_of_punctuation_ended_and_padded(
    extractors: dict[str, Clip], tmp_path: Path
) -> None:
    tokenizer = write_gemma_tokenizer(tmp_path)
    plain = tokenizer.encode("a red fox in the snow").ids
    assert plain[-1] == tokenizer.token_to_id("<eos>")
    asked = extractors[SIGLIP2]._tokenizer(["A Red  Fox, in the SNOW!", "x " * 400])
    assert asked.shape == (2, 64)
    assert asked[0].tolist() == plain + [tokenizer.token_to_id("<pad>")] * (64 - len(plain))
    assert asked[1, -1] == plain[-1]


def test_pe_core_words_are_lower_cased_and_cut_to_its_context(extractors: dict[str, Clip]) -> None:
    import open_clip

    texts = ["A Red Fox", "x " * 400]
    tokens = extractors[PE_CORE]._tokenizer(texts)
    assert tokens.shape == (2, 32)
    assert tokens.tolist() == open_clip.tokenize([text.lower() for text in texts], 32).tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_scale_and_bias_are_the_checkpoints_own(name: str, extractors: dict[str, Clip]) -> None:
    scale, bias = SCALES[name]
    made = extractors[name].text_features(["a fox", "ein Fahrrad"])
    assert made.fingerprint == extractors[name].fingerprint
    assert made.logit_scale == pytest.approx(scale, rel=1e-5)
    assert made.logit_bias == (None if bias is None else pytest.approx(bias))
    one_by_one = [extractors[name].extract_text(text) for text in ("a fox", "ein Fahrrad")]
    np.testing.assert_allclose(made.vectors, np.stack(one_by_one), atol=1e-5)
    assert extractors[name].text_features([]).vectors.shape == (0, *extractors[name].shape)


def test_bfloat16_keeps_scale_and_bias_exact(folders: dict[str, Path]) -> None:
    lower = loaded(folders[SIGLIP2], precision="bfloat16")
    assert lower.precision == "bfloat16"
    assert lower.text_features([]).logit_scale == pytest.approx(112.7, rel=1e-5)


def test_a_checkpoint_without_its_tokenizer_says_so(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (tmp_path / name).write_bytes((folders[SIGLIP2] / name).read_bytes())
    with pytest.raises(Exception, match="tokenizer"):
        loaded(tmp_path)


def test_a_tokenizer_that_lacks_its_words_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for file in folders[SIGLIP2].iterdir():
        if file.name != "tokenizer.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(RetrieverUnavailable, match=r"knows 5 of 600 tokens.*tokenizer\.json"):
        loaded(tmp_path)


def test_a_folder_may_be_named_as_open_clip_names_it(folders: dict[str, Path]) -> None:
    named = Clip(Clip.Config(model=f"local-dir:{folders[SIGLIP2]}"))
    assert named.fingerprint == Clip(Clip.Config(model=str(folders[SIGLIP2]))).fingerprint


def test_siglip_2_has_the_size_that_another_library_gives_it(tmp_path: Path) -> None:
    import torch

    write_config(tmp_path, SIGLIP2, tiny=False)
    with torch.device("meta"):
        network = open_network(tmp_path, load_weights=False, device="meta")
        transformers = import_transformers()
        config = transformers.SiglipConfig(
            vision_config={"vision_use_head": True}, text_config={"vocab_size": 256000}
        )
        other = transformers.SiglipModel(config)
    count = sum(weights.numel() for weights in network.parameters())
    assert count == sum(weights.numel() for weights in other.parameters())


@pytest.mark.parametrize(("name", "width"), [(PE_CORE, 512), ("PE-Core-L-14-336", 1024)])
def test_pe_core_is_known_to_the_installed_libraries(name: str, width: int) -> None:
    import_torchvision()
    import open_clip
    from timm.models import is_model

    config = open_clip.get_model_config(name)
    assert config["embed_dim"] == width
    assert is_model(config["vision_cfg"]["timm_model_name"])
