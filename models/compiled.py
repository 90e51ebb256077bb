"""Networks compiled for a CPU by OpenVINO, up to nine times as fast there as torch runs them
(docs/benchmarks.md)."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Batch = npt.NDArray[np.float32]
HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""OpenVINO's names of precisions."""


class CompiledNetwork:
    """A network from pictures (n, 3, height, width) float32 to features (n, d) float32.

    Several threads may call it at once, and then share its weights. A thread of a lower priority
    than the one that made it computes for itself: what no one waits for must not take the threads
    of searches.
    """

    def __init__(self, model: Any, precision: str, streams: int, threads: int) -> None:
        """`streams` calls run at once, in `threads` threads each."""
        self._model = model
        self._precision = precision
        self._threads = threads
        self._priority = _priority()
        self._program = self._compiled(streams)
        self._requests = threading.local()
        self._in_background = threading.Lock()

    def __call__(self, batch: Batch) -> Batch:
        if _priority() > self._priority:
            with self._in_background:
                return _infer(self._background, batch)
        if not hasattr(self._requests, "own"):
            self._requests.own = self._program.create_infer_request()
        return _infer(self._requests.own, batch)

    @cached_property
    def _background(self) -> Any:
        """A request that computes in the thread that calls it."""
        return self._compiled(0).create_infer_request()

    def _compiled(self, streams: int) -> Any:
        import openvino

        settings = {
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": max(1, streams) * self._threads,
            "INFERENCE_PRECISION_HINT": HINTS[self._precision],
            # Pinned to cores, replicas would share one while others idle.
            "ENABLE_CPU_PINNING": False,
        }
        return openvino.Core().compile_model(self._model, "CPU", settings)


def compiled(
    encode: Callable[[Any], Any],
    network: Any,
    example: Any,
    precision: str,
    streams: int,
    threads: int,
) -> CompiledNetwork:
    """Compile `encode`, which runs a torch network.

    `example` is a tensor (n, 3, height, width); n may be another later. Raises ImportError where
    OpenVINO is not installed, and whatever it raises for a network that it can't read.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, batch: torch.Tensor) -> Any:
            return encode(batch)

    # Not `openvino.convert_model`, which tells its makers of every use.
    frontend: Any = FrontEndManager().load_by_framework("pytorch")
    with torch.no_grad(), warnings.catch_warnings():
        # Traces warn of each number that they fix. What that breaks, the caller's probe shows.
        warnings.simplefilter("ignore")
        decoder = TorchScriptPythonDecoder(Encoder().eval(), example_input=example)
        model = frontend.convert(frontend.load(decoder))
    model.reshape([-1, *example.shape[1:]])
    return CompiledNetwork(model, precision, streams, threads)


def _infer(request: Any, batch: Batch) -> Batch:
    return np.array(request.infer({0: batch})[0], np.float32)


def _priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
