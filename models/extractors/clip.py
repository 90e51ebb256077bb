"""Image-text features of CLIP, by open_clip: pictures and words in one space.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from models.errors import InvalidInput
from models.neural import (
    Batch,
    NeuralExtractor,
    NeuralOptions,
    import_torchvision,
    normalised,
    resized,
    unit,
)
from models.types import Features, Options, Pixels
from models.weights import HubWeights, Weights

MAX_TEXT = 1000
"""Characters. The text tower reads the first 77 tokens, some 300 characters."""


class ClipOptions(NeuralOptions):
    """The weights' own hash is part of the fingerprint, so what names them is not."""

    model: str = Field("timm/vit_base_patch16_clip_224.openai", exclude=True)
    """A repository of the Hugging Face hub, or a local folder, as open_clip publishes models:
    `open_clip_config.json` with weights beside it. This one is open_clip's `ViT-B-16`, `openai`."""
    revision: str = Field("977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d", exclude=True)


class Clip(NeuralExtractor):
    """Features of a picture or of words: (embedding,) float32, unit length; 512 by default.

    The whole picture is squashed to the input size: nothing that may be searched for is cut off.
    """

    Config: ClassVar[type[Options]] = ClipOptions
    shape = (512,)
    additive = True
    reads_text = True
    options: ClipOptions

    def weights(self) -> Sequence[Weights]:
        # The tokenizer's files matter to text towers of transformers; open_clip's own needs none.
        files = ("open_clip_config.json", "*token*.json", "vocab.*", "merges.txt", "*.model")
        kinds = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
        return [HubWeights("model", self.options.model, self.options.revision, files + kinds)]

    def extract_text(self, text: str) -> Features:
        """Features of words, comparable with those of pictures.

        Raises InvalidInput at nothing but spaces, control characters, or over MAX_TEXT characters.
        """
        if not text.strip():
            raise InvalidInput("the text is empty", "text")
        if len(text) > MAX_TEXT:
            raise InvalidInput(f"the text is longer than {MAX_TEXT} characters", "text")
        if not all(char.isprintable() or char.isspace() for char in text):
            raise InvalidInput("the text has control characters", "text")
        features: Features = self._embed_text([text])[0]
        self._check(features)
        return features

    def _build(self) -> Any:
        import_torchvision()
        import open_clip

        folder = self.files["model"]
        network = open_network(folder, load_weights=True)
        self._tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self._look = network.visual.preprocess_cfg
        return network

    def _prepare(self, pixels: Pixels) -> Batch:
        look = self._look
        size = look["size"]
        height, width = (size, size) if isinstance(size, int) else size
        method = Image.Resampling[str(look["interpolation"]).upper()]
        return normalised(resized(pixels, (width, height), method), look["mean"], look["std"])

    def _encode(self, batch: Any) -> Any:
        return self._network.encode_image(batch)

    def _embed_text(self, texts: Sequence[str]) -> Batch:
        import torch

        with torch.inference_mode():
            return unit(self._network.encode_text(self._tokenizer(list(texts)).to(self._device)))

    def _probe(self) -> Batch:
        words = self._embed_text(["a photo of two red apples on a table", "night"])
        return np.concatenate([super()._probe(), words])


def open_network(folder: Path, load_weights: bool, device: str = "cpu") -> Any:
    """The network of a folder's `open_clip_config.json`, with or without the weights beside it."""
    import_torchvision()
    import open_clip

    return open_clip.create_model(
        f"local-dir:{folder}",
        load_weights=load_weights,
        require_pretrained=load_weights,
        pretrained_text=False,
        device=device,
    )


EXTRACTOR = Clip
