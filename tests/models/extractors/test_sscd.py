"""Copy-detection features: both published file formats, and the published architecture."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import RetrieverUnavailable
from models.extractors.sscd import MEAN, SHA256, STD, URL, Sscd, architecture
from models.neural import import_torchvision
from models.registry import make_extractor
from models.types import Pixels


def picture(seed: int, height: int = 90, width: int = 140) -> Pixels:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def network() -> Any:
    """A network with random weights and the batch normalisation statistics of a trained one."""
    import torch

    torch.manual_seed(1)
    network = architecture()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # A cumulative mean over all batches.
    with torch.inference_mode():
        for _ in range(2):
            network.train()(torch.randn(2, 3, 64, 64))
    return network.eval()


@pytest.fixture(scope="module")
def state_dict(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    path = tmp_path_factory.mktemp("sscd") / "sscd_disc_mixup.torchvision.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def torchscript(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as the authors publish it, with the normalisation inside."""
    import torch

    class Published(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = network

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(self.model(batch))

    path = tmp_path_factory.mktemp("sscd") / "sscd_disc_mixup.torchscript.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jit: Any = torch.jit
        jit.trace(Published().eval(), torch.zeros(1, 3, 64, 64)).save(path)
    return path


def loaded(path: Path, **options: Any) -> Sscd:
    """Load in float32 by default: on some processors the extractor's default is bfloat16."""
    extractor = make_extractor(
        "sscd", {"path": str(path), "size": 64, "precision": "float32", **options}
    )
    assert isinstance(extractor, Sscd)
    extractor.load()
    return extractor


def test_both_formats_give_the_features_of_the_network(
    network: Any, state_dict: Path, torchscript: Path
) -> None:
    import torch

    transforms = import_torchvision().transforms
    look = transforms.Compose(
        [transforms.Resize([64, 64]), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    pixels = picture(1)
    with torch.inference_mode():
        expected = network(look(Image.fromarray(pixels))[None])[0].numpy()
    expected /= np.linalg.norm(expected)
    for path in (state_dict, torchscript):
        features = loaded(path).extract(pixels)
        assert features.shape == (512,)
        assert features.dtype == np.float32
        assert np.allclose(features, expected, atol=1e-5)


def test_pictures_differ_and_a_copy_is_nearer_than_another(state_dict: Path) -> None:
    extractor = loaded(state_dict)
    original, other = picture(2), picture(3)
    smaller = np.asarray(Image.fromarray(original).resize((70, 45)))
    features = np.stack(extractor.extract_many([original, smaller, other]))
    nearness = features @ features[0]
    assert nearness[0] == pytest.approx(1, abs=1e-5)
    assert nearness[1] > nearness[2]
    assert np.allclose(features[1], extractor.extract(smaller), atol=1e-5)


def test_pooling_is_the_generalised_mean_of_power_3() -> None:
    import torch

    maps = torch.tensor([[[[1.0, 2.0], [3.0, -4.0]], [[2.0, 2.0], [2.0, 2.0]]]])
    pooled = architecture().backbone.avgpool(maps)
    assert np.allclose(pooled, [[((1 + 8 + 27) / 4) ** (1 / 3), 2]])


def test_the_input_size_changes_the_fingerprint_and_the_path_does_not(
    state_dict: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(state_dict.read_bytes())
    first = make_extractor("sscd", {"path": str(state_dict)}).fingerprint
    assert make_extractor("sscd", {"path": str(copy)}).fingerprint == first
    assert make_extractor("sscd", {"path": str(copy), "size": 288}).fingerprint != first


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no weights")
    for name in ("other.pt", "text.pt"):
        with pytest.raises(RetrieverUnavailable, match="no weights for this architecture"):
            loaded(tmp_path / name)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RetrieverUnavailable, match="no weights for this architecture"):
        loaded(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_the_architecture_has_the_published_names_and_shapes() -> None:
    import torch

    import_torchvision()
    import timm

    with torch.device("meta"):
        network = architecture()
        # An independent ResNet-50 whose parameters have torchvision's names.
        other = timm.create_model("resnet50", num_classes=512)
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    expected = {
        f"backbone.{name}": tuple(weight.shape) for name, weight in other.state_dict().items()
    }
    assert shapes == expected
    assert sum(weight.numel() for weight in network.parameters()) == 24_557_120
    assert shapes["backbone.fc.weight"] == (512, 2048)
    assert shapes["backbone.layer4.2.conv3.weight"] == (2048, 512, 1, 1)


def test_disc_large_is_a_resnext_101_of_1024_values() -> None:
    import torch

    import_torchvision()
    import timm

    with torch.device("meta"):
        network = architecture(1024, large=True)
        other = timm.create_model("resnext101_32x4d", num_classes=1024)
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    assert shapes == {
        f"backbone.{name}": tuple(weight.shape) for name, weight in other.state_dict().items()
    }


def test_a_file_of_disc_large_or_of_another_width_is_told_by_its_weights(tmp_path: Path) -> None:
    import torch

    for dimensions, large in ((1024, True), (96, False)):
        torch.manual_seed(2)
        weights = architecture(dimensions, large).eval().state_dict()
        torch.save(weights, tmp_path / f"{dimensions}.torchvision.pt")
        extractor = loaded(tmp_path / f"{dimensions}.torchvision.pt")
        features = extractor.extract(picture(1))
        assert features.shape == extractor.shape == (dimensions,)
        assert np.linalg.norm(features) == pytest.approx(1, abs=1e-5)
        unloaded = make_extractor("sscd", {"path": str(tmp_path / f"{dimensions}.torchvision.pt")})
        assert np.array_equal(unloaded.from_row(extractor.to_row(features)), features)


def test_the_default_weights_are_named_by_url_and_hash() -> None:
    (weights,) = make_extractor("sscd").weights()
    assert (weights.url, weights.sha256) == (URL, SHA256)  # type: ignore[union-attr]
    assert URL.endswith("/sscd_disc_mixup.torchscript.pt")
