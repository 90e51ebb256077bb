"""Deleting a picture to stay away, when other writers or a kill come between."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.ingress.adding import AddOptions
from deployments.ingress.banning import delete_and_remember
from deployments.ingress.copies import add_check
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.settings import ImportCheckArgs
from deployments.tombstones import records
from indexes.store.base import ImageWrite
from models.errors import BannedPicture
from models.pictures.decoding import decode
from tests.deployments.ingress.test_adding import know
from tests.deployments.pictures import mirrored, picture, resized

pytestmark = pytest.mark.anyio


async def add(gateway: Gateway, image_id: int, data: bytes) -> None:
    know(gateway, "phash", "retriever", "full")
    check = await add_check(gateway, image_id, data, Report(), unless_same=False)
    await gateway.writer.add(image_id, data, Report(), AddOptions(check=check))


async def test_a_kill_before_the_delete_loses_no_memory(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(gateway, 7, picture(1))

    def killed(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(gateway.store, "delete", killed)
    with pytest.raises(SystemExit):
        await delete_and_remember(gateway, 7, "why")
    monkeypatch.undo()
    assert [one.note for one in records.listed(gateway.store)] == ["why"]
    again = await delete_and_remember(gateway, 7, "why")
    assert [one.tombstone_id for one in records.listed(gateway.store)] == [again]
    assert gateway.store.image(7) is None


async def test_what_another_request_does_meanwhile_loses_no_memory(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(gateway, 7, picture(1))
    remember = records.remember

    def deleted_then(store: Any, entries: Any) -> None:
        remember(store, entries)
        gateway.store.delete(7)

    monkeypatch.setattr(records, "remember", deleted_then)
    assert await delete_and_remember(gateway, 7, "") is None
    assert len(records.listed(gateway.store)) == 1


async def test_of_a_picture_and_the_one_that_replaces_it_meanwhile_both_are_remembered(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(gateway, 7, picture(1))
    delete, preview = gateway.store.delete, decode(picture(2)).preview_jpeg()

    def replaced_first(image_id: int, if_version: int | None = None) -> int | None:
        monkeypatch.undo()
        gateway.store.put(
            ImageWrite(7, "cd" * 32, 640, 480, frozenset({"phash"}), {}, preview=preview)
        )
        return delete(image_id, if_version)

    monkeypatch.setattr(gateway.store, "delete", replaced_first)
    await delete_and_remember(gateway, 7, "")
    assert gateway.store.image(7) is None
    assert len(records.listed(gateway.store)) == 2
    for data in (resized(1), resized(2)):
        check = ImportCheckArgs(adds=True)
        gateway.args = gateway.args.model_copy(update={"import_check": check})
        with pytest.raises(BannedPicture):
            await add(gateway, 8, data)


async def test_an_image_with_a_damaged_preview_is_remembered_by_its_file(gateway: Gateway) -> None:
    know(gateway, "phash", "retriever", "full")
    gateway.store.put(ImageWrite(7, "cd" * 32, 640, 480, frozenset({"phash"}), {}, preview=b"no"))
    await delete_and_remember(gateway, 7, "")
    assert gateway.store.image(7) is None
    assert [one.sha256 for one in records.listed(gateway.store)] == ["cd" * 32]


async def test_adds_refuse_what_is_banned_where_the_config_says_so(gateway: Gateway) -> None:
    await add(gateway, 7, picture(1))
    await delete_and_remember(gateway, 7, "not mine")
    await add(gateway, 8, resized(1))
    gateway.store.delete(8)
    check = ImportCheckArgs(adds=True)
    gateway.args = gateway.args.model_copy(update={"import_check": check})
    for data in (picture(1), resized(1), mirrored(1)):
        with pytest.raises(BannedPicture, match="not mine"):
            await add(gateway, 8, data)
    await add(gateway, 9, picture(2))
    assert gateway.store.count() == 1
    only_same = ImportCheckArgs(adds=True, bans=("part",))
    gateway.args = gateway.args.model_copy(update={"import_check": only_same})
    await add(gateway, 8, resized(1))


async def test_another_replica_knows_at_once(gateway: Gateway) -> None:
    other = Gateway(gateway.args, "ambience")
    check = ImportCheckArgs(adds=True)
    other.args = other.args.model_copy(update={"import_check": check})
    know(other, "phash", "retriever", "full")
    other.directory.complete = True
    await add(other, 5, picture(3))
    await add(gateway, 7, picture(1))
    await delete_and_remember(gateway, 7, "")
    with pytest.raises(BannedPicture):
        await add(other, 8, picture(1))
    (one,) = records.listed(other.store)
    records.forget(gateway.store, one.tombstone_id)
    await add(other, 8, picture(1))
    other.close()
