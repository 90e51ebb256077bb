from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.jobs.sources import NEW, list_paths, read_bytes, with_ids
from models.errors import InvalidInput


def test_a_folder_is_listed_deeply_and_only_pictures(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.JPG", "deep/a.png", "notes.txt", "c.heic"):
        (tmp_path / name).write_bytes(b"x")
    listed = [str(Path(path).relative_to(tmp_path)) for path in list_paths(str(tmp_path))]
    assert listed == ["b.JPG", "c.heic", "deep/a.png"]


def test_a_list_a_parquet_and_one_file_are_sources_too(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"x")
    (tmp_path / "list.txt").write_text(f"{picture}\n\n/elsewhere/b.jpg\n")
    pq.write_table(pa.table({"path": ["/z.jpg", str(picture)]}), tmp_path / "list.parquet")
    assert list_paths(str(picture)) == [str(picture)]
    assert list_paths(str(tmp_path / "list.txt")) == sorted([str(picture), "/elsewhere/b.jpg"])
    assert list_paths(str(tmp_path / "list.parquet")) == sorted(["/z.jpg", str(picture)])


def test_a_uri_is_listed_and_read_through_its_filesystem(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    paths = list_paths(f"file://{tmp_path}")
    assert paths == [f"file://{tmp_path}/a.jpg"]
    assert read_bytes(paths[0]) == b"picture"


def test_a_missing_source_and_a_parquet_without_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no"):
        list_paths(str(tmp_path / "none"))
    pq.write_table(pa.table({"file": ["a"]}), tmp_path / "bad.parquet")
    with pytest.raises(InvalidInput, match="`path` column"):
        list_paths(str(tmp_path / "bad.parquet"))


def test_ids_come_from_file_names_and_what_is_no_id_is_bad() -> None:
    paths = ["/a/7.jpg", "/a/cat.jpg", "/b/7.png", "/a/12.png", "/a/999999999999999999.jpg"]
    named, bad = with_ids(paths, "filename")
    assert named == [("/a/7.jpg", 7), ("/a/12.png", 12)]
    assert {one.path for one in bad} == {"/a/cat.jpg", "/b/7.png", "/a/999999999999999999.jpg"}
    assert "the same id as /a/7.jpg" in next(one.reason for one in bad if one.path == "/b/7.png")


def test_sequential_ids_are_left_to_the_store() -> None:
    assert with_ids(["/a.jpg"], "sequential") == ([("/a.jpg", NEW)], [])
