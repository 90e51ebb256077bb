"""The part of the store contract that is about records: small values by kind and key.

Decisions, rules and results of jobs are records. They are no images: no log entry names them, and
no change of an image removes one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import NamedTuple

from models.errors import InvalidInput, PreconditionFailed

MAX_KIND_BYTES = 64
MAX_KEY_BYTES = 400
"""LMDB's keys have at most 511 bytes."""


class RecordKey(NamedTuple):
    """The name of a record. Keys of a kind are ordered by their UTF-8 bytes."""

    kind: str
    key: str


class Record(NamedTuple):
    """A record of a kind."""

    key: str
    value: bytes


class Records(ABC):
    """The records of a store."""

    @abstractmethod
    def write_records(
        self,
        writes: Mapping[RecordKey, bytes | None],
        expected: Mapping[RecordKey, bytes | None] | None = None,
    ) -> None:
        """Write values, and remove the records given as None, all in one transaction.

        It is durable when this returns. If a record has another value than the one that `expected`
        gives for it (None: there is no such record), nothing is written and PreconditionFailed is
        raised. Raises InvalidInput for an empty kind or key, for a kind of more than 64 bytes or
        one with a NUL, and for a key of more than 400 bytes.
        """

    def record(self, kind: str, key: str) -> bytes | None:
        """The value of one record; None if there is none."""
        return self.records_by_key(kind, [key]).get(key)

    @abstractmethod
    def records_by_key(self, kind: str, keys: Collection[str]) -> dict[str, bytes]:
        """Values by key, read in one snapshot; missing keys are left out."""

    @abstractmethod
    def records(
        self, kind: str, after: str = "", limit: int = 100, prefix: str = ""
    ) -> list[Record]:
        """At most `limit` records of a kind with keys above `after` that begin with `prefix`, in
        ascending order of their keys."""

    @abstractmethod
    def record_kinds(self) -> list[str]:
        """The kinds of which there is a record, sorted."""


def check_records(names: Collection[RecordKey]) -> None:
    """Raise InvalidInput for names that can't be stored."""
    for kind, key in names:
        if not 0 < len(_utf8(kind)) <= MAX_KIND_BYTES or "\0" in kind:
            raise InvalidInput(
                f"{kind[:80]!r} is no kind of record: 1 to {MAX_KIND_BYTES} bytes without NUL"
            )
        if not 0 < len(_utf8(key)) <= MAX_KEY_BYTES:
            raise InvalidInput(
                f"{key[:80]!r} is no key of a record: 1 to {MAX_KEY_BYTES} bytes of UTF-8"
            )


def check_expected(
    expected: Mapping[RecordKey, bytes | None], stored: Mapping[RecordKey, bytes]
) -> None:
    """Raise PreconditionFailed for the first record whose value is not the expected one."""
    for name, value in expected.items():
        if stored.get(name) != value:
            raise PreconditionFailed(
                f"{name.kind} {name.key!r} was changed meanwhile: read it again"
            )


def keys_of(names: Collection[RecordKey]) -> dict[str, list[str]]:
    """Keys by kind."""
    keys: dict[str, list[str]] = {}
    for kind, key in names:
        keys.setdefault(kind, []).append(key)
    return keys


def copy_records(
    source: Records, target: Records, batch: int = 256, leave: RecordKey | None = None
) -> int:
    """Make `target` hold the records of `source` and no others, except that the record `leave` is
    not looked at. Returns the number of writes."""
    return sum(
        _copy_kind(source, target, kind, batch, leave)
        for kind in sorted({*source.record_kinds(), *target.record_kinds()})
    )


def _copy_kind(
    source: Records, target: Records, kind: str, batch: int, leave: RecordKey | None
) -> int:
    written, after = 0, ""
    last: str | None = after
    while last is not None:
        page = source.records(kind, after, batch)
        last = page[-1].key if len(page) == batch else None
        ours = dict(page)
        theirs = _until(target, kind, after, last, batch)
        changes: dict[RecordKey, bytes | None] = {
            RecordKey(kind, key): ours.get(key)
            for key in ours.keys() | theirs.keys()
            if ours.get(key) != theirs.get(key) and (kind, key) != leave
        }
        if changes:
            target.write_records(changes)
        written += len(changes)
        after = last or after
    return written


def _until(store: Records, kind: str, after: str, last: str | None, batch: int) -> dict[str, bytes]:
    """All records of a kind with keys above `after` and, if given, up to `last`."""
    found: dict[str, bytes] = {}
    while page := store.records(kind, after, batch):
        within = [one for one in page if last is None or _utf8(one.key) <= _utf8(last)]
        found.update(within)
        if len(within) < len(page):
            break
        after = page[-1].key
    return found


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"{text[:80]!r} is not Unicode: it can't name a record") from exc
