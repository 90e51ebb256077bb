"""The local features of the old services: LMDB environments of points, and a table in PostgreSQL.

`keypoints.lmdb` has x and y of each point, `descriptors.lmdb` its 128 values, little-endian
float32 under point ids, big-endian. The table `img_points` gives each image its range of point ids.
No retriever computes the same features, so they are kept as they are, in a space of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import psycopg
from psycopg.types.range import Range

from cluster.jobs.transfer.environments import BATCH, MAP_BYTES, OldImage, open_readonly
from indexes.store.base import Space
from models.errors import InvalidInput

SPACE = Space("local", "old-points-1")
KEYPOINTS, DESCRIPTORS = "keypoints.lmdb", "descriptors.lmdb"
KEYPOINT_BYTES, DESCRIPTOR_BYTES = 2 * 4, 128 * 4
HEAD_BYTES = 8
"""A row begins with the id of its first point; keypoints and descriptors (n, 2) and (n, 128)
follow."""
MOST_POINTS_ID = 2**31 - 1
"""The table's ids are of four bytes, with their sign."""
SELECT = "SELECT image_id, file_name, point_id_range FROM img_points ORDER BY image_id"
CREATE = """
    CREATE TABLE IF NOT EXISTS img_points (
        image_id integer PRIMARY KEY, file_name text NOT NULL, point_id_range int4range NOT NULL
    )
"""
INSERT = "INSERT INTO img_points (image_id, file_name, point_id_range) VALUES (%s, %s, %s)"


@contextmanager
def opened_points(folder: Path, url: str) -> Iterator[Iterator[list[OldImage]]]:
    """Batches of all images with their points as rows of `SPACE`, by ascending id. The row of an
    image whose points are not all there is empty.

    Raises InvalidInput for a folder or a database that is none of the service's.
    """
    with ExitStack() as stack:
        points, values = (
            stack.enter_context(open_readonly(folder / name).begin(buffers=False))
            for name in (KEYPOINTS, DESCRIPTORS)
        )
        connection = stack.enter_context(_connected(url))
        cursor = stack.enter_context(connection.cursor(name="points"))
        cursor.itersize = BATCH
        yield _batches(cursor, points, values)


def checked_points(row: bytes) -> bytes:
    """A row of `SPACE` as it was read. Raises InvalidInput if some of its points are missing."""
    if len(row) < HEAD_BYTES:
        raise InvalidInput("some of its points are not in the environments")
    numbers = np.frombuffer(row, "<f4", offset=HEAD_BYTES)
    if not np.isfinite(numbers).all():
        raise InvalidInput("its features hold numbers that are not finite")
    return row


def write_points(folder: Path, url: str, images: Iterator[Sequence[OldImage]]) -> None:
    """Write environments and fill the table, as an old service reads them.

    Raises InvalidInput if there are such environments, or rows in the table, or if two images have
    the same points.
    """
    paths = [folder / KEYPOINTS, folder / DESCRIPTORS]
    if there := [str(path) for path in paths if path.exists()]:
        raise InvalidInput(f"{there[0]} is there already: name another folder")
    with ExitStack() as stack:
        connection = stack.enter_context(_connected(url))
        connection.execute(CREATE)
        if connection.execute("SELECT 1 FROM img_points LIMIT 1").fetchone():
            raise InvalidInput("the table img_points has rows already: name another database")
        environments = []
        for path in paths:
            path.mkdir(parents=True)
            environment = lmdb.open(str(path), map_size=MAP_BYTES)
            stack.callback(environment.close)
            environments.append(environment)
        for batch in images:
            for environment, pairs in zip(environments, _pairs(batch), strict=True):
                _put(environment, pairs)
            rows = [(one.image_id, one.file_name, _range_of(one)) for one in batch]
            connection.cursor().executemany(INSERT, rows)


def _batches(
    cursor: psycopg.ServerCursor[Any], points: lmdb.Transaction, values: lmdb.Transaction
) -> Iterator[list[OldImage]]:
    first = points.cursor()
    width = len(first.key()) if first.first() else 4
    try:
        cursor.execute(SELECT)
        while rows := cursor.fetchmany(BATCH):
            yield [_image(row, points, values, width) for row in rows]
    except psycopg.Error as exc:
        raise InvalidInput(f"the table img_points can't be read: {exc}") from exc


def _image(
    row: tuple[int, str, Range[int]], points: lmdb.Transaction, values: lmdb.Transaction, width: int
) -> OldImage:
    image_id, name, ids = row
    begin, end = (0, 0) if ids.isempty else (ids.lower or 0, ids.upper or 0)
    keys = [at.to_bytes(width, "big") for at in range(begin, end)]
    parts = [
        _values(keys, transaction, size)
        for transaction, size in ((points, KEYPOINT_BYTES), (values, DESCRIPTOR_BYTES))
    ]
    head = begin.to_bytes(HEAD_BYTES, "little")
    features = b"" if None in parts else b"".join([head, *(part or b"" for part in parts)])
    return OldImage(image_id, name or f"{image_id}.online", features)


def _values(keys: Sequence[bytes], transaction: lmdb.Transaction, size: int) -> bytes | None:
    """The values of these keys, one after the other; None if one is missing or has another size."""
    found = [bytes(transaction.get(key, b"")) for key in keys]
    return None if any(len(one) != size for one in found) else b"".join(found)


def _count(one: OldImage) -> int:
    return (len(one.features) - HEAD_BYTES) // (KEYPOINT_BYTES + DESCRIPTOR_BYTES)


def _range_of(one: OldImage) -> Range[int]:
    begin, count = int.from_bytes(one.features[:HEAD_BYTES], "little"), _count(one)
    return Range(begin, begin + count) if count else Range(empty=True)


def _pairs(batch: Sequence[OldImage]) -> tuple[list[tuple[bytes, bytes]], ...]:
    """Keypoints and descriptors by the keys of their points."""
    found: tuple[list[tuple[bytes, bytes]], ...] = ([], [])
    for one in batch:
        begin, at = int.from_bytes(one.features[:HEAD_BYTES], "little"), HEAD_BYTES
        for pairs, size in zip(found, (KEYPOINT_BYTES, DESCRIPTOR_BYTES), strict=True):
            for point in range(begin, begin + _count(one)):
                pairs.append((point.to_bytes(4, "big"), one.features[at : at + size]))
                at += size
    return found


def _put(environment: lmdb.Environment, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    with environment.begin(write=True) as transaction:
        consumed, added = transaction.cursor().putmulti(pairs, overwrite=False)
        if added < consumed:
            raise InvalidInput("two images have the same points: they are of two imports")


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    try:
        with psycopg.connect(url) as connection:
            yield connection
    except psycopg.Error as exc:
        raise InvalidInput(f"the database of the points can't be used: {exc}") from exc
