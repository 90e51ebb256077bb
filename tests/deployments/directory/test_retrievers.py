"""The directory: what is known from the configuration, and what a hung application costs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from deployments.directory import retrievers
from deployments.directory.entry import DirectoryEntry
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.ingress.searching import RetrieverCall
from deployments.settings import STARTING, PlannedApplication, PlannedApplications
from models.registry import make_extractor
from tests.deployments import served
from tests.deployments.pictures import picture

pytestmark = pytest.mark.anyio
PLANNED = {
    "phash": PlannedApplication(kind="retriever"),
    "global": PlannedApplication(kind="retriever"),
    "text": PlannedApplication(kind="retriever", of_pictures=False),
    "caption": PlannedApplication(kind="annotator"),
}


class Hung:
    """A handle of an application that never answers."""

    def __init__(self) -> None:
        self.calls = 0
        self.describe = self.search = self

    async def remote(self, *_: Any) -> None:
        self.calls += 1
        await asyncio.sleep(60)


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Serve's controller tells, which the test fills."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(retrievers, "applications", lambda: told)
    return told


def application(deployment: str = "Retriever") -> dict[str, Any]:
    return {"deployments": {deployment: {}}, "status": "RUNNING"}


async def test_an_add_wants_what_is_configured_before_it_is_deployed(
    gateway: Gateway, deployed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting = tmp_path / "starting"
    starting.write_bytes(PlannedApplications.dump_json(PLANNED))
    monkeypatch.setenv(STARTING, str(starting))
    deployed["phash"] = application()
    phash = DirectoryEntry("phash", handle=Hung())  # type: ignore[arg-type]
    gateway.directory._entries["phash"] = phash
    monkeypatch.setattr(retrievers, "POLL_SECONDS", 0.01)
    await gateway.directory.refresh()
    phash.description = served.description("phash")
    phash.extractor, phash.unreachable_reason = make_extractor("phash"), None
    assert gateway.directory.wanted() == ["global", "phash"]
    assert "applications" in await gateway.unready()

    added = await gateway.writer.add(7, picture(1), Report())
    states = {name: outcome.state for name, outcome in added.retrievers.items()}
    assert states == {"phash": "indexed", "global": "pending"}
    image = gateway.store.image(7)
    assert image is not None
    assert image.wanted == {"phash", "global", "annotate:caption"}

    starting.unlink()
    for name in ("global", "text"):
        deployed[name] = application()
        gateway.directory._entries[name].handle = Hung()  # type: ignore[assignment]
    await gateway.directory.refresh()
    assert gateway.directory.annotators() == []
    assert "applications" not in await gateway.unready()


async def test_a_search_does_not_ask_a_retriever_that_is_known_not_to_answer(
    gateway: Gateway,
) -> None:
    hung = Hung()
    entry = DirectoryEntry("global", handle=hung)  # type: ignore[arg-type]
    entry.unreachable_reason = "its weights are missing"
    gateway.directory._entries["global"] = entry
    report, scope = Report(), await gateway.search_scope()
    lists = await gateway.searcher.search_all([RetrieverCall(entry, {})], scope, report)
    assert lists.hits == [None]
    assert report.missing == {"global": "its weights are missing"}
    assert hung.calls == 0


async def test_an_application_that_hangs_delays_no_look_at_the_others(
    gateway: Gateway, deployed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrievers, "POLL_SECONDS", 0.05)
    hung = Hung()
    deployed["global"] = application()
    gateway.directory._entries["global"] = DirectoryEntry("global", handle=hung)  # type: ignore[arg-type]
    began = time.monotonic()
    for _ in range(5):
        await gateway.directory.refresh()
    assert time.monotonic() - began < retrievers.DESCRIBE_SECONDS
    assert hung.calls == 1
