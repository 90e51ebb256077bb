"""What every store must do with records."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexes.store.base import Store
from indexes.store.records import Record, RecordKey
from models.errors import InvalidInput, PreconditionFailed
from tests.indexes.opening import OpeningContract
from tests.indexes.pictures import picture

RULE = RecordKey("rule", "é")


def keys(records: list[Record]) -> list[str]:
    return [record.key for record in records]


class RecordContract(OpeningContract):
    """What every store must do with records."""

    def test_a_record_is_what_was_last_written_until_it_is_removed(self, store: Store) -> None:
        assert store.record("rule", "é") is None
        store.write_records({RULE: b"one"})
        store.write_records({RULE: b"\0two\xff"})
        assert store.record("rule", "é") == b"\0two\xff"
        store.write_records({RULE: None, RecordKey("rule", "never"): None})
        assert store.record("rule", "é") is None
        assert store.record_kinds() == []

    def test_an_empty_value_is_a_record(self, store: Store) -> None:
        store.write_records({RULE: b""})
        assert store.record("rule", "é") == b""
        assert store.records("rule") == [Record("é", b"")]

    def test_several_changes_are_one_transaction(self, store: Store) -> None:
        store.write_records({RecordKey("a", "1"): b"x", RecordKey("b", "1"): b"y"})
        changes = {RecordKey("a", "1"): None, RecordKey("a", "2"): b"z"}
        with pytest.raises(PreconditionFailed, match="b '1' was changed"):
            store.write_records(changes, {RecordKey("b", "1"): b"other"})
        with pytest.raises(PreconditionFailed):
            store.write_records(changes, {RecordKey("b", "1"): None})
        with pytest.raises(PreconditionFailed):
            store.write_records(changes, {RecordKey("b", "2"): b"y"})
        assert store.records("a") == [Record("1", b"x")]
        store.write_records(changes, {RecordKey("b", "1"): b"y", RecordKey("b", "2"): None})
        assert store.records("a") == [Record("2", b"z")]
        assert store.record_kinds() == ["a", "b"]

    def test_records_come_in_pages_by_key(self, store: Store) -> None:
        names = ["a", "a\0", "a\0b", "ab", "b", "é", "中", "🐶"]
        writes: dict[RecordKey, bytes | None] = {
            RecordKey("pair", name): name.encode() for name in reversed(names)
        }
        others = {RecordKey("pai", "z"): b"", RecordKey("pair2", "a"): b""}
        store.write_records(writes | others)
        assert keys(store.records("pair")) == names
        assert keys(store.records("pair", limit=2)) == names[:2]
        assert keys(store.records("pair", after="a\0", limit=3)) == names[2:5]
        assert keys(store.records("pair", after="zz")) == names[5:]
        assert keys(store.records("pair", after="🐶")) == []
        assert keys(store.records("pair", prefix="a")) == names[:4]
        assert keys(store.records("pair", prefix="a", after="a\0b")) == ["ab"]
        assert keys(store.records("pair", prefix="b", after="a")) == ["b"]
        assert store.records("never") == []
        assert store.record_kinds() == ["pai", "pair", "pair2"]

    def test_records_are_read_by_key(self, store: Store) -> None:
        store.write_records({RecordKey("a", "1"): b"x", RecordKey("a", "2"): b"y"})
        assert store.records_by_key("a", ["2", "3", "k" * 900]) == {"2": b"y"}
        assert store.records_by_key("a", []) == {}
        assert keys(store.records("a", after="1" * 900)) == ["2"]

    def test_names_that_cannot_be_stored_are_refused(self, store: Store) -> None:
        whole = [RecordKey("k" * 64, "é" * 200), RecordKey("k", "k")]
        store.write_records(dict.fromkeys(whole, b"v"))
        assert store.record("k" * 64, "é" * 200) == b"v"
        for kind, key in [("", "k"), ("k" * 65, "k"), ("a\0b", "k"), ("k", ""), ("k", "k" * 401)]:
            with pytest.raises(InvalidInput, match="record"):
                store.write_records({RecordKey("k", "new"): b"v", RecordKey(kind, key): b"v"})
        with pytest.raises(InvalidInput, match="not Unicode"):
            store.write_records({RecordKey("k", "\udce9"): b"v"})
        assert keys(store.records("k")) == ["k"]

    def test_a_record_is_no_change_of_an_image(self, store: Store) -> None:
        store.put(picture(1))
        store.write_records({RULE: b"x"})
        assert store.head() == 1
        store.delete(1)
        assert store.record(*RULE) == b"x"

    def test_a_large_value_and_many_records_fit(self, tmp_path: Path) -> None:
        store = self.open(tmp_path / "large")
        large = bytes(range(256)) * 8192
        many: dict[RecordKey, bytes | None] = {
            RecordKey("many", f"{at:06}"): str(at).encode() for at in range(5000)
        }
        store.write_records({**many, RULE: large})
        assert store.record(*RULE) == large
        assert keys(store.records("many", after="004997")) == ["004998", "004999"]
        store.close()

    def test_of_two_writers_that_read_the_same_value_one_is_refused(self, store: Store) -> None:
        def count(_: int) -> int:
            refused = 0
            while True:
                before = store.record("counter", "n")
                after = str(int(before or b"0") + 1).encode()
                name = RecordKey("counter", "n")
                try:
                    store.write_records({name: after}, {name: before})
                except PreconditionFailed:
                    refused += 1
                else:
                    return refused

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(count, range(60)))
        assert store.record("counter", "n") == b"60"
