from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.jobs.sources import (
    NEW,
    list_source,
    local_path,
    modified,
    read_bytes,
    with_ids,
)
from models.errors import InvalidInput, PictureTooLarge


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "PNG")
    return file.getvalue()


def write(folder: Path, *names: str, data: bytes | None = None) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png() if data is None else data)


def listed(folder: Path) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in list_source(str(folder)).paths]


def test_a_folder_is_listed_deeply_and_only_pictures(tmp_path: Path) -> None:
    write(tmp_path, "b.JPG", "deep/a.png", "c.heic")
    write(tmp_path, "notes.txt", "photo.xmp", data=b"words")
    assert listed(tmp_path) == ["b.JPG", "c.heic", "deep/a.png"]


def test_a_list_a_parquet_and_one_file_are_sources_too(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "picture")
    picture = tmp_path / "a.jpg"
    (tmp_path / "list.txt").write_text(f"{picture}\n\n/elsewhere/b.jpg\n")
    pq.write_table(pa.table({"path": ["/z.jpg", str(picture)]}), tmp_path / "list.parquet")
    assert list_source(str(picture)).paths == [str(picture)]
    assert list_source(str(tmp_path / "picture")).paths == [str(tmp_path / "picture")]
    assert list_source(str(tmp_path / "list.txt")).paths == sorted(
        ["/elsewhere/b.jpg", str(picture)]
    )
    assert list_source(str(tmp_path / "list.parquet")).paths == sorted(["/z.jpg", str(picture)])


def test_a_uri_is_listed_and_read_through_its_filesystem(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "100 %.jpg", data=b"picture")
    paths = list_source(f"file://{tmp_path}").paths
    assert paths == [f"file://{tmp_path}/100%20%25.jpg", f"file://{tmp_path}/a.jpg"]
    assert [read_bytes(path) for path in paths] == [b"picture"] * 2
    assert modified(paths[0]) > 0


def test_a_missing_source_and_a_parquet_without_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no"):
        list_source(str(tmp_path / "none"))
    pq.write_table(pa.table({"file": ["a"]}), tmp_path / "bad.parquet")
    with pytest.raises(InvalidInput, match="`path` column"):
        list_source(str(tmp_path / "bad.parquet"))
    write(tmp_path, "film", data=b"\0\0\0\x18ftypmp42")
    with pytest.raises(InvalidInput, match="a video, no list of pictures"):
        list_source(str(tmp_path / "film"))


def test_a_name_that_is_not_utf8_becomes_a_uri_that_text_can_hold(tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    with open(name, "wb") as file:
        file.write(png())
    (path,) = list_source(str(tmp_path)).paths
    assert path == f"file://{tmp_path}/caf%E9.png"
    assert path.encode()
    assert os.fsencode(local_path(path) or "") == name
    assert read_bytes(path) == png()
    assert modified(path) > 0
    (tmp_path / "list.txt").write_bytes(name)
    assert list_source(str(tmp_path / "list.txt")).paths == [path]


def test_the_content_decides_where_the_name_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, "no-suffix", "picture.dat", "archive.tmp")
    write(tmp_path, "a.jfif", "b.jif", "c.hif", "d.apng", "e.heics", "f.avifs")
    assert listed(tmp_path) == sorted(
        [
            "no-suffix",
            "picture.dat",
            "archive.tmp",
            "a.jfif",
            "b.jif",
            "c.hif",
            "d.apng",
            "e.heics",
            "f.avifs",
        ]
    )


def test_what_is_no_picture_is_counted_by_kind_and_films_and_documents_are_listed(
    tmp_path: Path,
) -> None:
    write(tmp_path, "a.png")
    write(tmp_path, "film.mp4", "b.mov", data=b"\0\0\0\x18ftypisom")
    write(tmp_path, "paper.pdf", data=b"%PDF-1.4")
    write(tmp_path, "a.xmp", "b.json", data=b"{}")
    listing = list_source(str(tmp_path))
    assert dict(listing.left_out) == {"video": 2, "PDF document": 1, "other file": 2}
    notes = {Path(one.path).name: one.reason for one in listing.notes}
    assert notes.keys() == {"film.mp4", "b.mov", "paper.pdf"}
    assert notes["film.mp4"] == "left out, video: send one of its frames as JPEG"
    assert listing.bad == []


def test_copies_and_waste_of_file_managers_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    waste = [
        "@eaDir/a.jpg",
        "x/.thumbnails/b.png",
        ".Trash-1000/files/c.jpg",
        "#recycle/d.jpg",
        "__MACOSX/._e.jpg",
        "._f.jpg",
    ]
    write(tmp_path, "kept.jpg", *waste)
    listing = list_source(str(tmp_path))
    assert listing.paths == [str(tmp_path / "kept.jpg")]
    assert listing.ignored == 6
    assert len(list_source(str(tmp_path), []).paths) == 7
    assert len(list_source(str(tmp_path), ["KEPT*"]).paths) == 6
    assert list_source(f"file://{tmp_path}").ignored == 6


def test_a_link_to_a_parent_or_to_a_listed_file_lists_each_file_once(tmp_path: Path) -> None:
    write(tmp_path, "a/one.jpg", "b/two.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "again.jpg").symlink_to(tmp_path / "b" / "two.jpg")
    assert listed(tmp_path) == ["a/one.jpg", "b/two.jpg"]


def test_links_to_files_and_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/one.jpg", "single.jpg")
    here = tmp_path / "here"
    here.mkdir()
    (here / "folder").symlink_to(tmp_path / "elsewhere")
    (here / "file.jpg").symlink_to(tmp_path / "single.jpg")
    (here / "broken.jpg").symlink_to(tmp_path / "none.jpg")
    listing = list_source(str(here))
    assert listing.paths == [str(here / "file.jpg"), str(here / "folder" / "one.jpg")]
    assert [Path(one.path).name for one in listing.bad] == ["broken.jpg"]


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that another user may enter; the tests' own are closed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_folder_that_may_not_be_read_is_listed_and_the_others_are_read(
    shared_folder: Path,
) -> None:
    write(shared_folder, "open/a.jpg", "closed/b.jpg")
    (shared_folder / "closed").chmod(0)
    root = os.geteuid() == 0
    if root:  # To root no folder is closed.
        os.seteuid(65534)
    try:
        listing = list_source(str(shared_folder))
        with pytest.raises(InvalidInput, match=r"can't read .*: Permission denied"):
            list_source(str(shared_folder / "closed"))
    finally:
        if root:
            os.seteuid(0)
        (shared_folder / "closed").chmod(0o755)
    assert listing.paths == [str(shared_folder / "open" / "a.jpg")]
    assert [(Path(one.path).name, one.reason) for one in listing.bad] == [
        ("closed", "can't be read: Permission denied")
    ]


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", data=bytes(1000))
    assert read_bytes(str(tmp_path / "a.jpg"), 1000) == bytes(1000)
    with pytest.raises(PictureTooLarge, match="1,000 bytes; the limit is 999"):
        read_bytes(str(tmp_path / "a.jpg"), 999)


def test_ids_come_from_file_names_and_what_is_no_id_is_bad() -> None:
    paths = ["/a/7.jpg", "/a/cat.jpg", "/b/7.png", "/a/12.png", "/a/999999999999999999.jpg"]
    named, bad = with_ids(paths, "filename")
    assert named == [("/a/7.jpg", 7), ("/a/12.png", 12)]
    assert {one.path for one in bad} == {"/a/cat.jpg", "/b/7.png", "/a/999999999999999999.jpg"}
    assert "the same id as /a/7.jpg" in next(one.reason for one in bad if one.path == "/b/7.png")


def test_sequential_ids_are_left_to_the_store() -> None:
    assert with_ids(["/a.jpg"], "sequential") == ([("/a.jpg", NEW)], [])
