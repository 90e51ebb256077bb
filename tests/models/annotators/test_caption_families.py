"""Captions by Florence-2, asked by a task token, and SmolVLM2, asked by its chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.errors import RetrieverUnavailable
from tests.models.annotators.test_caption import (
    PICTURES,
    SPECIAL,
    WORDS,
    caption,
    torch,
    transformers,
)

DETAILED = "<DETAILED_CAPTION>"


def tokenizer_of(words: list[str], **tokens: str) -> Any:
    """Return a tokenizer of whole words, with Llama's class, and attributes for these tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    listed = [*SPECIAL, *tokens.values(), *words]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(listed))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="[UNK]",
        pad_token="[PAD]",
        bos_token="[DEC]",
        eos_token="[SEP]",
        extra_special_tokens=tokens,
    )


@pytest.fixture(scope="module")
def florence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Florence-2: a DaViT tower and BART, with the processor that knows its tasks."""
    folder = tmp_path_factory.mktemp("florence2")
    torch.manual_seed(0)
    asked = "Describe in detail what is shown image does it ? . What the".split()  # noqa: SIM905
    tokenizer = tokenizer_of([*WORDS, *asked], image_token="<image>")
    vision = transformers.Florence2VisionConfig(
        depths=(1, 1, 1, 1),
        embed_dim=(8, 8, 16, 16),
        num_heads=(1, 1, 2, 2),
        num_groups=(1, 1, 2, 2),
        projection_dim=32,
        window_size=4,
        initializer_range=0.5,
    )
    text = transformers.BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        init_std=0.5,
        pad_token_id=0,
        bos_token_id=5,
        eos_token_id=3,
        decoder_start_token_id=5,
        forced_eos_token_id=3,
    )
    config = transformers.Florence2Config(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_id=tokenizer.image_token_id,
        pad_token_id=0,
        bos_token_id=5,
        eos_token_id=3,
        decoder_start_token_id=5,
    )
    model = transformers.Florence2ForConditionalGeneration(config)
    with torch.no_grad():  # A published model never answers with image tokens.
        model.model.language_model.shared.weight[: len(SPECIAL) + 1] *= 0.01
    model.save_pretrained(folder)
    size = {"height": 64, "width": 64}
    images = transformers.CLIPImageProcessor(
        size=size, crop_size=size, do_center_crop=False, resample=3
    )
    images.image_seq_length = 5  # Four patches and their mean
    transformers.Florence2Processor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def smolvlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolVLM2: a SigLIP tower and Llama, with a processor that splits pictures into tiles."""
    folder = tmp_path_factory.mktemp("smolvlm")
    torch.manual_seed(0)
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    named = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
        "video_token": "<video>",
    }
    tokenizer = tokenizer_of([*WORDS, "User", "Assistant", ":"], **named)
    tokenizer.add_special_tokens({"additional_special_tokens": tiles})
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.SmolVLMConfig(
        vision_config={
            "model_type": "smolvlm_vision",
            "hidden_size": 32,
            "image_size": 32,
            "patch_size": 8,
            "initializer_range": 0.5,
            **sizes,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": 32,
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 2,
            "initializer_range": 0.5,
            "pad_token_id": 0,
            "bos_token_id": 5,
            "eos_token_id": 3,
            **sizes,
        },
        image_token_id=tokenizer.image_token_id,
        scale_factor=2,
        pad_token_id=0,
    )
    transformers.SmolVLMForConditionalGeneration(config).save_pretrained(folder)
    template = (
        "{% for message in messages %}{{ message['role'] | capitalize }} :"
        "{% for line in message['content'] %}{% if line['type'] == 'text' %} {{ line['text'] }}"
        "{% elif line['type'] == 'image' %}<image>{% endif %}{% endfor %}<end_of_utterance>"
        "{% endfor %}{% if add_generation_prompt %} Assistant :{% endif %}"
    )
    images = transformers.SmolVLMImageProcessor(
        size={"longest_edge": 128}, max_image_size={"longest_edge": 32}
    )
    videos = transformers.SmolVLMVideoProcessor()
    transformers.SmolVLMProcessor(
        images, tokenizer, videos, image_seq_len=4, chat_template=template
    ).save_pretrained(folder)
    return folder


def test_what_would_fail_at_each_picture_is_refused_when_it_loads(
    florence: Path, smolvlm: Path, tmp_path: Path
) -> None:
    with pytest.raises(RetrieverUnavailable, match=r"or give the `task` that the model wants"):
        caption(florence)
    for file in smolvlm.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(RetrieverUnavailable, match=r"holds no .* with these options"):
        caption(tmp_path)


def test_a_task_token_becomes_the_question_that_the_model_was_trained_with(florence: Path) -> None:
    model = transformers.Florence2ForConditionalGeneration.from_pretrained(florence).eval()
    processor = transformers.AutoProcessor.from_pretrained(florence)
    captioner = caption(florence, task=DETAILED, num_beams=2)
    for pixels, said in zip(PICTURES, captioner.annotate_many(PICTURES), strict=True):
        inputs = processor(text=DETAILED, images=Image.fromarray(pixels), return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=8, num_beams=2, do_sample=False)
        (text,) = processor.batch_decode(tokens, skip_special_tokens=True)
        assert said.text == text.strip() != ""
    other = caption(florence, task="<CAPTION>", num_beams=2)
    assert other.fingerprint != captioner.fingerprint


def test_a_batch_of_tasks_is_answered_as_one_by_one(florence: Path) -> None:
    captioner = caption(florence, task=DETAILED)
    assert captioner.annotate_many(PICTURES) == [captioner.annotate(one) for one in PICTURES]


def test_smolvlm_is_asked_by_its_chat_template_and_only_the_answer_counts(smolvlm: Path) -> None:
    captioner = caption(smolvlm, prompt="the cat and two dog", num_beams=1)
    model = transformers.AutoModelForImageTextToText.from_pretrained(smolvlm).eval()
    processor = transformers.AutoProcessor.from_pretrained(smolvlm)
    for pixels, said in zip(PICTURES, captioner.annotate_many(PICTURES), strict=True):
        content = [
            {"type": "image", "image": Image.fromarray(pixels)},
            {"type": "text", "text": "the cat and two dog"},
        ]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        tokens = model.generate(**inputs, max_new_tokens=8, num_beams=1, do_sample=False)
        answer = processor.decode(
            tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert said.text == answer.strip() != ""
