"""Captions by any image-to-text model of transformers; BLIP base by default.

Li et al., "BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language
Understanding and Generation", 2022.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from models.annotator import Annotation, Annotator
from models.errors import RetrieverUnavailable
from models.neural import check_vocabulary, import_torchvision
from models.types import Options, Pixels, View
from models.weights import REPLACE, HubWeights, Weights, broken

FILES = (
    "*.json",
    "*.jinja",
    "*.safetensors",
    "pytorch_model*.bin",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
"""Files to fetch from a repository: configuration, weights, tokenizer; no weights for other
frameworks."""
BROKEN: tuple[type[Exception], ...] = (
    *(OSError, EOFError, ValueError, RuntimeError, LookupError, TypeError, AttributeError),
    pickle.UnpicklingError,
)
"""Exceptions that transformers and torch raise for broken files, or for files of another kind of
model."""


class CaptionOptions(Options):
    model: str = Field("Salesforce/blip-image-captioning-base", exclude=True)
    """A repository of the hub, or a folder written by `save_pretrained`. Model, revision and
    precision are excluded from the dump, and so from the fingerprint, because the hash of the
    weights identifies them."""
    revision: str = Field("82a37760796d32b1411fe092ab5d4e227313294b", exclude=True)
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", exclude=True)
    prompt: str = "Describe this picture in one sentence."
    """The prompt for models with a chat template; other models ignore it."""
    task: str | None = Field(None, min_length=1, exclude_if=lambda given: given is None)
    """The task token of models that want one, such as Florence-2's `<DETAILED_CAPTION>`."""
    max_new_tokens: int = Field(20, ge=1, le=256)
    num_beams: int = Field(3, ge=1, le=16)
    """The defaults of 20 tokens and 3 beams are those of BLIP's authors."""


class Caption(Annotator):
    """Annotator whose `text` is the caption, without the tokenizer's special tokens."""

    Config: ClassVar[type[Options]] = CaptionOptions
    view: ClassVar[View] = "preview"
    uses_gpu = True
    batch = 2
    """Each picture of a batch costs about 0.3 GB with BLIP base, because every beam keeps its own
    attention cache."""
    options: CaptionOptions

    def weights(self) -> Sequence[Weights]:
        return (HubWeights("model", self.options.model, self.options.revision, FILES),)

    def load(self) -> None:
        """Load the model. Raises RetrieverUnavailable where the files are no image-to-text model of
        transformers.

        Weights are safetensors, or a torch checkpoint that is read with `weights_only`.
        """
        super().load()
        folder = self.files["model"]
        try:
            self._read(folder)
            self._try()
        except ImportError as exc:
            raise RetrieverUnavailable(f"{exc}: install ambience[neural]") from exc
        except BROKEN + _library_errors() as exc:
            raise RetrieverUnavailable(
                f"{folder} holds no image-to-text model that captions with these options "
                f"({broken(exc)}); {REPLACE}, or give the `task` that the model wants"
            ) from exc

    def _read(self, folder: Path) -> None:
        import_torchvision()
        import torch
        import transformers

        auto: Any = transformers
        device, dtype = _placement(self.options.precision)
        self._processor = auto.AutoImageProcessor.from_pretrained(folder)
        self._tokenizer = auto.AutoTokenizer.from_pretrained(folder, padding_side="left")
        whole = auto.AutoProcessor.from_pretrained(folder, padding_side="left")
        model = auto.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, weights_only=True
        )
        check_vocabulary(self._tokenizer, model.config.get_text_config(decoder=True).vocab_size)
        self._asked = whole
        self._chats = self.options.task is None and bool(getattr(whole, "chat_template", None))
        self._repeats_prompt = not model.config.is_encoder_decoder
        self._model, self.device = model.to(device).eval(), str(device)
        self._inference = torch.inference_mode

    def annotate(self, pixels: Pixels) -> Annotation:
        return self.annotate_many([pixels])[0]

    def annotate_many(self, pixels: Sequence[Pixels]) -> list[Annotation]:
        """Captions of several RGB pictures, from one call of `generate`."""
        return self._captions(pixels, self.options.max_new_tokens) if pixels else []

    def _try(self) -> None:
        """Caption a grey picture by one word, because some files and options that do not fit raise
        only then."""
        self._captions([np.full((32, 32, 3), 127, np.uint8)], 1)

    def _captions(self, pixels: Sequence[Pixels], max_new_tokens: int) -> list[Annotation]:
        inputs = self._inputs([Image.fromarray(one) for one in pixels])
        with self._inference():
            tokens = self._model.generate(
                **inputs.to(self._model.device, self._model.dtype),
                max_new_tokens=max_new_tokens,
                num_beams=self.options.num_beams,
                do_sample=False,
            )
        asked = self._chats or self.options.task is not None
        answers = (
            tokens[:, inputs["input_ids"].shape[1] :] if asked and self._repeats_prompt else tokens
        )
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [Annotation(text=text.strip()) for text in texts]

    def _inputs(self, images: Sequence[Image.Image]) -> Any:
        if self.options.task is not None:
            texts = [self.options.task] * len(images)
            return self._asked(images=list(images), text=texts, padding=True, return_tensors="pt")
        if not self._chats:
            return self._processor(images=list(images), return_tensors="pt")
        question = {"type": "text", "text": self.options.prompt}
        chats = [
            [{"role": "user", "content": [{"type": "image", "image": image}, question]}]
            for image in images
        ]
        return self._asked.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )


def _library_errors() -> tuple[type[Exception], ...]:
    from jinja2 import TemplateError
    from safetensors import SafetensorError

    return SafetensorError, TemplateError


def _placement(precision: Literal["auto", "float32", "bfloat16"]) -> tuple[Any, Any]:
    """Device and dtype of the model. A GPU is used where there is one, in bfloat16 unless the
    options say otherwise."""
    import torch

    cuda = torch.cuda.is_available()
    wide = precision == "float32" or (precision == "auto" and not cuda)
    return torch.device("cuda" if cuda else "cpu"), torch.float32 if wide else torch.bfloat16


ANNOTATOR = Caption
