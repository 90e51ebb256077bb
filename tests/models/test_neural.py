"""Precision by hardware, checked when a model loads; and what needs no model."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models import neural
from models.compiled import compiled
from models.errors import RetrieverUnavailable
from models.neural import (
    NeuralExtractor,
    NeuralOptions,
    Precision,
    fast_precision,
)
from models.preparation import Preparation
from models.types import Pixels

CPUINFO = "processor\t: 0\nmodel name\t: A\nflags\t\t: fpu sse2 avx512f {}\nbugs\t\t: amx_bf16\n"


class Means(NeuralExtractor):
    """Extracts the means of the three channels, after adding and subtracting `offset`.

    Low precisions lose what is small beside the offset.
    """

    class Config(NeuralOptions):
        offset: float = 0.0

    shape = (3,)
    options: Config

    def _build(self) -> Any:
        import torch

        class Network(torch.nn.Module):
            def __init__(self, offset: float) -> None:
                super().__init__()
                self.offset = torch.nn.Parameter(torch.tensor(offset))

            def forward(self, batch: torch.Tensor) -> torch.Tensor:
                return batch.mean((2, 3)) + self.offset - self.offset

        return Network(self.options.offset)

    def _preparation(self) -> Preparation:
        return Preparation(30, 40, Image.Resampling.BILINEAR, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


def loaded(**options: Any) -> Means:
    extractor = Means(Means.Config(**options))
    extractor.load()
    return extractor


def picture(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("avx2", None), ("avx512_bf16", "bfloat16"), ("amx_tile amx_bf16", "bfloat16")],
)
def test_a_cpu_that_computes_in_bfloat16_says_so_in_its_flags(
    tmp_path: Path, flags: str, precision: Precision | None
) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags))
    assert fast_precision("cpu", tmp_path / "cpuinfo") == precision
    assert fast_precision("cpu", tmp_path / "none") is None


def test_a_lower_precision_is_used_when_it_proves_itself() -> None:
    exact, lower = loaded(precision="float32"), loaded(precision="bfloat16")
    assert (exact.precision, lower.precision) == ("float32", "bfloat16")
    assert lower.extract(picture(1)) @ exact.extract(picture(1)) >= 0.999


def test_a_lower_precision_that_loses_too_much_is_not_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "models.neural"):
        extractor = loaded(runtime="torch", precision="bfloat16", offset=1000.0)
    assert extractor.precision == "float32"
    assert "cosine" in caplog.text
    expected = loaded(runtime="torch", precision="float32", offset=1000.0)
    assert np.array_equal(extractor.extract(picture(2)), expected.extract(picture(2)))


def test_openvino_runs_networks_on_a_cpu_with_the_features_of_torch() -> None:
    extractor, torchs = loaded(), loaded(runtime="torch", precision="float32")
    assert extractor._compiled is not None
    assert extractor._network is None
    assert torchs._compiled is None
    pixels = [picture(seed) for seed in range(11)]
    for one, other in zip(extractor.extract_many(pixels), torchs.extract_many(pixels), strict=True):
        assert one @ other >= 0.999


def test_a_precision_in_which_openvino_loses_too_much_is_not_used(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(*given: Any) -> Any:
        program = compiled(*given)
        return (lambda batch: program(batch)[:, ::-1].copy()) if "bfloat16" in given else program

    monkeypatch.setattr(neural, "compiled", worse)
    with caplog.at_level(logging.WARNING, "models.neural"):
        extractor = loaded(precision="bfloat16")
    assert extractor._compiled is not None
    assert extractor.precision == "float32"
    assert "cosine" in caplog.text
    assert extractor.extract(picture(2)) @ loaded().extract(picture(2)) >= 0.999


@pytest.mark.parametrize("failure", [RuntimeError("No conversion rule"), ImportError("openvino")])
def test_torch_runs_what_openvino_does_not(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = loaded(runtime="torch").extract(picture(3))

    def fail(*_: Any) -> Any:
        raise failure

    monkeypatch.setattr(neural, "compiled", fail)
    extractor = loaded()
    assert extractor._compiled is None
    assert np.array_equal(extractor.extract(picture(3)), expected)


def test_torch_runs_the_network_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural, "free_memory", lambda: neural.SPARE + 1)
    assert loaded()._compiled is None
    monkeypatch.setattr(neural, "free_memory", lambda: neural.SPARE + 100)
    assert loaded()._compiled is not None


def test_pictures_are_prepared_on_the_device_only_if_their_features_are_alike(
    caplog: pytest.LogCaptureFixture,
) -> None:
    extractor = loaded()
    pixels = [picture(seed) for seed in range(5)]
    on_cpu = np.array(extractor.extract_many(pixels))
    reference = extractor._probe()
    extractor._choose_preparation(reference)
    assert extractor._prepares_on_device
    on_device = np.array(extractor.extract_many(pixels))
    assert (on_device * on_cpu).sum(axis=1).min() > 0.9995
    with caplog.at_level(logging.WARNING, "models.neural"):
        extractor._choose_preparation(np.roll(reference, 1, axis=1))
    assert not extractor._prepares_on_device
    assert "prepared on the CPU" in caplog.text


def test_the_number_of_pictures_in_a_pass_is_an_option() -> None:
    extractor, pixels = loaded(batch=2), [picture(seed) for seed in range(5)]
    passes: list[int] = []
    features = extractor._features

    def counted(batch: Any) -> Any:
        passes.append(len(batch))
        return features(batch)

    extractor._features = counted  # type: ignore[method-assign]
    together = extractor.extract_many(pixels)
    assert passes == [2, 2, 1]
    for one, alone in zip(together, pixels, strict=True):
        assert np.allclose(one, loaded().extract(alone), atol=1e-6)
    assert extractor.extract_many([]) == []


def test_how_a_model_runs_is_no_part_of_the_fingerprint() -> None:
    plain = Means(Means.Config()).fingerprint
    assert Means(Means.Config(device="cpu", precision="bfloat16", threads=4)).fingerprint == plain
    assert Means(Means.Config(offset=1.0)).fingerprint != plain


def test_torch_takes_as_many_threads_as_configured() -> None:
    import torch

    loaded(threads=2)
    assert torch.get_num_threads() == 2
    loaded()
    assert torch.get_num_threads() == 1


def test_an_unknown_device_makes_it_unavailable() -> None:
    with pytest.raises(RetrieverUnavailable, match="quantum"):
        loaded(device="quantum")


@pytest.mark.parametrize("device", ["cuda:77", "gpu"])
def test_a_device_that_is_not_there_is_named_with_what_to_write(device: str) -> None:
    with pytest.raises(RetrieverUnavailable, match=f"no device {device} here .*`device: auto`"):
        loaded(device=device)


def test_without_torch_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from models.errors import RetrieverUnavailable\n"
        "from tests.models.test_neural import Means\n"
        "try: Means(Means.Config()).load()\n"
        "except RetrieverUnavailable as exc: print(exc)"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert ran.stdout == "torch is not installed: install ambience[neural]\n", ran.stderr
