"""Global features of a transformers image backbone; by default the mean of BEiT's patch tokens.

Bao et al., "BEiT: BERT Pre-Training of Image Transformers", 2022: base, 16-pixel patches, 224
pixels, pre-trained and fine-tuned on ImageNet-22k.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from models.errors import RetrieverUnavailable
from models.neural import NeuralExtractor, NeuralOptions, import_transformers
from models.preparation import Batch, Preparation
from models.types import Options, Pixels
from models.weights import HubWeights, Weights

LONGEST = 4
"""Maximum aspect ratio: longer pictures are cropped before their short side is resized."""


class BackboneOptions(NeuralOptions):
    """Options of the backbone. Those that name the weights are not part of the fingerprint, because
    the hash of the weights is."""

    model: str = Field("microsoft/beit-base-patch16-224-pt22k-ft22k", exclude=True)
    """A repository of the Hugging Face hub, or a local folder written by `save_pretrained`."""
    revision: str = Field("9da3011", exclude=True)
    pooling: Literal["cls", "mean", "pooler"] | None = Field(
        None, exclude_if=lambda given: given is None
    )
    """How the tokens of the last layer become one vector: the class token, the mean over the patch
    tokens, or the model's own pooler. By default it is the mean, or the pooler where that takes the
    mean."""


class Backbone(NeuralExtractor):
    """Features of one picture: (hidden size,) float32 of unit length; 768 by default.

    By default they are the mean over the patch tokens of the last layer, without class,
    distillation and register tokens. Maps (n, d, height, width) of convolutional backbones are
    averaged over both axes. If the model's own pooler takes that mean (BEiT's `use_mean_pooling`),
    the features are the pooler's output, that is, LayerNorm of the mean, because the model was
    trained to classify by it. `pooling` chooses otherwise.
    """

    Config: ClassVar[type[Options]] = BackboneOptions
    shape = (768,)
    additive = True
    options: BackboneOptions

    def weights(self) -> Sequence[Weights]:
        files = ("config.json", "preprocessor_config.json")
        kinds = ("model.safetensors", "model-*.safetensors", "pytorch_model*.bin")
        return [HubWeights("model", self.options.model, self.options.revision, files + kinds)]

    def _build(self) -> Any:
        folder = self.files["model"]
        transformers = import_transformers()
        self._processor = transformers.AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True
        )
        network, report = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, dtype="float32", output_loading_info=True
        )
        pooling = self.options.pooling
        self._pools = pooling == "pooler" or (pooling is None and pools_by_mean(network))
        unused = () if self._pools else ("pooler.",)
        missing = [name for name in report["missing_keys"] if not name.startswith(unused)]
        if missing:
            raise ValueError(f"the weights lack {', '.join(sorted(missing)[:3])}")
        return network

    def _preparation(self) -> Preparation | None:
        """None for processors that do more than to squash the picture and to normalise it."""
        processor, size = self._processor, self._processor.size
        steps = ("do_resize", "do_rescale", "do_normalize")
        others = ("do_center_crop", "do_pad", "do_flip_channel_order")
        squashes = size.get("height") and size.get("width")
        if not squashes or not all(getattr(processor, one, False) for one in steps):
            return None
        if any(getattr(processor, one, False) for one in others):
            return None
        to_one = processor.rescale_factor * 255
        return Preparation(
            size["height"],
            size["width"],
            Image.Resampling(processor.resample),
            tuple(mean / to_one for mean in processor.image_mean),
            tuple(std / to_one for std in processor.image_std),
        )

    def _prepare(self, pixels: Pixels) -> Batch:
        if self._processor.size.get("shortest_edge"):
            pixels = _crop_centre(pixels)
        prepared = self._processor([pixels], input_data_format="channels_last", return_tensors="np")
        return np.asarray(prepared["pixel_values"][0], np.float32)

    def _encode(self, batch: Any) -> Any:
        output = self._network(pixel_values=batch)
        if self._pools:
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                raise RetrieverUnavailable("`pooling: pooler`: this model has no pooler")
            return pooled.flatten(1)
        tokens = output.last_hidden_state
        if tokens.ndim == 4:
            self._check_class_token(0)
            return tokens.mean((2, 3))
        patch = getattr(self._network.config, "patch_size", None)
        height, width = np.array(batch.shape[2:]) // np.array(patch or batch.shape[1])
        # Backbones that merge patches have fewer tokens at the end, and no class token.
        others = max(tokens.shape[1] - int(height * width), 0)
        self._check_class_token(others)
        return tokens[:, 0] if self.options.pooling == "cls" else tokens[:, others:].mean(1)

    def _check_class_token(self, others: int) -> None:
        """Check the number of tokens that are no patches."""
        if self.options.pooling == "cls" and not others:
            raise RetrieverUnavailable("`pooling: cls`: this model has no class token")


def architecture(folder: Path) -> Any:
    """The network described by a folder's `config.json`, without its weights."""
    transformers = import_transformers()
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    return transformers.AutoModel.from_config(config)


def pools_by_mean(network: Any) -> bool:
    """Whether the model's own pooler takes the mean of the patch tokens."""
    pools = getattr(network.config, "use_mean_pooling", False)
    return bool(pools) and getattr(network, "pooler", None) is not None


def _crop_centre(pixels: Pixels) -> Pixels:
    """Crop a very long picture to its centre: resizing its short side to 224 could take 500 MB."""
    limit = LONGEST * min(pixels.shape[:2])
    top, left = (max(side - limit, 0) // 2 for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + limit, left : left + limit])


EXTRACTOR = Backbone
