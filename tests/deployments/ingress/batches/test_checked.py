"""Batches without copies, with retrievers that run in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from PIL import Image, ImageOps

from deployments.ingress.adding import Added, AddOptions, ReadyWrite
from deployments.ingress.batches.checked import CheckedWrite, add_unless_same
from deployments.ingress.copies import CopyCheck, add_check
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from indexes.store.base import Guard, ImageWrite, Receipt
from models.errors import AmbienceError, DuplicatePicture, StoreUnavailable
from models.types import MAX_IMAGE_ID
from tests.deployments.pictures import mirrored, picture, resized
from tests.drawing import encoded, scene

pytestmark = pytest.mark.anyio


@pytest.fixture
def gateway(copying: Gateway) -> Gateway:
    return copying


async def checked(gateway: Gateway, data: bytes, image_id: int | None = None) -> CheckedWrite:
    """A picture of a batch, ready to be written."""
    check = await add_check(gateway, image_id, data, Report(), unless_same=True)
    assert isinstance(check, CopyCheck)
    ready = await gateway.writer.prepare(image_id, data, Report(), AddOptions(check=check))
    assert isinstance(ready, ReadyWrite)
    return CheckedWrite(ready, check)


async def batch(
    gateway: Gateway, pictures: Sequence[bytes], ids: Sequence[int | None] = ()
) -> list[Added | AmbienceError]:
    """Add pictures as one batch."""
    wanted = ids or [None] * len(pictures)
    pairs = zip(pictures, wanted, strict=True)
    return await add_unless_same(gateway, [await checked(gateway, *pair) for pair in pairs])


def said(ended: Sequence[Added | AmbienceError]) -> list[str | int | None]:
    """The outcome of each add, or the image of which it is a copy."""
    return [
        one.receipt.outcome
        if isinstance(one, Added)
        else one.image_id
        if isinstance(one, DuplicatePicture)
        else type(one).__name__
        for one in ended
    ]


def with_border(seed: int) -> bytes:
    return encoded(ImageOps.expand(scene(seed), 80, "white"))


def plain(color: str) -> bytes:
    return encoded(Image.new("RGB", (320, 240), color))


async def test_a_group_is_one_transaction_and_names_the_member_that_a_copy_repeats(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = gateway.store.put_if, list[int]()

    def counted(writes: Sequence[ImageWrite], guard: Guard) -> list[Receipt]:
        sizes.append(len(writes))
        return real(writes, guard)

    monkeypatch.setattr(gateway.store, "put_if", counted)
    pictures = [picture(1), picture(2), picture(1), mirrored(2), resized(1), picture(3)]
    ended = await batch(gateway, pictures)
    first, second = (one.receipt.image_id for one in ended[:2] if isinstance(one, Added))
    assert said(ended) == ["created", "created", first, second, first, "created"]
    assert sizes == [3]
    assert [one.receipt.seq for one in ended if isinstance(one, Added)] == [1, 2, 3]
    assert gateway.store.count() == 3


async def test_copies_whose_hashes_are_far_apart_are_found_too(gateway: Gateway) -> None:
    pictures = [picture(1), with_border(1), plain("#336699"), plain("#336699"), plain("#cc3300")]
    ended = await batch(gateway, pictures)
    added = [one.receipt.image_id for one in ended if isinstance(one, Added)]
    assert said(ended) == ["created", added[0], "created", added[1], "created"]


async def test_copies_of_stored_images_are_left_out_and_the_rest_is_added(gateway: Gateway) -> None:
    await batch(gateway, [picture(1)], [7])
    ended = await batch(gateway, [resized(1), picture(2), picture(2)], [1, 2, 3])
    assert said(ended) == [7, "created", 2]
    assert [image.image_id for image in gateway.store.images()] == [2, 7]


async def test_a_batch_of_copies_alone_writes_nothing(gateway: Gateway) -> None:
    await batch(gateway, [picture(1)], [7])
    head = gateway.store.head()
    assert said(await batch(gateway, [picture(1), mirrored(1)])) == [7, 7]
    assert gateway.store.head() == head


async def test_what_an_earlier_picture_replaces_refuses_no_later_one(gateway: Gateway) -> None:
    await batch(gateway, [picture(1)], [7])
    ended = await batch(gateway, [picture(2), picture(1), picture(3), resized(2)], [7, 8, 7, 9])
    assert said(ended) == ["replaced", "created", "replaced", "created"]
    assert [image.image_id for image in gateway.store.images()] == [7, 8, 9]


async def test_an_image_may_be_replaced_by_a_copy_of_itself_twice(gateway: Gateway) -> None:
    ended = await batch(gateway, [picture(1), resized(1), picture(1)], [7, 7, 8])
    assert said(ended) == ["created", "replaced", 7]


async def test_one_that_cannot_be_written_leaves_the_others_and_their_copies(
    gateway: Gateway,
) -> None:
    first = await checked(gateway, picture(1), 1)
    wrong = replace(first.ready.write, image_id=MAX_IMAGE_ID + 1)
    group = [
        replace(first, ready=replace(first.ready, write=wrong)),
        await checked(gateway, resized(1), 2),
        await checked(gateway, picture(2), 3),
        await checked(gateway, mirrored(2), 4),
    ]
    assert said(await add_unless_same(gateway, group)) == ["InvalidInput", "created", "created", 3]
    assert [image.image_id for image in gateway.store.images()] == [2, 3]


async def test_without_the_store_none_is_added_and_none_is_called_a_copy(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = [await checked(gateway, one) for one in (picture(1), picture(1), picture(2))]

    def full(*_: object) -> list[Receipt]:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(gateway.store, "put_if", full)
    assert said(await add_unless_same(gateway, group)) == ["StoreUnavailable"] * 3
    monkeypatch.undo()
    assert gateway.store.count() == 0


async def test_a_copy_that_is_added_during_the_check_is_seen(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = [await checked(gateway, one) for one in (picture(1), picture(1), picture(2))]
    other = await checked(gateway, resized(1), 70)
    real, tries = gateway.store.put_if, list[int]()

    def late(writes: Sequence[ImageWrite], guard: Guard) -> list[Receipt]:
        if not tries:
            gateway.store.put(other.ready.write)
        tries.append(len(writes))
        return real(writes, guard)

    monkeypatch.setattr(gateway.store, "put_if", late)
    assert said(await add_unless_same(gateway, group)) == [70, 70, "created"]
    # The second picture was left out as a copy of the first, which then turned out to be one.
    assert tries == [2, 2, 1]


async def test_of_batches_that_are_added_at_once_each_picture_is_taken_once(
    gateway: Gateway,
) -> None:
    groups = [
        [await checked(gateway, encoded(scene(seed), quality=quality)) for seed in range(3)]
        for quality in (70, 80, 90)
    ]
    ended = await asyncio.gather(*(add_unless_same(gateway, group) for group in groups))
    for seed in range(3):
        assert sum(isinstance(one[seed], Added) for one in ended) == 1
    assert gateway.store.count() == 3
