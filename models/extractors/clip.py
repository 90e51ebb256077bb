"""Image-text features by CLIP models of open_clip: pictures and texts in one feature space.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from models.errors import InvalidInput
from models.neural import (
    NeuralExtractor,
    NeuralOptions,
    check_vocabulary,
    import_torchvision,
    unit,
)
from models.preparation import Batch, Preparation
from models.types import Features, Options, TextFeatures
from models.weights import HubWeights, Weights

MAX_TEXT = 1000
"""Maximum number of characters of a text. The text tower reads only the first tokens: 77 of CLIP,
64 of SigLIP 2, 32 of PE-Core; 32 tokens are about 130 characters."""
TEXT_BATCH = 32
"""Texts in one pass of the text tower."""


class ClipOptions(NeuralOptions):
    """Options of the model. Those that name the weights are not part of the fingerprint, because
    the hash of the weights is."""

    model: str = Field("timm/vit_base_patch16_clip_224.openai", exclude=True)
    """A repository of the Hugging Face hub, or a local folder, in open_clip's layout:
    `open_clip_config.json` beside the weights. The default is open_clip's `ViT-B-16`, `openai`."""
    revision: str = Field("977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d", exclude=True)

    @field_validator("model")
    @classmethod
    def _folder(cls, model: str) -> str:
        """Take the name that open_clip gives a local folder, too."""
        return model.removeprefix("local-dir:")


class Clip(NeuralExtractor):
    """Features of a picture or a text: (embedding,) float32 of unit length; 512 by default.

    The whole picture is squashed to the input size, so that nothing is cropped away.
    """

    Config: ClassVar[type[Options]] = ClipOptions
    shape = (512,)
    additive = True
    reads_text = True
    options: ClipOptions

    def weights(self) -> Sequence[Weights]:
        # Text towers of transformers need the tokenizer's files; open_clip's own
        # tokenizer needs none.
        files = ("open_clip_config.json", "*token*.json", "vocab.*", "merges.txt", "*.model")
        kinds = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
        return [HubWeights("model", self.options.model, self.options.revision, files + kinds)]

    def extract_text(self, text: str) -> Features:
        """Features of a text, comparable with features of pictures.

        Raises InvalidInput for a text that is blank, has control characters, or is longer than
        MAX_TEXT characters.
        """
        _check_text(text)
        features: Features = self._embed_text([text])[0]
        self._check(features)
        return features

    def text_features(self, texts: Sequence[str]) -> TextFeatures:
        for text in texts:
            _check_text(text)
        batches = range(0, len(texts), TEXT_BATCH)
        vectors = [self._embed_text(texts[first : first + TEXT_BATCH]) for first in batches]
        return TextFeatures(
            self.fingerprint,
            np.concatenate([np.empty((0, *self.shape), np.float32), *vectors]),
            self._logit_scale,
            self._logit_bias,
        )

    def _build(self) -> Any:
        import_torchvision()
        import open_clip

        folder = self.files["model"]
        network = open_network(folder, load_weights=True)
        self._tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        if (words := getattr(self._tokenizer, "tokenizer", None)) is not None:
            check_vocabulary(words, network.text.vocab_size)
        self._preprocessing = network.visual.preprocess_cfg
        self._logit_scale = float(network.logit_scale.detach().exp())
        bias = getattr(network, "logit_bias", None)
        self._logit_bias = None if bias is None else float(bias.detach())
        return network

    def _preparation(self) -> Preparation:
        given = self._preprocessing
        size = given["size"]
        height, width = (size, size) if isinstance(size, int) else size
        method = Image.Resampling[str(given["interpolation"]).upper()]
        return Preparation(height, width, method, tuple(given["mean"]), tuple(given["std"]))

    def _encode(self, batch: Any) -> Any:
        return self._network.encode_image(batch)

    def _shed(self) -> None:
        self._network.visual = None

    def _embed_text(self, texts: Sequence[str]) -> Batch:
        import torch

        with torch.inference_mode():
            tokens = self._tokenizer(list(texts)).to(self._device)
            return np.asarray(unit(self._network.encode_text(tokens)).cpu().numpy(), np.float32)

    def _probe(self) -> Batch:
        words = self._embed_text(["a photo of two red apples on a table", "night"])
        return np.concatenate([super()._probe(), words])


def _check_text(text: str) -> None:
    if not text.strip():
        raise InvalidInput("the text is empty", "text")
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"the text is longer than {MAX_TEXT} characters", "text")
    if not all(char.isprintable() or char.isspace() for char in text):
        raise InvalidInput("the text has control characters", "text")


def open_network(folder: Path, load_weights: bool, device: str = "cpu") -> Any:
    """The network described by a folder's `open_clip_config.json`, with or without the weights
    beside it."""
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
