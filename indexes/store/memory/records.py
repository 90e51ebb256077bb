"""The records of the store in plain dicts."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Collection, Mapping

from indexes.store.records import Record, RecordKey, Records, check_expected, check_records


class MemoryRecords(Records):
    """Records in a dict, under the lock of the store."""

    def __init__(self) -> None:
        self._records: dict[RecordKey, bytes] = {}

    @abstractmethod
    def _open(self) -> threading.RLock:
        """The lock of the store. Raises StoreUnavailable once it is closed."""

    def write_records(
        self,
        writes: Mapping[RecordKey, bytes | None],
        expected: Mapping[RecordKey, bytes | None] | None = None,
    ) -> None:
        check_records([*writes, *(expected or {})])
        with self._open():
            check_expected(expected or {}, self._records)
            for name, value in writes.items():
                if value is None:
                    self._records.pop(name, None)
                else:
                    self._records[name] = value

    def records_by_key(self, kind: str, keys: Collection[str]) -> dict[str, bytes]:
        with self._open():
            found = ((key, self._records.get(RecordKey(kind, key))) for key in keys)
            return {key: value for key, value in found if value is not None}

    def records(
        self, kind: str, after: str = "", limit: int = 100, prefix: str = ""
    ) -> list[Record]:
        with self._open():
            found = sorted(
                (
                    Record(name.key, value)
                    for name, value in self._records.items()
                    if name.kind == kind and name.key > after and name.key.startswith(prefix)
                ),
                key=lambda record: record.key,
            )
            return found[:limit]

    def record_kinds(self) -> list[str]:
        with self._open():
            return sorted({name.kind for name in self._records})
