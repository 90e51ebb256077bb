"""Tags of the scene: indoor or outdoor, the place, and attributes such as "natural light".

Zhou et al., "Places: A 10 Million Image Database for Scene Recognition", 2017; attributes from
Patterson & Hays, "SUN Attribute Database", 2012. The networks, their input and the rules that turn
outputs into words are those of the authors' `run_placesCNN_basic.py` and
`run_placesCNN_unified.py`.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from models.annotator import Annotation, Annotator
from models.errors import RetrieverUnavailable
from models.neural import import_torchvision
from models.types import Options, Pixels, View
from models.weights import REPLACE, UrlWeights, Weights, broken

Floats = npt.NDArray[np.float32]

MODELS = "http://places2.csail.mit.edu/models_places365"
LABELS = (
    "https://raw.githubusercontent.com/CSAILVision/places365/"
    "06218620d593de09ac4f9f39b72ea0d175990a24"
)
RESNET50 = "resnet50_places365.pth.tar"
WIDERESNET18 = "wideresnet18_places365.pth.tar"
ATTRIBUTE_WEIGHTS = "W_sceneattribute_wideresnet18.npy"
CATEGORIES = "categories_places365.txt"
OUTDOOR = "IO_places365.txt"
ATTRIBUTES = "labels_sunattribute.txt"
PUBLISHED = {
    f"{MODELS}/{RESNET50}": "46529c86902bd0cfb0ea562a30b2850c28d2620d96282b3db9c318e1d774f6c5",
    f"{MODELS}/{WIDERESNET18}": None,
    f"{MODELS}/{ATTRIBUTE_WEIGHTS}": None,
    f"{LABELS}/{CATEGORIES}": "2affba635eb657e7ca95f4e6cc69bd9fac29ef4c32aeb83cafdfcd06ec6a1ea6",
    f"{LABELS}/{OUTDOOR}": "0a65ceb7264413a15bb069a87be7ecf9ebb572a6803d48de2827a1d25fe287ba",
    f"{LABELS}/{ATTRIBUTES}": "afc7fe63101c8e3caecfe93c7dffc3d2c9736e25c5b69457a7acc8fde84aa3f2",
}
"""SHA-256 by URL. No hashes are published for the two files of wideresnet18. Both are read as bare
arrays and tensors, so a forged file can cause wrong tags and nothing worse."""

VOTERS = 10
"""Number of top categories that vote whether the picture was taken indoors or outdoors."""
WIDTH = 512
"""Width of wideresnet18's pooled features."""
BROKEN = (
    *(OSError, EOFError, ValueError, RuntimeError, KeyError, TypeError, AttributeError),
    pickle.UnpicklingError,
)
"""Exceptions that NumPy and torch raise for broken files, or for files of another network."""
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


class Places365Options(Options):
    folder: str | None = Field(None, exclude=True)
    """Folder with the six files under their published names; by default they lie in torch hub's
    cache. Excluded from the dump, and so from the fingerprint, because the hash of the files
    identifies them."""
    min_probability: float = Field(0.2, ge=0, le=1)
    """Probability above which a category becomes a tag."""
    min_response: float = 0.0
    """Response above which an attribute becomes a tag. The number of such tags is not limited."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of the networks' outputs."""

    categories: tuple[str, ...]
    outdoor: npt.NDArray[np.bool_]
    """Whether each category is outdoors, (categories,) bool."""
    attributes: tuple[str, ...]

    @classmethod
    def read(cls, categories: Path, outdoor: Path, attributes: Path) -> Labels:
        """Read the labels from the published files, with lines such as `/a/abbey 0`, `/a/abbey 2`
        (1 indoor, 2 outdoor) and `boating`."""
        return cls(
            tuple(readable(line.split()[0]) for line in _lines(categories)),
            np.array([line.split()[-1] == "2" for line in _lines(outdoor)]),
            tuple(_lines(attributes)),
        )

    def check(self, attributes: npt.NDArray[Any]) -> None:
        """Raise RetrieverUnavailable if the files and the (attributes, d) weights disagree."""
        counts = [
            (OUTDOOR, len(self.outdoor), CATEGORIES, len(self.categories)),
            (ATTRIBUTE_WEIGHTS, len(attributes), ATTRIBUTES, len(self.attributes)),
        ]
        for name, count, other, expected in counts:
            if count != expected:
                raise RetrieverUnavailable(f"{name} has {count} rows, {other} {expected}")
        if attributes.shape[1:] != (WIDTH,):
            raise RetrieverUnavailable(
                f"{ATTRIBUTE_WEIGHTS} is {attributes.shape}, not (n, {WIDTH})"
            )


class Places365(Annotator):
    """Annotator whose `tags` are: indoor or outdoor; categories, likeliest first; attributes,
    strongest first.

    `details` has `categories` and `attributes` by name, with their probability and response.
    """

    Config: ClassVar[type[Options]] = Places365Options
    view: ClassVar[View] = "preview"
    uses_gpu = True
    batch = 8
    options: Places365Options

    def weights(self) -> Sequence[Weights]:
        folder = self.options.folder
        names = {url: url.rpartition("/")[2] for url in PUBLISHED}
        return [
            UrlWeights(name, url, PUBLISHED[url], None if folder is None else f"{folder}/{name}")
            for url, name in names.items()
        ]

    def load(self) -> None:
        """Load both networks. Raises RetrieverUnavailable where a file is broken or does not match
        the others."""
        super().load()
        try:
            self._read()
        except ImportError as exc:
            raise RetrieverUnavailable(f"{exc}: install ambience[neural]") from exc
        except BROKEN as exc:
            raise RetrieverUnavailable(
                f"places365 can't be loaded ({broken(exc)}); {REPLACE}"
            ) from exc

    def _read(self) -> None:
        import torch

        files = self.files
        self._labels = Labels.read(files[CATEGORIES], files[OUTDOOR], files[ATTRIBUTES])
        attributes = np.load(files[ATTRIBUTE_WEIGHTS], allow_pickle=False)
        self._labels.check(attributes)
        self._attributes = attributes.astype(np.float32)
        resnet50 = make_resnet50(len(self._labels.categories))
        wideresnet18 = make_wideresnet18(len(self._labels.categories))
        for network, name in ((resnet50, RESNET50), (wideresnet18, WIDERESNET18)):
            network.load_state_dict(published_state(files[name]), assign=True)
        wideresnet18.fc = torch.nn.Identity()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(self.device)
        self._resnet50 = resnet50.to(self._device).eval()
        self._wideresnet18 = wideresnet18.to(self._device).eval()

    def annotate(self, pixels: Pixels) -> Annotation:
        return self.annotate_many([pixels])[0]

    def annotate_many(self, pixels: Sequence[Pixels]) -> list[Annotation]:
        """Tags of several RGB pictures; each network runs once."""
        if not pixels:
            return []
        probabilities = self.probabilities(pixels)
        responses = self.responses(pixels)
        return [self._described(*row) for row in zip(probabilities, responses, strict=True)]

    def probabilities(self, pixels: Sequence[Pixels]) -> Floats:
        """Category probabilities (n, categories) of n RGB pictures: ResNet-50 on the centre crop,
        224 of 256 pixels."""
        logits = self._run(self._resnet50, [normalised(one, 256, 224) for one in pixels])
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)

    def responses(self, pixels: Sequence[Pixels]) -> Floats:
        """Attribute responses (n, attributes) of n RGB pictures: wideresnet18's pooled features
        times the published matrix W."""
        pooled = self._run(self._wideresnet18, [normalised(one, 224, 224) for one in pixels])
        return np.asarray(pooled @ self._attributes.T, np.float32)

    def _described(self, probabilities: Floats, responses: Floats) -> Annotation:
        options = self.options
        return describe(
            probabilities, responses, self._labels, options.min_probability, options.min_response
        )

    def _run(self, network: Any, inputs: Sequence[Floats]) -> Floats:
        import torch

        with torch.inference_mode():
            output = network(torch.from_numpy(np.stack(inputs)).to(self._device))
        return np.asarray(output.float().cpu().numpy(), np.float32)


def describe(
    probabilities: Floats,
    responses: Floats,
    labels: Labels,
    min_probability: float,
    min_response: float,
) -> Annotation:
    """The annotation for one picture's probabilities (categories,) and responses (attributes,)."""
    likeliest = np.argsort(-probabilities, kind="stable")
    outside = float(labels.outdoor[likeliest[:VOTERS]].mean()) >= 0.5
    categories = {
        labels.categories[at]: round(float(probabilities[at]), 4)
        for at in likeliest
        if probabilities[at] > min_probability
    }
    attributes = {
        labels.attributes[at]: round(float(responses[at]), 4)
        for at in np.argsort(-responses, kind="stable")
        if responses[at] > min_response
    }
    tags = ("outdoor" if outside else "indoor", *categories, *attributes)
    return Annotation(
        tags=tuple(dict.fromkeys(tags)),
        details={"categories": categories, "attributes": attributes},
    )


def readable(category: str) -> str:
    """The label as words: `/a/airport_terminal` → `airport terminal`, `/c/church/indoor` → `church
    indoor`."""
    return category[3:].replace("_", " ").replace("/", " ")


def normalised(pixels: Pixels, size: int, crop: int) -> Floats:
    """Network input (3, crop, crop): the RGB picture squashed to size × size, centre-cropped,
    normalised as for ImageNet."""
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    edge = (size - crop) // 2
    middle = np.asarray(image, np.float32)[edge : edge + crop, edge : edge + crop]
    return np.ascontiguousarray(((middle / 255 - MEAN) / DEVIATION).transpose(2, 0, 1))


def make_resnet50(categories: int) -> Any:
    """ResNet-50 without weights: its parameters are on the meta device."""
    import_torchvision()
    import torch
    from torchvision.models import resnet50

    with torch.device("meta"):
        return resnet50(num_classes=categories)


def make_wideresnet18(categories: int) -> Any:
    """ResNet-18 without max pooling, which gives 14×14 features; its parameters are on the meta
    device."""
    import_torchvision()
    import torch
    from torchvision.models import resnet18

    with torch.device("meta"):
        network = resnet18(num_classes=categories)
    network.maxpool = torch.nn.Identity()
    return network


def published_state(path: Path) -> dict[str, Any]:
    """The `state_dict` of a training checkpoint, without the `module.` prefix that DataParallel
    adds.

    Raises KeyError where there is none, and UnpicklingError where the file holds more than tensors.
    """
    import torch

    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = checkpoint["state_dict"]
    return {name.removeprefix("module."): value for name, value in state.items()}


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


ANNOTATOR = Places365
