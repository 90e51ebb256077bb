"""Whole collections as Parquet: exact both ways, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.jobs.transfer import parquet
from cluster.jobs.transfer.importing import Outcome
from cluster.jobs.transfer.parquet import export_parquet, import_parquet
from indexes.store.base import Store
from indexes.store.complete import CompleteImage, complete_images
from indexes.store.lmdb.store import LmdbStore
from indexes.store.memory.store import MemoryStore
from indexes.store.records import copy_records
from models.errors import InvalidInput, PreconditionFailed
from models.types import FileFacts
from tests.indexes.pictures import COLOR, PHASH, PHASH_NEW, known, picture, row_of, upload
from tests.indexes.store.test_copying import ODD_NAME, filled, same


def sent(store: Store, target: Path) -> int:
    return export_parquet(store, target, lambda _: None)


def brought(store: Store, source: Path) -> Outcome:
    return import_parquet(store, source, lambda _: None)


def whole(store: Store) -> dict[int, CompleteImage]:
    return {one.image.image_id: one for one in complete_images(store, -1, 10_000)}


@pytest.mark.parametrize("name", ["all.parquet", "folder"])
def test_a_collection_comes_back_exactly(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "FILE_IMAGES", 50)
    monkeypatch.setattr(parquet, "GROUP_IMAGES", 20)
    source, target = filled(LmdbStore(tmp_path / "a")), LmdbStore(tmp_path / "b")
    assert sent(source, tmp_path / name) == source.count()
    done = brought(target, tmp_path / name)
    assert (done.added, done.extended, done.already, done.bad) == (source.count(), 0, 0, [])
    copy_records(source, target)  # They belong to no image, and are not exported.
    assert same(source, target)
    assert [one.digest for one in whole(source).values()] == [
        one.digest for one in whole(target).values()
    ]
    assert known(target, 1).facts == FileFacts("JPEG", 1234, 1622894400.25, 12, 85)
    assert known(target, 3).source == ODD_NAME
    assert target.put(picture(None, "new")).image_id == 5001
    again = brought(target, tmp_path / name)
    assert (again.added, again.extended, again.already) == (0, 0, source.count())
    source.close()
    target.close()


def test_a_folder_holds_files_of_bounded_size_and_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "FILE_IMAGES", 10)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 5000)
    store = MemoryStore()
    store.put_many([picture(at, str(at), preview=bytes(1500)) for at in range(25)])
    assert sent(store, tmp_path / "out") == 25
    files = sorted((tmp_path / "out").iterdir())
    assert [one.name for one in files] == [f"images-{n:05}.parquet" for n in range(3)]
    for path in files:
        described = pq.ParquetFile(path).metadata
        assert described.num_rows <= 12
        assert all(described.row_group(n).num_rows <= 4 for n in range(described.num_row_groups))


def test_the_schema_names_kinds_and_fingerprints(tmp_path: Path) -> None:
    store = MemoryStore()
    store.put(picture(1, features={PHASH: row_of("a"), PHASH_NEW: row_of("b"), COLOR: b"c"}))
    store.activate("phash", PHASH_NEW.fingerprint)
    sent(store, tmp_path / "all.parquet")
    schema = pq.read_schema(tmp_path / "all.parquet")
    told = {
        (field.metadata[b"kind"].decode(), field.metadata[b"fingerprint"].decode())
        for field in schema
        if field.metadata and b"kind" in field.metadata
    }
    assert told == {tuple(PHASH), tuple(PHASH_NEW), tuple(COLOR)}
    assert orjson.loads(schema.metadata[b"ambience"])["active"] == {"phash": "f2"}
    table = pq.read_table(tmp_path / "all.parquet")
    assert table["features/phash/f1"].to_pylist() == [row_of("a")]


def test_an_empty_store_gives_an_empty_file(tmp_path: Path) -> None:
    assert sent(MemoryStore(), tmp_path / "none.parquet") == 0
    assert brought(MemoryStore(), tmp_path / "none.parquet").added == 0


def test_what_is_there_is_extended_and_another_picture_is_left_alone(tmp_path: Path) -> None:
    source, target = MemoryStore(), MemoryStore()
    source.put_many([picture(1, "a", preview=b"shown"), picture(2, "b"), picture(3, "c")])
    sent(source, tmp_path / "all.parquet")
    target.put(picture(1, "a", features={COLOR: b"own"}, created=5.0))
    target.put(picture(2, "another"))
    done = brought(target, tmp_path / "all.parquet")
    assert (done.added, done.extended, done.already) == (1, 1, 0)
    assert [(one.path, "another picture" in one.reason) for one in done.bad] == [("2", True)]
    assert whole(target)[1].features.keys() == {PHASH, COLOR}
    assert whole(target)[1].preview == b"shown"
    assert known(target, 2).sha256 == picture(2, "another").sha256


def test_nothing_is_written_over(tmp_path: Path) -> None:
    store = MemoryStore()
    sent(store, tmp_path / "all.parquet")
    sent(store, tmp_path / "folder")
    for name in ("all.parquet", "folder"):
        with pytest.raises(InvalidInput, match="is there already"):
            sent(store, tmp_path / name)


def test_images_that_change_meanwhile_are_written_as_they_were_at_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    store.put_many([upload(at, str(at)) for at in range(3)])
    real = parquet.complete_images

    def changing(*args: object) -> list[CompleteImage]:
        found = real(*args)  # type: ignore[arg-type]
        if store.image(2) is not None:
            store.delete(2)
            store.put(upload(1, "new"))
        return found

    monkeypatch.setattr(parquet, "complete_images", changing)
    assert sent(store, tmp_path / "all.parquet") == 2
    target = MemoryStore()
    brought(target, tmp_path / "all.parquet")
    assert known(target, 1).sha256 == upload(1, "new").sha256
    assert target.preview(1) == b"preview of new"
    assert target.original(1, known(target, 1).generation) == b"original of new"


def test_an_image_that_never_rests_ends_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    store.put(picture(1))
    real = store.images_by_id

    def restless(ids: list[int]) -> object:
        store.put(picture(1, str(store.head())))
        return real(ids)

    monkeypatch.setattr(store, "images_by_id", restless)
    with pytest.raises(PreconditionFailed, match="does not rest"):
        sent(store, tmp_path / "all.parquet")
    assert not (tmp_path / "all.parquet").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")
    store = MemoryStore()
    store.put(picture(1))
    sent(store, tmp_path / "all.parquet")
    whole_file = (tmp_path / "all.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole_file[: len(whole_file) // 2])
    table = pq.read_table(tmp_path / "all.parquet")
    pq.write_table(table.drop_columns(["sha256"]), tmp_path / "less.parquet")
    for name in ("other", "text", "cut", "less"):
        with pytest.raises(InvalidInput, match=name):
            brought(MemoryStore(), tmp_path / f"{name}.parquet")
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidInput, match="no Parquet files"):
        brought(MemoryStore(), tmp_path / "none")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image_id", -1),
        ("image_id", 2**50),
        ("sha256", "x"),
        ("width", -1),
        ("bytes", -1),
        ("created", float("nan")),
        ("metadata", "[]"),
        ("metadata", "{"),
        ("annotations", '{"ocr": 1}'),
        ("annotations", '{"ocr": {"by": "nobody"}}'),
        ("wanted", [""]),
    ],
)
def test_a_row_that_no_export_writes_is_left_out_and_named(
    tmp_path: Path, column: str, value: object
) -> None:
    store = MemoryStore()
    store.put_many([picture(at, str(at), facts=FileFacts("PNG", 5)) for at in (1, 2)])
    sent(store, tmp_path / "all.parquet")
    table = pq.read_table(tmp_path / "all.parquet")
    rows = table.to_pylist()
    rows[0][column] = value
    pq.write_table(pa.Table.from_pylist(rows, table.schema), tmp_path / "bad.parquet")
    target = MemoryStore()
    done = brought(target, tmp_path / "bad.parquet")
    assert (done.added, len(done.bad)) == (1, 1)
    assert [image.image_id for image in target.images()] == [2]
