"""Wrappers that inject faults into a real store."""

from __future__ import annotations

import time
from abc import ABCMeta
from collections.abc import Callable
from typing import Any, cast

from indexes.store.base import Store
from models.errors import StoreUnavailable

WRITES = {
    *("put", "put_many", "put_if", "delete", "delete_kind", "complete", "annotate"),
    *("activate", "drop_space", "compact", "reserve_ids", "claim_id", "lease", "release", "mark"),
    "write_records",
}


def _forward(name: str) -> Callable[..., Any]:
    def method(self: WrappedStore, *args: Any, **kwargs: Any) -> Any:
        self.before(name)
        return getattr(self.inner, name)(*args, **kwargs)

    return method


def _members() -> dict[str, Any]:
    names = Store.__abstractmethods__ - {"uuid"}
    uuid = property(lambda self: self.inner.uuid)
    return {"uuid": uuid, **{name: _forward(name) for name in names}}


_Forwarding = cast(type[Store], ABCMeta("_Forwarding", (Store,), _members()))


class WrappedStore(_Forwarding):  # type: ignore[misc, valid-type]
    """Forwards every call to `inner`, after calling `before`."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    def before(self, name: str) -> None:
        """Hook that is called with the method's name before each call."""


class SlowStore(WrappedStore):
    """Makes every call take `seconds` longer."""

    def __init__(self, inner: Store, seconds: float) -> None:
        super().__init__(inner)
        self.seconds = seconds

    def before(self, name: str) -> None:
        if name != "close":
            time.sleep(self.seconds)


class FailingStore(WrappedStore):
    """Fails every read and write while `failing`."""

    def __init__(self, inner: Store, failing: bool = True) -> None:
        super().__init__(inner)
        self.failing = failing

    def before(self, name: str) -> None:
        if self.failing and name != "close":
            raise StoreUnavailable("the disk is gone")


class FullStore(WrappedStore):
    """Answers reads but has no room for any write."""

    def before(self, name: str) -> None:
        if name in WRITES:
            raise StoreUnavailable("the disk is full")
