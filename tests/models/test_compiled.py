"""Networks that OpenVINO runs, against torch."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from models.compiled import Batch, CompiledNetwork, compiled

SIDE = 96


def network() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(3, 32, 7, stride=2),
        nn.GELU(),
        nn.Conv2d(32, 64, 3),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(1024, 16),
    ).eval()


def program(made: Any, precision: str = "float32") -> CompiledNetwork:
    import torch

    return compiled(made, made, torch.zeros(2, 3, SIDE, SIDE), precision, 2, 1)


def pictures(count: int) -> Batch:
    return np.random.default_rng(count).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


def by_torch(made: Any, batch: Batch) -> Batch:
    import torch

    with torch.inference_mode():
        features: Batch = made(torch.from_numpy(batch)).numpy()
        return features


def test_batches_of_any_size_have_the_features_of_torch() -> None:
    made = network()
    run = program(made)
    for count in (1, 2, 5, 8, 1):
        features = run(pictures(count))
        assert features.dtype == np.float32
        assert np.allclose(features, by_torch(made, pictures(count)), atol=1e-4)


def test_a_program_of_torchscript_is_run_too() -> None:
    import torch

    jit: Any = torch.jit
    with pytest.warns(DeprecationWarning, match="script"):
        scripted = jit.script(network())
    assert np.allclose(program(scripted)(pictures(3)), by_torch(network(), pictures(3)), atol=1e-4)


def test_threads_at_once_get_each_its_own_features() -> None:
    made = network()
    run = program(made)
    batches = [pictures(1 + number % 4) for number in range(40)]
    with ThreadPoolExecutor(4) as threads:
        for batch, features in zip(batches, threads.map(run, batches), strict=True):
            assert np.allclose(features, by_torch(made, batch), atol=1e-4)


def test_a_thread_of_lower_priority_computes_for_itself() -> None:
    run, batch = program(network()), pictures(8)

    def own_share() -> float:
        run(batch)
        own, all_ = time.thread_time(), time.process_time()
        for _ in range(20):
            run(batch)
        return (time.thread_time() - own) / (time.process_time() - all_)

    def lowered() -> float:
        number = threading.get_native_id()
        lower = os.getpriority(os.PRIO_PROCESS, number) + 5
        os.setpriority(os.PRIO_PROCESS, number, lower)
        return own_share()

    with ThreadPoolExecutor(1) as thread:
        assert own_share() < 0.5 < thread.submit(lowered).result()
    assert np.allclose(run(batch), by_torch(network(), batch), atol=1e-4)


def test_what_openvino_does_not_know_is_refused() -> None:
    import torch

    class Odd(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, batch: torch.Tensor) -> torch.Tensor:
            return torch.special.i0(batch).mean((2, 3))

    class Network(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> Any:
            return Odd.apply(batch)

    with pytest.raises(Exception, match=r"(?i)convert|operation|conversion"):
        program(Network())
