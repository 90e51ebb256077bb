"""Captions by image-to-text models of transformers, here tiny ones with random weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.annotators.caption import Caption
from models.errors import InvalidInput, RetrieverUnavailable
from models.neural import import_torchvision
from models.registry import make_annotator
from tests.drawing import scene

torch = pytest.importorskip("torch")
import_torchvision()
transformers: Any = pytest.importorskip("transformers")

WORDS = "a photo of the red blue cat dog tree house on two and".split()  # noqa: SIM905
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
PICTURES = [np.asarray(scene(seed, 96, 64)) for seed in (1, 2, 3)]


def wordpiece(folder: Path) -> Any:
    """Return BERT's tokenizer with the vocabulary of this file."""
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join([*SPECIAL, *WORDS]))
    ids = {word: at for at, word in enumerate(vocabulary.read_text().split())}
    tokenizer = transformers.BertTokenizer(vocab=ids)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer


def tiny_blip() -> Any:
    torch.manual_seed(0)
    text = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 32,
        "encoder_hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "projection_dim": 32,
        "bos_token_id": 5,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
        "initializer_range": 1.0,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "projection_dim": 32,
        "initializer_range": 1.0,
    }
    config = transformers.BlipConfig(text_config=text, vision_config=vision, projection_dim=32)
    model = transformers.BlipForConditionalGeneration(config)
    with torch.no_grad():  # Random weights would often begin with the token that ends a caption.
        model.text_decoder.cls.predictions.decoder.bias[: len(SPECIAL)] = -1000
    return model


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the hub's layout: configuration, safetensors, processor and tokenizer."""
    folder = tmp_path_factory.mktemp("blip")
    tiny_blip().save_pretrained(folder)
    size = {"height": 32, "width": 32}
    images = transformers.BlipImageProcessor(size=size)
    transformers.BlipProcessor(images, wordpiece(folder)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vit_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another family of models: a ViT encoder to which a GPT-2 decoder attends."""
    folder = tmp_path_factory.mktemp("vit_gpt2")
    torch.manual_seed(0)
    vocabulary = len(SPECIAL) + len(WORDS)
    shared = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(
            image_size=32, patch_size=8, intermediate_size=64, initializer_range=0.5, **shared
        ),
        transformers.GPT2Config(
            vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5
        ),
    )
    model = transformers.VisionEncoderDecoderModel(config)
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id = settings.bos_token_id = 5
        settings.eos_token_id, settings.pad_token_id = 3, 0
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    wordpiece(folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model, which must be asked for a caption through its chat template."""
    folder = tmp_path_factory.mktemp("llava")
    torch.manual_seed(0)
    tokenizer = wordpiece(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    sizes = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=32, image_size=32, patch_size=8, initializer_factor=9.0, **sizes
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_key_value_heads=2,
            initializer_range=0.5,
            bos_token_id=5,
            eos_token_id=3,
            pad_token_id=0,
            **sizes,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    template = (
        "{% for message in messages %}{% for part in message.content %}"
        "{{ '<image>' if part.type == 'image' else ' ' + part.text }}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %} a photo of{% endif %}"
    )
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)
    return folder


def caption(folder: Path, **options: object) -> Caption:
    settings = {"model": str(folder), "precision": "float32", "max_new_tokens": 8, **options}
    made = make_annotator("caption", settings)
    assert isinstance(made, Caption)
    made.load()
    return made


@pytest.mark.parametrize("beams", [1, 3])
def test_a_caption_is_what_transformers_own_pipeline_says(blip: Path, beams: int) -> None:
    pipeline = transformers.pipeline("image-text-to-text", model=str(blip), device="cpu")
    settings = {"max_new_tokens": 8, "num_beams": beams, "do_sample": False}
    captioner = caption(blip, num_beams=beams)
    for pixels in PICTURES:
        said = pipeline(Image.fromarray(pixels), text="", generate_kwargs=dict(settings))
        assert captioner.annotate(pixels).text == said[0]["generated_text"].strip() != ""


def test_pictures_have_captions_of_their_own(blip: Path) -> None:
    assert len({one.text for one in caption(blip).annotate_many(PICTURES)}) > 1


def test_another_family_of_models_works_by_configuration(vit_gpt2: Path) -> None:
    model = transformers.VisionEncoderDecoderModel.from_pretrained(vit_gpt2)
    images = [Image.fromarray(pixels) for pixels in PICTURES]
    inputs = transformers.ViTImageProcessor.from_pretrained(vit_gpt2)(images, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=8, num_beams=2, do_sample=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(vit_gpt2)
    expected = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    said = caption(vit_gpt2, num_beams=2).annotate_many(PICTURES)
    assert [one.text for one in said] == [text.strip() for text in expected]
    assert any(one.text for one in said)


def test_a_chat_model_is_asked_and_only_its_answer_is_the_caption(llava: Path) -> None:
    captioner = caption(llava, prompt="the cat and two dog", num_beams=2)
    pipeline = transformers.pipeline("image-text-to-text", model=str(llava), device="cpu")
    settings = {"max_new_tokens": 8, "num_beams": 2, "do_sample": False}
    for pixels, said in zip(PICTURES, captioner.annotate_many(PICTURES), strict=True):
        asked = [
            {"type": "image", "image": Image.fromarray(pixels)},
            {"type": "text", "text": "the cat and two dog"},
        ]
        answer = pipeline(
            text=[{"role": "user", "content": asked}],
            return_full_text=False,
            generate_kwargs=dict(settings),
        )
        assert said.text == answer[0]["generated_text"].strip() != ""


def test_a_batch_is_captioned_in_one_call_as_one_by_one(blip: Path) -> None:
    captioner = caption(blip)
    calls: list[int] = []
    captioner._model.vision_model.register_forward_hook(lambda *call: calls.append(len(call[2][0])))
    together = captioner.annotate_many(PICTURES)
    assert calls == [3]
    assert together == [captioner.annotate(pixels) for pixels in PICTURES]
    assert captioner.annotate_many([]) == []


def test_captions_hold_no_special_tokens_and_end_at_the_limit(blip: Path) -> None:
    for one in caption(blip, max_new_tokens=3).annotate_many(PICTURES):
        assert not any(token in one.text for token in SPECIAL)
        assert len(one.text.split()) <= 3


def test_a_checkpoint_of_torch_is_read_like_safetensors(blip: Path, tmp_path: Path) -> None:
    for path in blip.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).symlink_to(path)
    state = transformers.BlipForConditionalGeneration.from_pretrained(blip).state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    pickled, safe = caption(tmp_path), caption(blip)
    assert pickled.annotate_many(PICTURES) == safe.annotate_many(PICTURES)
    assert pickled.fingerprint != safe.fingerprint


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must not run",))


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(
    blip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in blip.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).symlink_to(path)
    torch.save({"weights": Harmful()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(RetrieverUnavailable, match="no image-to-text model"):
        caption(tmp_path)
    assert "must not run" not in capsys.readouterr().out


def test_bfloat16_captions_too_and_has_the_same_fingerprint(blip: Path) -> None:
    half = caption(blip, precision="bfloat16")
    assert half._model.dtype == torch.bfloat16
    assert len(half.annotate_many(PICTURES)) == 3
    assert half.fingerprint == caption(blip).fingerprint
    assert half.fingerprint != caption(blip, num_beams=1).fingerprint


def test_a_folder_of_something_else_is_refused_with_the_reason(blip: Path, tmp_path: Path) -> None:
    with pytest.raises(RetrieverUnavailable, match="holds no whole"):
        caption(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(RetrieverUnavailable, match="holds no whole"):
        caption(tmp_path)
    for path in blip.iterdir():
        if path.name != "config.json":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").write_text((blip / "config.json").read_text())
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(RetrieverUnavailable, match="no image-to-text model"):
        caption(tmp_path)


def test_the_default_is_the_published_blip_base(tmp_path: Path) -> None:
    """The sizes are those of its config.json, read as in production; no weights are loaded."""
    text = {
        "vocab_size": 30524,
        "hidden_size": 768,
        "encoder_hidden_size": 768,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
    }
    vision = {"hidden_size": 768, "image_size": 384, "patch_size": 16, "num_hidden_layers": 12}
    config = {"model_type": "blip", "text_config": text, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(
            transformers.AutoConfig.from_pretrained(tmp_path)
        )
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    bias = shapes.pop("text_decoder.cls.predictions.decoder.bias")  # The state dict has it twice.
    assert bias == (30524,)
    assert sum(math.prod(shape) for shape in shapes.values()) == 247_414_076
    layer = "encoder.layers.11"
    expected = {
        "vision_model.embeddings.class_embedding": (1, 1, 768),
        "vision_model.embeddings.position_embedding": (1, 577, 768),
        "vision_model.embeddings.patch_embedding.weight": (768, 3, 16, 16),
        f"vision_model.{layer}.self_attn.qkv.weight": (2304, 768),
        f"vision_model.{layer}.mlp.fc1.weight": (3072, 768),
        "vision_model.post_layernorm.weight": (768,),
        "text_decoder.bert.embeddings.word_embeddings.weight": (30524, 768),
        "text_decoder.bert.embeddings.position_embeddings.weight": (512, 768),
        "text_decoder.bert.encoder.layer.11.crossattention.self.key.weight": (768, 768),
        "text_decoder.bert.encoder.layer.11.output.dense.weight": (768, 3072),
        "text_decoder.cls.predictions.transform.dense.weight": (768, 768),
        "text_decoder.cls.predictions.decoder.weight": (30524, 768),
        "text_decoder.cls.predictions.bias": (30524,),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert Caption.Config().model_dump().keys() == {"prompt", "max_new_tokens", "num_beams"}


def test_a_misspelt_option_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidInput, match="beam_width"):
        make_annotator("caption", {"beam_width": 3})
