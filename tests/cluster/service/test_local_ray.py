from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.service import local_ray
from cluster.service.local_ray import object_store_bytes, start_ray


class FakeRayInit:
    """Stand-in for `ray.init`: each call raises the next given exception, or succeeds for None.

    Ray itself takes half a minute to time out.
    """

    def __init__(self, *raised: Exception | None) -> None:
        self.raised = list(raised)

    def __call__(self, **_: Any) -> None:
        if (failure := self.raised.pop(0)) is not None:
            raise failure


def starting(monkeypatch: pytest.MonkeyPatch, *raised: Exception | None) -> FakeRayInit:
    starts = FakeRayInit(*raised)
    monkeypatch.setattr(local_ray.ray, "init", starts)
    context = SimpleNamespace(gcs_address="127.0.0.1:1")
    monkeypatch.setattr(local_ray.ray, "get_runtime_context", lambda: context)
    return starts


def test_a_start_that_took_too_long_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Exception("The current node timed out during startup. This could happen because …")
    starts = starting(monkeypatch, late, None)
    assert start_ray("/tmp/nowhere") == "127.0.0.1:1"
    assert not starts.raised
    starting(monkeypatch, late, late)
    with pytest.raises(Exception, match="timed out during startup"):
        start_ray("/tmp/nowhere")


def test_any_other_failure_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = starting(monkeypatch, ValueError("no room"), None)
    with pytest.raises(ValueError, match="no room"):
        start_ray("/tmp/nowhere")
    assert len(starts.raised) == 1


def test_the_object_store_grows_with_the_cores_within_what_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = []
    for count in (1, 2, 16, 1000):
        monkeypatch.setattr(local_ray, "cores", lambda count=count: count)
        monkeypatch.setattr(local_ray, "SHARED_MEMORY", tmp_path / "none")
        free = SimpleNamespace(available=100 * 2**30)
        monkeypatch.setattr(local_ray.psutil, "virtual_memory", lambda free=free: free)
        sizes.append(object_store_bytes() / 2**20)
    assert sizes == [256, 256, 2048, 4096]
    monkeypatch.setattr(
        local_ray.psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * 2**30)
    )
    assert object_store_bytes() == 2**30
