"""Decisions, rules and tombstones travel with a collection, exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.jobs.transfer.importing import Outcome
from cluster.jobs.transfer.parquet import export_parquet, import_parquet
from cluster.jobs.transfer.records import (
    SCHEMA,
    export_records,
    import_records,
    records_file,
)
from deployments.tombstones.records import (
    PICTURE,
    TOMBSTONE,
    RememberedPicture,
    Tombstone,
    changes,
    remember,
)
from indexes.duplicates.best import RULES, best_rule_write
from indexes.duplicates.catalogue import groups_page
from indexes.duplicates.connected import VERDICTS
from indexes.duplicates.decisions import DECISIONS, decide, history, undo
from indexes.duplicates.kept import KEPT
from indexes.duplicates.rules import set_rule
from indexes.store.base import Store
from indexes.store.lmdb.store import LmdbStore
from models.errors import InvalidInput
from tests.indexes.duplicates.collection import add, add_pairs, pair
from tests.indexes.pictures import PHASH, known

KINDS = (DECISIONS, VERDICTS, RULES, KEPT, TOMBSTONE, PICTURE)
BANNED = Tombstone("t1", 1.0, "no more", 7, "a.jpg", "ab" * 32, 640, 480)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(LmdbStore(tmp_path / "a")) as store:
        for at in range(6):
            add(store, at)
        add_pairs(store, pair(store, 0, 1), pair(store, 2, 3), pair(store, 4, 5))
        decide(store, "delete", [0, 1])
        decide(store, "different", [2, 3])
        set_rule(store, "reencode", needed=7)
        store.write_records(best_rule_write(["oldest", "pixels"]))
        remember(store, {BANNED: RememberedPicture(b"jpeg", {PHASH: bytes(72)})})
        yield store


def records(store: Store) -> dict[str, dict[str, bytes]]:
    return {kind: dict(store.records(kind, limit=1000)) for kind in KINDS}


@pytest.mark.parametrize("name", ["all.parquet", "folder"])
def test_what_was_decided_comes_back_exactly(store: Store, tmp_path: Path, name: str) -> None:
    export_parquet(store, tmp_path / name, lambda _: None)
    written = export_records(store, records_file(tmp_path / name))
    assert written == sum(len(found) for found in records(store).values()) == 8
    with closing(LmdbStore(tmp_path / "b")) as other:
        outcome = import_parquet(other, tmp_path / name, lambda _: None)
        assert import_records(other, records_file(tmp_path / name), outcome) == written
        assert (outcome.added, outcome.bad) == (5, [])
        assert records(other) == records(store)
        assert changes(other, 0).seq == 1
        assert import_records(other, records_file(tmp_path / name), outcome) == 0
        # They work there, too.
        add_pairs(other, pair(other, 2, 3), pair(other, 4, 5))
        shown = [one.group.images for one in groups_page(other, None, "", 10)[0]]
        assert shown == [(4, 5)]
        deleting = next(one for one in history(other, "", 10)[0] if one.decision == "delete")
        undo(other, deleting.decision_id)
        assert known(other, 1).sha256 == deleting.contents["1"]


def test_what_the_store_has_decided_itself_stays(store: Store, tmp_path: Path) -> None:
    export_records(store, tmp_path / "records.parquet")
    with closing(LmdbStore(tmp_path / "b")) as other:
        set_rule(other, "reencode", needed=9)
        import_records(other, tmp_path / "records.parquet", Outcome())
        ours, theirs = records(other), records(store)
        assert ours[RULES]["reencode"] != theirs[RULES]["reencode"]
        assert ours[RULES]["best"] == theirs[RULES]["best"]


def test_nothing_is_written_where_nothing_was_decided(tmp_path: Path) -> None:
    with closing(LmdbStore(tmp_path / "b")) as other:
        assert export_records(other, tmp_path / "records.parquet") == 0
    assert not list(tmp_path.glob("*.parquet*"))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (DECISIONS, b"{}"),
        (VERDICTS, b"[]"),
        (TOMBSTONE, b'{"created": "once"}'),
        (PICTURE, b"\xff"),
        (KEPT, b"\x00\x00\x00\x04null"),
        ("another kind", b"{}"),
    ],
)
def test_a_damaged_record_is_left_out_and_named(tmp_path: Path, kind: str, value: bytes) -> None:
    rows = [
        {"kind": kind, "key": "k", "value": value},
        {"kind": RULES, "key": "best", "value": b'["pixels"]'},
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "r.parquet")
    outcome = Outcome()
    with closing(LmdbStore(tmp_path / "b")) as other:
        assert import_records(other, tmp_path / "r.parquet", outcome) == 1
        assert other.record_kinds() == sorted([RULES, "duplicates.state"])
    assert [one.path for one in outcome.bad] == [f"{kind} k"]


def test_another_file_is_refused(store: Store, tmp_path: Path) -> None:
    export_parquet(store, tmp_path / "images.parquet", lambda _: None)
    (tmp_path / "text.parquet").write_text("no parquet")
    for name in ("images.parquet", "text.parquet", "none.parquet"):
        with pytest.raises(InvalidInput, match=name):
            import_records(store, tmp_path / name, Outcome())
