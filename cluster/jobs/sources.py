"""Sources of pictures: a folder, a list, a Parquet file of paths, or an object store's URI."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import pyarrow.parquet
from pyarrow import fs

from models.errors import InvalidInput
from models.types import MAX_IMAGE_ID

Ids = Literal["filename", "sequential"]
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".mpo",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".pnm",
        ".ppm",
        ".pgm",
        ".pbm",
        ".tif",
        ".tiff",
        ".avif",
        ".heic",
        ".heif",
    ]
)
NEW = -1
"""Image id of a picture that gets the next free id."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A file that can't be indexed, and the reason."""

    path: str
    reason: str


def list_paths(source: str) -> list[str]:
    """All pictures of a source, sorted. Raises InvalidInput when the source does not exist."""
    if source.endswith(".parquet"):
        return _column(source)
    filesystem, root = open_source(source)
    found = filesystem.get_file_info(root)
    if found.type == fs.FileType.NotFound:
        raise InvalidInput(f"there is no {source}", "source")
    if found.type == fs.FileType.File:
        if PurePosixPath(root).suffix.lower() in SUFFIXES:
            return [source]
        with filesystem.open_input_stream(root) as lines:
            text = lines.read().decode()
        return sorted(line.strip() for line in text.splitlines() if line.strip())
    prefix = source[: -len(root)] if "://" in source else ""
    files = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    return sorted(
        prefix + file.path
        for file in files
        if file.is_file and PurePosixPath(file.path).suffix.lower() in SUFFIXES
    )


def open_source(path: str) -> tuple[Any, str]:
    """The filesystem of a path or URI, and the path in it."""
    if "://" not in path:
        return fs.LocalFileSystem(), path
    try:
        filesystem, inside = fs.FileSystem.from_uri(path)
    except (ValueError, OSError) as exc:
        raise InvalidInput(f"can't open {path}: {exc}", "source") from exc
    return filesystem, inside


def read_bytes(path: str) -> bytes:
    """The bytes of one file. Raises OSError."""
    filesystem, inside = open_source(path)
    with filesystem.open_input_file(inside) as file:
        data: bytes = file.read()
    return data


def modified(path: str) -> float:
    """When a local file was last modified, in seconds since the epoch; 0 if that is unknown."""
    if "://" in path:
        return 0.0
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def with_ids(paths: list[str], ids: Ids) -> tuple[list[tuple[str, int]], list[Bad]]:
    """The image id of each path (`NEW` when sequential), and the files whose names are no ids."""
    if ids == "sequential":
        return [(path, NEW) for path in paths], []
    named: dict[int, str] = {}
    bad = []
    for path in paths:
        stem = PurePosixPath(path).stem
        if not (stem.isascii() and stem.isdigit()) or int(stem) > MAX_IMAGE_ID:
            bad.append(Bad(path, "the file's name is no image id; use --ids sequential"))
        elif int(stem) in named:
            bad.append(Bad(path, f"the same id as {named[int(stem)]}"))
        else:
            named[int(stem)] = path
    return [(path, image_id) for image_id, path in named.items()], bad


def _column(source: str) -> list[str]:
    filesystem, inside = open_source(source)
    try:
        table = pyarrow.parquet.read_table(inside, columns=["path"], filesystem=filesystem)
    except (OSError, ValueError) as exc:
        raise InvalidInput(f"can't read a `path` column from {source}: {exc}", "source") from exc
    return sorted(str(path) for path in table.column("path").to_pylist())
