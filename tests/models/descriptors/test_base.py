"""Quantising descriptors that have signs, and loading the networks that make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes.local.descriptors import unit
from models.descriptors.base import load_weights, quantise
from models.errors import RetrieverUnavailable


def units(kind: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(2000, 128)).astype(np.float32)
    if kind == "peaked":
        raw[:, 0] += 40 * rng.choice([-1, 1], 2000)
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("kind", ["even", "peaked"])
def test_quantised_descriptors_point_where_they_did(kind: str) -> None:
    descriptors = units(kind)
    quantised = quantise(descriptors)
    assert quantised.dtype == np.int8
    assert (unit(quantised) * descriptors).sum(axis=1).min() > 0.999


def test_distances_survive_quantising() -> None:
    descriptors = units("even")
    before = 2 - 2 * descriptors[:500] @ descriptors[500:].T
    after = 2 - 2 * unit(quantise(descriptors[:500])) @ unit(quantise(descriptors[500:])).T
    assert np.abs(before - after).max() < 0.01


def test_no_descriptors_and_descriptors_of_zeros_are_quantised_too() -> None:
    assert quantise(np.empty((0, 128), np.float32)).shape == (0, 128)
    assert not quantise(np.zeros((2, 128), np.float32)).any()


def saved(folder: Path, content: Any) -> Path:
    import torch

    path = folder / "weights.pth"
    torch.save(content, path)
    return path


def layer() -> Any:
    from torch import nn

    return nn.Linear(2, 3)


def test_a_checkpoint_is_loaded_whole_and_for_inference(tmp_path: Path) -> None:
    source, target = layer(), layer()
    load_weights(target, saved(tmp_path, source.state_dict()))
    np.testing.assert_array_equal(target.weight.detach(), source.weight.detach())
    assert not target.training


def test_a_constant_may_be_absent(tmp_path: Path) -> None:
    state = layer().state_dict()
    del state["bias"]
    load_weights(layer(), saved(tmp_path, state), frozenset({"bias"}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop("bias"), "holds no bias of Linear"),
        (
            lambda state: state.update(extra=state["bias"]),
            "holds extra, which Linear does not have",
        ),
        (lambda state: state.update(bias=state["weight"]), "no weights of Linear.*size mismatch"),
    ],
)
def test_another_models_checkpoint_is_refused(tmp_path: Path, change: Any, reason: str) -> None:
    state = layer().state_dict()
    change(state)
    with pytest.raises(RetrieverUnavailable, match=f"(?s){reason}"):
        load_weights(layer(), saved(tmp_path, state))


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path, layer().state_dict()).read_bytes()
    for name, content in {
        "cut": whole[: len(whole) // 2],
        "text": b"not found",
        "none": b"",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(RetrieverUnavailable, match=name):
            load_weights(layer(), path)
    with pytest.raises(RetrieverUnavailable, match="dict"):
        load_weights(layer(), saved(tmp_path, [1, 2]))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RetrieverUnavailable, match="holds no weights"):
        load_weights(layer(), saved(tmp_path, {"weight": Path("x")}))
