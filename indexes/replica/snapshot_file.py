"""The format of a snapshot file: a JSON header, arrays, and a checksum over all preceding bytes.

    magic (16) | header's length (8) | header | arrays, one after another | XXH3-128

The length is little-endian; the header gives each array's dtype. A file is never modified: a new
one replaces it atomically.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import orjson
from xxhash import xxh3_128

from indexes.arrays.frozen import Frozen, Saved
from models.errors import SnapshotRejected

MAGIC = b"ambience index 1"
LENGTH = np.dtype("<u8")
START = len(MAGIC) + LENGTH.itemsize
CHECKSUM = xxh3_128().digest_size
READ_BYTES = 8 << 20
SYNC_BYTES = 64 << 20
"""Bytes written between two syncs, so that the sync of an add never waits for more than this."""

Take = Callable[[Iterator[npt.NDArray[Any]]], npt.NDArray[Any] | None]
"""Function that takes the next piece of a frozen array on its index's thread; None after the
last."""


class SnapshotFile(Saved):
    """An open snapshot file with a verified checksum."""

    def __init__(self, file: BinaryIO, header: Mapping[str, Any], start: int) -> None:
        self.header = header
        self.scalars = header["scalars"]
        self._file = file
        self._places: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
        for name, dtype, shape in header["arrays"]:
            self._places[name] = start, np.dtype(dtype), tuple(shape)
            start += np.dtype(dtype).itemsize * math.prod(shape)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._places[name][2]

    def array(self, name: str) -> npt.NDArray[Any]:
        _, dtype, shape = self._places[name]
        array = np.empty(shape, dtype)
        self.fill(name, [array])
        return array

    def fill(self, name: str, parts: Iterable[npt.NDArray[Any]]) -> None:
        self._file.seek(self._places[name][0])
        for part in parts:
            _read_into(self._file, part)


def write(path: Path, header: Mapping[str, Any], frozen: Frozen, take: Take) -> None:
    """Write a snapshot beside `path`, then rename it, so that readers never see a partial file.

    `header` is JSON. Raises OSError; the old file then stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{path.name}.*.partial"):
        left.unlink(missing_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            _write(file, header, frozen, take)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def opened(path: Path) -> Iterator[SnapshotFile]:
    """Open a snapshot file and verify its checksum; the arrays are read afterwards, on demand.

    Raises SnapshotRejected for a damaged file, and OSError for a missing or unreadable one.
    """
    with path.open("rb", buffering=0) as file:
        _check(file)
        found = _header(file)
        assert found is not None
        yield SnapshotFile(file, *found)


def header_of(path: Path) -> Mapping[str, Any] | None:
    """Read the header without verifying the checksum; None if there is no file with a header.

    Raises OSError.
    """
    try:
        with path.open("rb", buffering=0) as file:
            found = _header(file)
    except FileNotFoundError:
        return None
    return None if found is None else found[0]


def _write(file: BinaryIO, header: Mapping[str, Any], frozen: Frozen, take: Take) -> None:
    arrays = [(name, one.dtype.str, one.shape) for name, one in frozen.arrays.items()]
    text = orjson.dumps({**header, "scalars": frozen.scalars, "arrays": arrays})
    digest = xxh3_128()
    unsynced = 0

    def put(data: bytes | memoryview) -> None:
        nonlocal unsynced
        digest.update(data)
        unsynced += file.write(data)
        if unsynced >= SYNC_BYTES:
            file.flush()
            os.fdatasync(file.fileno())
            unsynced = 0

    put(MAGIC + np.array(len(text), LENGTH).tobytes() + text)
    for one in frozen.arrays.values():
        while (piece := take(one.pieces)) is not None:
            put(_bytes_of(np.ascontiguousarray(piece)))
    file.write(digest.digest())


def _check(file: BinaryIO) -> None:
    left = os.fstat(file.fileno()).st_size - CHECKSUM
    if left < START:
        raise SnapshotRejected("it is too short")
    digest = xxh3_128()
    buffer = np.empty(min(left, READ_BYTES), np.uint8)
    while left:
        block = buffer[:left]
        _read_into(file, block)
        digest.update(_bytes_of(block))
        left -= len(block)
    if file.read(CHECKSUM) != digest.digest():
        raise SnapshotRejected("its checksum is wrong")


def _header(file: BinaryIO) -> tuple[Mapping[str, Any], int] | None:
    """Read the header and the offset of the arrays; None for a file of another kind or version."""
    file.seek(0)
    start = file.read(START)
    if len(start) < START or start[: len(MAGIC)] != MAGIC:
        return None
    size = int(np.frombuffer(start, LENGTH, offset=len(MAGIC))[0])
    if size > os.fstat(file.fileno()).st_size:
        return None
    try:
        header: Mapping[str, Any] = orjson.loads(file.read(size))
    except orjson.JSONDecodeError:
        return None
    return header, START + size


def _read_into(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    view = _bytes_of(array)
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise SnapshotRejected("it is too short")
        view = view[count:]


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """The memory of a contiguous array, as bytes."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
