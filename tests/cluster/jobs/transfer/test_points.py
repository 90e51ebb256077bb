"""Local features of the old services: environments of points, and a table in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import psycopg
import psycopg.types.range
import pytest

from cluster.jobs.transfer import exporting
from cluster.jobs.transfer.importing import Importer, Outcome
from cluster.jobs.transfer.points import (
    CREATE,
    INSERT,
    MOST_POINTS_ID,
    SPACE,
    checked_points,
    opened_points,
    write_points,
)
from indexes.store.base import ImageWrite, Space, Store
from indexes.store.memory.store import MemoryStore
from models.errors import InvalidInput
from models.pictures.limits import DecodeLimits
from tests.cluster.jobs.transfer.old_folder import contents, write_environment

IMAGES = {1: ("1.online", 3), 2: ("Bär.jpg", 0), 5: ("sea.jpg", 4), 70_000: ("far.jpg", 2)}
"""By id: file name and number of points."""


@pytest.fixture
def database(new_database: Callable[[], str]) -> Iterator[Callable[[], str]]:
    """Makes databases without the table, which goes with the test."""
    made: list[str] = []

    def make() -> str:
        made.append(new_database())
        return made[-1]

    yield make
    for url in made:
        with psycopg.connect(url) as connection:
            connection.execute("DROP TABLE IF EXISTS img_points")


@pytest.fixture
def url(database: Callable[[], str]) -> str:
    return database()


def old_service(
    folder: Path, url: str, images: Mapping[int, tuple[str, int]], first: int = 1000
) -> Path:
    """Write points as the old service did, from a point id on."""
    random = np.random.default_rng(1)
    keypoints, descriptors = dict[bytes, bytes](), dict[bytes, bytes]()
    with psycopg.connect(url) as connection:
        connection.execute(CREATE)
        for image_id, (name, count) in images.items():
            ids = range(first, first + count)
            first += count
            for at in ids:
                keypoints[at.to_bytes(4, "big")] = random.random(2, np.float32).tobytes()
                descriptors[at.to_bytes(4, "big")] = random.random(128, np.float32).tobytes()
            ends = psycopg.types.range.Range(ids.start, ids.stop) if count else "empty"
            connection.execute(INSERT, [image_id, name, ends])
    write_environment(folder / "keypoints.lmdb", keypoints)
    write_environment(folder / "descriptors.lmdb", descriptors)
    return folder


def bring_in(store: Store, folder: Path, url: str) -> Outcome:
    with opened_points(folder, url) as batches:
        importer = Importer(store, SPACE, checked_points, None, DecodeLimits())
        return importer.run(batches, lambda _: None)


def send_out(store: Store, folder: Path, url: str) -> exporting.Outcome:
    into = partial(write_points, folder, url)
    return exporting.export(store, SPACE, checked_points, into, lambda _: None, MOST_POINTS_ID)


def table(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT * FROM img_points ORDER BY image_id").fetchall()


def test_points_come_out_as_they_came_in(
    tmp_path: Path, url: str, database: Callable[[], str]
) -> None:
    old = old_service(tmp_path / "old", url, IMAGES)
    store = MemoryStore()
    done = bring_in(store, old, url)
    assert (done.added, done.bad) == (4, [])
    rows = store.rows(SPACE, [*IMAGES])
    assert {at: (len(row) - 8) // 520 for at, row in rows.items()} == {
        at: count for at, (_, count) in IMAGES.items()
    }
    image = store.image(5)
    assert image is not None
    assert (image.file_name, image.wanted) == ("sea.jpg", {"local"})
    other = database()
    assert send_out(store, tmp_path / "new", other).written == 4
    for name in ("keypoints.lmdb", "descriptors.lmdb"):
        assert contents(tmp_path / "new" / name) == contents(old / name)
    assert table(other) == table(url)
    again = bring_in(store, old, url)
    assert (again.added, again.extended, again.already) == (0, 0, 4)


def test_features_of_today_stay_beside_those_of_old(tmp_path: Path, url: str) -> None:
    store, today = MemoryStore(), Space("local", "today")
    wanted = frozenset({"local"})
    store.put(ImageWrite(5, "a" * 64, 64, 48, wanted, {today: b"row"}, source="/g/sea.jpg"))
    done = bring_in(store, old_service(tmp_path, url, IMAGES), url)
    assert (done.added, done.extended) == (3, 1)
    assert store.rows(today, [5]) == {5: b"row"}
    assert set(store.rows(SPACE, [*IMAGES])) == {*IMAGES}


def test_an_image_that_lacks_points_is_left_out_by_name(tmp_path: Path, url: str) -> None:
    old_service(tmp_path, url, IMAGES)
    with psycopg.connect(url) as connection:
        connection.execute(INSERT, [6, "more.jpg", psycopg.types.range.Range(1008, 1012)])
    done = bring_in(MemoryStore(), tmp_path, url)
    assert done.added == 4
    (bad,) = done.bad
    assert (bad.path, bad.reason) == (
        "6 (more.jpg)",
        "some of its points are not in the environments",
    )


def test_what_can_not_be_read_or_would_be_overwritten_is_refused(
    tmp_path: Path, url: str, database: Callable[[], str]
) -> None:
    old = old_service(tmp_path / "old", url, IMAGES)
    store = MemoryStore()
    with pytest.raises(InvalidInput, match="img_points"):
        bring_in(store, old, database())
    with pytest.raises(InvalidInput, match="can't be used"):
        bring_in(store, old, "postgresql://127.0.0.1:1/none")
    with pytest.raises(InvalidInput, match=r"keypoints\.lmdb can't be read"):
        bring_in(store, tmp_path, url)
    bring_in(store, old, url)
    with pytest.raises(InvalidInput, match="is there already"):
        send_out(store, old, database())
    with pytest.raises(InvalidInput, match="has rows already"):
        send_out(store, tmp_path / "new", url)


def test_images_of_two_imports_with_the_same_points_are_refused(
    tmp_path: Path, url: str, database: Callable[[], str]
) -> None:
    store = MemoryStore()
    bring_in(store, old_service(tmp_path / "one", url, IMAGES), url)
    second = database()
    bring_in(store, old_service(tmp_path / "two", second, {9: ("9.jpg", 2)}), second)
    with pytest.raises(InvalidInput, match="of two imports"):
        send_out(store, tmp_path / "new", database())
