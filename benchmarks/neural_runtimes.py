"""The published networks on one core under several runtimes.

    python benchmarks/neural_runtimes.py

torch as it is and compiled with frozen weights, and OpenVINO as extractors run it, each in float32
and bfloat16; torch with channels_last; onnxruntime, measured where `onnx`, `onnxscript` and
`onnxruntime` are installed. Random weights; batches of 1 and 8; the median of processor time over
ROUNDS passes, in each of which all runtimes take turns; ratios to torch in float32, and the lowest
cosine to it over a batch.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.neural import MODELS
from models.compiled import compiled as compiled_by_openvino
from models.neural import NeuralExtractor
from models.registry import make_extractor

ROUNDS = int(os.environ.get("ROUNDS", "7"))
BATCHES = (1, 8)
SIDES = {"copy (SSCD ResNet-50)": 320}

Batch = npt.NDArray[np.float32]
Run = Callable[[Batch], Batch]


class Encoder(torch.nn.Module):
    """A network as its extractor runs it."""

    def __init__(self, extractor: NeuralExtractor) -> None:
        super().__init__()
        self.network = extractor._network
        self._encode = [extractor._encode]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._encode[0](batch)
        return features


def eager(encoder: Encoder, _: Batch) -> Run:
    return lambda batch: encoder(torch.from_numpy(batch)).numpy()


def eager_bfloat16(encoder: Encoder, _: Batch) -> Run:
    return lambda batch: encoder(torch.from_numpy(batch).bfloat16()).float().numpy()


def channels_last(encoder: Encoder, _: Batch) -> Run:
    encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(batch: Batch) -> Batch:
        given = torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)
        features: Batch = encoder(given).numpy()
        return features

    return run


def compiled(encoder: Encoder, _: Batch) -> Run:
    fast = frozen(encoder)
    return lambda batch: fast(torch.from_numpy(batch)).numpy()


def compiled_bfloat16(encoder: Encoder, _: Batch) -> Run:
    fast = frozen(encoder)
    return lambda batch: fast(torch.from_numpy(batch).bfloat16()).float().numpy()


def frozen(encoder: Encoder) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch._inductor.config as inductor

    inductor.freezing = True
    fast: Callable[[torch.Tensor], torch.Tensor] = torch.compile(encoder, dynamic=False)
    return fast


def onnx_bytes(encoder: Encoder, example: Batch) -> bytes:
    program = torch.onnx.export(
        encoder,
        (torch.from_numpy(example),),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
    )
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    return file.getvalue()


def onnxruntime(encoder: Encoder, example: Batch) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(onnx_bytes(encoder, np.repeat(example[:1], 2, 0)), options)
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def openvino(precision: str, encoder: Encoder, example: Batch) -> Run:
    given = torch.from_numpy(np.repeat(example[:1], 2, 0))
    return compiled_by_openvino(encoder, encoder, given, precision, 1, 1)


RUNTIMES: dict[str, Callable[[Encoder, Batch], Run]] = {
    "torch": eager,
    "torch, channels_last": channels_last,
    "torch.compile": compiled,
    "onnxruntime": onnxruntime,
    "OpenVINO": partial(openvino, "float32"),
    "torch, bfloat16": eager_bfloat16,
    "torch.compile, bfloat16": compiled_bfloat16,
    "OpenVINO, bfloat16": partial(openvino, "bfloat16"),
}
OF_BFLOAT16 = eager_bfloat16, compiled_bfloat16
"""Those that take a network in bfloat16, as the service does where the hardware computes in it."""


def runs_of(load: Callable[[str], Encoder], example: Batch) -> Iterator[tuple[str, Run]]:
    """The runtimes that are installed and take this network."""
    for name, make in RUNTIMES.items():
        try:
            run = make(load("bfloat16" if make in OF_BFLOAT16 else "float32"), example)
            run(example)
        except Exception as exc:  # noqa: BLE001 (the table says so)
            print(
                f"  {name}: {type(exc).__name__}: {str(exc).splitlines()[0][:150]}", file=sys.stderr
            )
        else:
            yield name, run


def encoder_of(method: str, options: Mapping[str, Any], precision: str) -> Encoder:
    extractor = make_extractor(method, {**options, "precision": precision, "runtime": "torch"})
    assert isinstance(extractor, NeuralExtractor)
    extractor.load()
    assert extractor.precision == precision
    return Encoder(extractor).eval()


def lowest_cosine(some: Batch, exact: Batch) -> float:
    lengths = np.linalg.norm(some, axis=1) * np.linalg.norm(exact, axis=1)
    return float(((some * exact).sum(axis=1) / lengths).min())


def main() -> None:
    torch.set_num_threads(1)
    print("| network | batch | runtime | ms a picture | times torch | lowest cosine |")
    print("|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for name, (method, written) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            load = partial(encoder_of, method, written(Path(folder)))
            side = SIDES.get(name, 224)
            for size in BATCHES:
                batch = rng.standard_normal((size, 3, side, side)).astype(np.float32)
                with torch.no_grad():
                    runs = dict(runs_of(load, batch))
                    seconds: dict[str, list[float]] = {one: [] for one in runs}
                    for _ in range(ROUNDS):
                        for one, run in runs.items():
                            began = time.process_time()
                            run(batch)
                            seconds[one].append(time.process_time() - began)
                    exact = runs["torch"](batch)
                    base = statistics.median(seconds["torch"])
                    for one, run in runs.items():
                        middle = statistics.median(seconds[one])
                        print(
                            f"| {name} | {size} | {one} | {middle / size * 1e3:.0f} "
                            f"| {base / middle:.2f} | {lowest_cosine(run(batch), exact):.5f} |",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
