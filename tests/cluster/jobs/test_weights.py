"""Which weights a config needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.jobs.weights import needed_weights


def test_descriptors_next_models_and_matchers_are_among_the_needed_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    args: dict[str, Any] = {"extractor": "local", "index": {"lightglue": {}}}
    args["next"] = {"extractor": "local", "options": {"descriptor": "xfeat"}}
    builder = "deployments.app:build_retriever"
    config = {"applications": [{"name": "local", "import_path": builder, "args": args}]}
    needed = list(needed_weights(config, fetch=False))
    assert [one.source.rpartition("/")[2] for one in needed] == ["sift_lightglue.pth", "xfeat.pt"]
    for one in needed:
        assert one.application == "local"
        assert one.reason is not None
        assert "weights fetch" in one.reason
