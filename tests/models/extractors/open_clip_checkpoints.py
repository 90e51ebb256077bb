"""Tiny checkpoints of SigLIP 2 and PE-Core: open_clip's own configurations with small towers, with
the files that their repositories have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.extractors.clip import open_network
from models.neural import import_torchvision

SIGLIP2, PE_CORE = "ViT-B-16-SigLIP2", "PE-Core-S-16-384"
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
SENTENCES = ["a photo of a red fox in the snow", "ein rotes fahrrad vor dem haus"]
LOOKS = {  # The preprocessing in the `open_clip_config.json` of the published repositories
    SIGLIP2: {"interpolation": "bicubic", "resize_mode": "squash"},
    PE_CORE: {"interpolation": "bilinear", "resize_mode": "squash"},
}


def tiny_vision_towers() -> None:
    """Register small models of timm's classes for SigLIP and PE."""
    import_torchvision()
    from timm.models import eva, is_model, register_model, vision_transformer

    def tiny_siglip(pretrained: bool = False, **given: Any) -> Any:
        sizes = {"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
        made = vision_transformer._create_vision_transformer
        fixed = {"class_token": False, "global_pool": "map"}
        name = "vit_base_patch16_siglip_224"
        return made(name, pretrained=pretrained, **(sizes | fixed | given))

    def tiny_pe_core(pretrained: bool = False, **given: Any) -> Any:
        whole = eva.vit_pe_core_small_patch16_384
        return whole(pretrained, **({"embed_dim": 48, "depth": 2, "num_heads": 3} | given))

    for one in (tiny_siglip, tiny_pe_core):
        if not is_model(one.__name__):
            register_model(one)


def config_of(name: str, tiny: bool = True) -> dict[str, Any]:
    """The `model_cfg` of a repository."""
    import_torchvision()
    import open_clip

    config: dict[str, Any] = open_clip.get_model_config(name)
    if tiny:
        siglip = name == SIGLIP2
        config["embed_dim"] = 32 if siglip else 24
        config["vision_cfg"]["timm_model_name"] = "tiny_siglip" if siglip else "tiny_pe_core"
        small = {"width": 32, "heads": 2, "layers": 2}
        config["text_cfg"] |= small | ({"vocab_size": 600} if siglip else {})
    return config


def write_config(folder: Path, name: str, tiny: bool = True) -> None:
    look = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], **LOOKS[name]}
    config = {"model_cfg": config_of(name, tiny), "preprocess_cfg": look}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def write_gemma_tokenizer(folder: Path) -> Any:
    """Write a small tokenizer with the files and settings of Gemma's, and return it as the library
    `tokenizers` made it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)
    listed = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(SENTENCES * 3, BpeTrainer(vocab_size=600, special_tokens=listed))
    tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}
    settings = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": False,
        "add_eos_token": True,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    return tokenizer


def write_checkpoint(folder: Path, name: str, scale: float, bias: float | None = None) -> None:
    """Write a checkpoint with random weights, this learned scale and, for SigLIP 2, this bias."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    tiny_vision_towers()
    write_config(folder, name)
    if name == SIGLIP2:
        write_gemma_tokenizer(folder)
    torch.manual_seed(3)
    network = open_network(folder, load_weights=False)
    with torch.no_grad():
        network.logit_scale.copy_(torch.tensor(scale).log())
        if bias is not None:
            network.logit_bias.fill_(bias)
        for weights in network.visual.parameters():
            weights.add_(torch.randn_like(weights) * 0.05)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
