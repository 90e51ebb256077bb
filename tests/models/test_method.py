"""What extractors and annotators share: finding weights once, and fingerprints of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from models.errors import RetrieverUnavailable
from models.method import Method
from models.types import Options
from models.weights import HubWeights, Weights


class Weighted(Method):
    class Config(Options):
        folder: str
        gain: int = 1

    view = "preview"
    options: Config

    def weights(self) -> Sequence[Weights]:
        return [HubWeights("model", self.options.folder, "main", ("*.json", "*.bin"))]


class Plain(Method):
    view = "preview"


def weighted(folder: Path, gain: int = 1) -> Weighted:
    return Weighted(Weighted.Config(folder=str(folder), gain=gain))


def test_a_method_without_weights_has_a_fingerprint_at_once() -> None:
    assert len(Plain(Options()).fingerprint) == 16
    assert Plain(Options()).fingerprint == Plain(Options()).fingerprint


def test_there_is_no_fingerprint_until_the_weights_are_there(tmp_path: Path) -> None:
    method = weighted(tmp_path)
    with pytest.raises(RetrieverUnavailable, match="holds no whole"):
        method.fingerprint  # noqa: B018
    with pytest.raises(RetrieverUnavailable, match="holds no whole"):
        method.load()
    (tmp_path / "model.bin").write_bytes(b"weights")
    method.load()
    assert method.fingerprint == weighted(tmp_path).fingerprint
    assert method.files == {"model": tmp_path}


def test_weights_are_hashed_once_and_anew_only_when_forgotten(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    method = weighted(tmp_path)
    before = method.fingerprint
    (tmp_path / "model.bin").write_bytes(b"other weights")
    assert method.fingerprint == before  # It is that of the weights hashed first.
    method.forget()
    assert method.fingerprint != before


def test_options_and_weights_are_both_in_the_fingerprint(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.bin").write_text(name)
    prints = {
        weighted(tmp_path / "a").fingerprint,
        weighted(tmp_path / "b").fingerprint,
        weighted(tmp_path / "a", gain=2).fingerprint,
    }
    assert len(prints) == 3
