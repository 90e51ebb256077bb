"""What an add requests and keeps, with a gateway whose directory the test fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from deployments.directory.entry import DirectoryEntry
from deployments.ingress.adding import Added, AddOptions, ReadyWrite
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.wire import Kind
from indexes.store.base import ANNOTATE, Image, ImageWrite, Receipt
from models.errors import InvalidInput, StoreUnavailable, Unavailable
from models.registry import make_extractor
from models.types import View
from tests.deployments import served
from tests.deployments.pictures import picture
from tests.indexes.store.faults import FailingStore

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


async def ready(gateway: Gateway, seed: int, **options: Any) -> ReadyWrite:
    know(gateway, "phash", "retriever", "full")
    made = await gateway.writer.prepare(seed, picture(seed), Report(), AddOptions(**options))
    assert isinstance(made, ReadyWrite)
    return made


async def test_a_group_is_written_in_one_transaction(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = gateway.store.put_many, list[int]()

    def counted(writes: Sequence[ImageWrite]) -> list[Receipt]:
        sizes.append(len(writes))
        return real(writes)

    monkeypatch.setattr(gateway.store, "put_many", counted)
    group = [await ready(gateway, seed) for seed in range(3)]
    assert gateway.store.count() == 0
    done = await gateway.writer.put_group(group)
    assert [one.receipt.seq for one in done if isinstance(one, Added)] == [1, 2, 3]
    assert sizes == [3]


async def test_a_write_that_is_refused_does_not_keep_out_the_others(gateway: Gateway) -> None:
    group = [await ready(gateway, seed) for seed in range(3)]
    group[1] = await ready(gateway, 1, metadata={"a": object()})
    first, second, third = await gateway.writer.put_group(group)
    assert isinstance(first, Added)
    assert isinstance(second, InvalidInput)
    assert isinstance(third, Added)
    assert [image.image_id for image in gateway.store.images()] == [0, 2]


async def test_without_the_store_a_group_fails_at_once(gateway: Gateway) -> None:
    group = [await ready(gateway, seed) for seed in range(2)]
    gateway.writer.store = FailingStore(gateway.store)
    done = await gateway.writer.put_group(group)
    assert [type(one) for one in done] == [StoreUnavailable] * 2


async def test_before_all_is_deployed_an_add_is_refused(gateway: Gateway) -> None:
    know(gateway, "phash", "retriever", "full")
    gateway.directory.complete = False
    with pytest.raises(Unavailable, match="try again"):
        await gateway.writer.add(7, picture(1), Report())
    assert gateway.store.image(7) is None
    assert "applications" in await gateway.unready()
