"""Sources of pictures: a folder, a list, a Parquet file of paths, an object store's URI, or what is
kept of stored images."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, unquote_to_bytes

import pyarrow.parquet
from pyarrow import fs

from indexes.store.base import Image, Store
from models.errors import InvalidInput, PictureTooLarge
from models.pictures.decoder import Decoder
from models.pictures.decoding import Picture
from models.pictures.formats import HEAD, OTHERS, kind_of, other_kind
from models.types import MAX_IMAGE_ID

Ids = Literal["filename", "sequential"]
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".avif",
        ".heic",
        ".heif",
        ".hif",
        ".jxl",
        ".dng",
        ".nef",
        ".arw",
        ".cr2",
        ".cr3",
        ".raf",
        ".orf",
        ".rw2",
    ]
)
"""Names with these endings are pictures; of other files the content decides."""
IGNORED = (
    "@eaDir",
    "@Recycle",
    "#recycle",
    "#snapshot",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "__MACOSX",
    "._*",
    ".DS_Store",
    ".AppleDouble",
    ".Trash*",
    ".dtrash",
    ".thumbnails",
    ".@__thumb",
    ".cache",
    ".git",
    ".stversions",
    "Thumbs.db",
    "desktop.ini",
)
"""Names of files and folders that are left out: copies, thumbnails and waste of file servers, file
managers and galleries. Patterns are those of fnmatch, whatever the case."""
NEW = -1
"""Image id of a picture that gets the next free id."""
_OTHER = "other file"


@dataclass(frozen=True, slots=True)
class Bad:
    """A file that can't be indexed, and the reason."""

    path: str
    reason: str


@dataclass(slots=True)
class Listing:
    """The files of a source."""

    paths: list[str] = field(default_factory=list)
    """Pictures, sorted."""
    bad: list[Bad] = field(default_factory=list)
    """Folders and files that can't be read."""
    notes: list[Bad] = field(default_factory=list)
    """Files of known kinds that are no pictures."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of files that are no pictures, by kind, such as `video`."""
    ignored: int = 0
    """Number of files and folders whose names are to be ignored."""

    def add(self, path: str, kind: str | None) -> None:
        """Add a file by its kind; None for a picture."""
        if kind is None:
            self.paths.append(path)
            return
        self.left_out[kind] += 1
        if kind != _OTHER:
            self.notes.append(Bad(path, f"left out, {kind}: {OTHERS[kind][1]}"))


def list_source(source: str, ignore: Sequence[str] = IGNORED) -> Listing:
    """The pictures of a source. Raises InvalidInput when the source can't be read."""
    if source.endswith(".parquet"):
        return Listing(_column(source))
    local = local_path(source)
    filesystem, root = (None, local) if local is not None else open_source(source)
    is_folder = os.path.isdir(root) if filesystem is None else _is_folder(filesystem, root, source)
    if not is_folder:
        return Listing(_listed_in(source))
    listing = Listing()
    if filesystem is None:
        _walk(root, source.startswith("file:"), _pattern(ignore), listing)
    else:
        prefix = source[: -len(root)]
        for file in filesystem.get_file_info(fs.FileSelector(root, recursive=True)):
            if file.is_file and not any(map(_pattern(ignore), PurePosixPath(file.path).parts)):
                path = prefix + file.path
                listing.add(path, _kind_unless_picture(path))
    listing.paths.sort()
    return listing


def open_source(path: str) -> tuple[Any, str]:
    """The filesystem of a URI, and the path in it."""
    try:
        filesystem, inside = fs.FileSystem.from_uri(path)
    except (ValueError, OSError) as exc:
        raise InvalidInput(f"can't open {path}: {exc}", "source") from exc
    return filesystem, inside


def local_path(path: str) -> str | None:
    """The file name of a path or `file:` URI; None for the URI of another filesystem."""
    if path.startswith("file://"):
        return os.fsdecode(unquote_to_bytes(path.removeprefix("file://")))
    return None if "://" in path else path


def path_in_text(name: str, as_uri: bool = False) -> str:
    """A file name as text that stores, lists and answers can hold.

    A name that is not UTF-8 becomes a `file:` URI, as any name does on request.
    """
    raw = os.fsencode(name)
    try:
        raw.decode()
    except UnicodeDecodeError:
        as_uri = True
    return "file://" + quote(raw, safe="/!$&'()*+,;=:@~") if as_uri else name


def read_bytes(path: str, most: int | None = None) -> bytes:
    """The bytes of one file. Raises OSError, and PictureTooLarge for more than `most` bytes."""
    with _open(path) as file:
        size = file.seek(0, os.SEEK_END)
        if most is not None and size > most:
            raise PictureTooLarge(f"the file has {size:,} bytes; the limit is {most:,}")
        file.seek(0)
        data: bytes = file.read()
    return data


class StoredPictures:
    """Reads and decodes the pictures of stored images."""

    def __init__(self, store: Store, decoder: Decoder) -> None:
        self._store = store
        self._decoder = decoder

    def whole(self, image: Image) -> Picture:
        """The picture from the kept upload or the file.

        Raises InvalidInput when there is neither, or the file can't be read or is another picture
        now.
        """
        data = self._store.original(image.image_id, image.generation)
        if data is None:
            if image.source == "online":
                raise InvalidInput("the upload is no longer kept: add the picture again")
            try:
                data = read_bytes(image.source)
            except OSError as exc:
                raise InvalidInput(f"can't be read: {exc.strerror or exc}") from exc
            if hashlib.sha256(data).hexdigest() != image.sha256:
                raise InvalidInput(f"{image.source} is another picture now: backfill it again")
        return self._decoder.decode_blocking(data)

    def small(self, image: Image) -> Picture:
        """The stored preview; without one, the whole picture. Raises as `whole` does."""
        preview = self._store.preview(image.image_id)
        return self._decoder.decode_blocking(preview) if preview else self.whole(image)


def modified(path: str) -> float:
    """When a local file was last modified, in seconds since the epoch; 0 if that is unknown."""
    local = local_path(path)
    try:
        return 0.0 if local is None else os.stat(local).st_mtime
    except OSError:
        return 0.0


def _open(path: str) -> Any:
    local = local_path(path)
    if local is not None:
        return open(local, "rb")
    filesystem, inside = open_source(path)
    return filesystem.open_input_file(inside)


def _is_folder(filesystem: Any, root: str, source: str) -> bool:
    found = filesystem.get_file_info(root).type
    if found == fs.FileType.NotFound:
        raise InvalidInput(f"there is no {source}", "source")
    return bool(found == fs.FileType.Directory)


def _listed_in(source: str) -> list[str]:
    """The paths in a list, or a single picture."""
    try:
        data = read_bytes(source)
    except FileNotFoundError as exc:
        raise InvalidInput(f"there is no {source}", "source") from exc
    except OSError as exc:
        raise InvalidInput(f"can't read {source}: {exc.strerror or exc}", "source") from exc
    if kind_of(data) is not None:
        return [source]
    if (other := other_kind(data)) is not None:
        raise InvalidInput(f"{source} is a {other}, no list of pictures", "source")
    lines = (os.fsdecode(line.strip()) for line in data.splitlines())
    return sorted(path_in_text(line) for line in lines if line)


def _walk(root: str, as_uri: bool, ignored: Callable[[str], bool], listing: Listing) -> None:
    """List a folder's files once each: links come last, and only to what is not listed yet."""
    todo, links = [root], deque[str]()
    folders, files = set[tuple[int, int]](), set[tuple[int, int]]()
    while todo or links:
        is_link = not todo
        at = links.popleft() if is_link else todo.pop()
        try:
            about = os.stat(at)
            key = about.st_dev, about.st_ino
            if not stat.S_ISDIR(about.st_mode):
                if stat.S_ISREG(about.st_mode) and not (is_link and key in files):
                    files.add(key)
                    text = path_in_text(at, as_uri)
                    listing.add(text, _kind_unless_picture(text))
                continue
            if key in folders:
                continue
            folders.add(key)
            with os.scandir(at) as entries:
                for entry in entries:
                    if ignored(entry.name):
                        listing.ignored += 1
                    elif entry.is_symlink():
                        links.append(entry.path)
                    else:
                        todo.append(entry.path)
        except OSError as exc:
            if at == root:
                raise InvalidInput(f"can't read {root}: {exc.strerror}", "source") from exc
            listing.bad.append(Bad(path_in_text(at), f"can't be read: {exc.strerror}"))


def _kind_unless_picture(path: str) -> str | None:
    """What a file is that is no picture, by its name or else its content. Raises OSError."""
    if PurePosixPath(path).suffix.lower() in SUFFIXES:
        return None
    with _open(path) as file:
        head: bytes = file.read(HEAD)
    return None if kind_of(head) is not None else other_kind(head) or _OTHER


def _pattern(ignore: Sequence[str]) -> Callable[[str], bool]:
    if not any(ignore):
        return lambda _: False
    together = re.compile("|".join(map(fnmatch.translate, filter(None, ignore))), re.IGNORECASE)
    return lambda name: together.match(name) is not None


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
    local = local_path(source)
    filesystem, inside = (None, local) if local is not None else open_source(source)
    try:
        table = pyarrow.parquet.read_table(inside, columns=["path"], filesystem=filesystem)
    except (OSError, ValueError) as exc:
        raise InvalidInput(f"can't read a `path` column from {source}: {exc}", "source") from exc
    return sorted(str(path) for path in table.column("path").to_pylist())
