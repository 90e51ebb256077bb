"""A gateway whose retrievers run in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deployments.ingress.gateway import Gateway
from deployments.settings import IngressArgs
from tests.deployments import served

RETRIEVERS = ("phash", "color", "local")


@pytest.fixture
async def copying(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with the retrievers that propose copies."""
    store = f"lmdb:{tmp_path / 'store'}"
    made = Gateway(IngressArgs(store=store), "ambience")
    made.directory.complete = True
    with served.ended():
        for name in RETRIEVERS:
            handle = served.serve_here(name, {"extractor": name, "store": store})
            await served.until(handle, "ready")
            await served.join(made, name, handle)
        try:
            yield made
        finally:
            made.close()
