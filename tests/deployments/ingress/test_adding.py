"""What an add requests and keeps, with a gateway whose directory the test fills."""

from __future__ import annotations

import pytest

from deployments.directory.entry import DirectoryEntry
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.wire import Kind
from indexes.store.base import ANNOTATE, Image, ImageWrite
from models.errors import Unavailable
from models.registry import make_extractor
from models.types import View
from tests.deployments import served
from tests.deployments.pictures import picture

pytestmark = pytest.mark.anyio


def know(gateway: Gateway, name: str, kind: Kind, view: View | None) -> None:
    """Enter an application in the directory; without a view, it has not described itself yet."""
    entry = DirectoryEntry(name, kind)
    if view is not None:
        entry.description = served.description(name, kind, view)
        entry.unreachable_reason = None
    if kind == "retriever":
        entry.extractor = make_extractor(name)
    gateway.directory._entries[name] = entry


async def added(gateway: Gateway) -> Image:
    """Add image 7 with pHash deployed, and return the stored image."""
    know(gateway, "phash", "retriever", "full")
    done = await gateway.writer.add(7, picture(1), Report())
    assert {name: one.row() for name, one in done.retrievers.items()} == {
        "phash": {"state": "indexed"}
    }
    image = gateway.store.image(7)
    assert image is not None
    return image


async def test_every_annotator_is_wanted_and_none_is_waited_for(gateway: Gateway) -> None:
    know(gateway, "caption", "annotator", "preview")
    know(gateway, "ocr", "annotator", None)
    image = await added(gateway)
    assert image.wanted == {"phash", ANNOTATE + "caption", ANNOTATE + "ocr"}
    assert image.pending == {ANNOTATE + "caption", ANNOTATE + "ocr"}


@pytest.mark.parametrize(
    ("view", "kept"), [("preview", False), ("full", True), ("gray", True), (None, True)]
)
async def test_the_original_is_kept_only_for_annotators_that_need_it(
    gateway: Gateway, view: View | None, kept: bool
) -> None:
    know(gateway, "caption", "annotator", view)
    image = await added(gateway)
    assert image.has_preview
    assert image.has_original == kept


async def test_without_previews_every_annotator_needs_the_original(gateway: Gateway) -> None:
    gateway.writer.previews = False
    know(gateway, "caption", "annotator", "preview")
    assert (await added(gateway)).has_original


async def test_the_same_picture_again_asks_for_annotators_that_are_new(gateway: Gateway) -> None:
    first = await added(gateway)
    assert first.pending == frozenset()
    again = await gateway.writer.add(7, picture(1), Report())
    assert again.receipt.outcome == "unchanged"
    know(gateway, "caption", "annotator", "preview")
    more = await added(gateway)
    assert more.pending == {ANNOTATE + "caption"}
    assert more.generation == first.generation


async def test_the_same_picture_again_fills_in_the_facts_that_an_older_version_lacks(
    gateway: Gateway,
) -> None:
    first = await added(gateway)
    assert first.facts is not None
    assert (first.facts.format, first.facts.bytes) == ("JPEG", len(picture(1)))
    rows = {space: gateway.store.rows(space, [7])[7] for space in gateway.store.spaces()}
    gateway.store.delete(7)
    gateway.store.put(ImageWrite(7, first.sha256, 640, 480, first.wanted, rows))
    again = await added(gateway)
    assert again.facts == first.facts


async def test_before_all_is_deployed_an_add_is_refused(gateway: Gateway) -> None:
    know(gateway, "phash", "retriever", "full")
    gateway.directory.complete = False
    with pytest.raises(Unavailable, match="try again"):
        await gateway.writer.add(7, picture(1), Report())
    assert gateway.store.image(7) is None
    assert "applications" in await gateway.unready()
