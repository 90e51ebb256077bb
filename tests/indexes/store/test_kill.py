"""Two writers and two replicas on one store, killed again and again."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from indexes.store.base import Store
from tests.indexes.pictures import LOCAL, PHASH, known, row_of, scanned, tail
from tests.indexes.store.forks import Forks, lines, wait_for
from tests.indexes.store.kill_processes import JournalEntry, journal, opened, settled, write_of

MANY = pytest.param(200, marks=pytest.mark.soak)


@pytest.mark.parametrize("kills", [40, MANY])
def test_nothing_acknowledged_is_lost_when_processes_are_killed(tmp_path: Path, kills: int) -> None:
    folder = tmp_path / "store"
    kill_and_check(str(folder), tmp_path, kills, 5 * kills)
    assert (folder / "data.mdb").stat().st_size > 1 << 18


@pytest.mark.parametrize("kills", [40, MANY])
def test_nothing_acknowledged_is_lost_when_processes_on_postgresql_are_killed(
    tmp_path: Path, new_database: Callable[[], str], kills: int
) -> None:
    kill_and_check(new_database(), tmp_path, kills, kills)


def test_of_what_killed_processes_add_at_once_one_copy_is_stored(tmp_path: Path) -> None:
    add_once_and_check(str(tmp_path / "store"), tmp_path)


def test_of_what_killed_processes_add_at_once_postgresql_stores_one_copy(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    add_once_and_check(new_database(), tmp_path)


def add_once_and_check(url: str, tmp_path: Path) -> None:
    """Kill processes that add the same groups; check that each is stored once, and whole."""
    path = tmp_path / "acknowledged"
    dice = random.Random(7)
    with Forks("tests.indexes.store.kill_processes") as forks:
        pids = [forks.start("add_once", url, str(path)) for _ in range(3)]
        for _ in range(12):
            time.sleep(dice.uniform(0.05, 0.25))
            forks.kill(pids.pop(0))
            pids.append(forks.start("add_once", url, str(path)))
        there = len(lines(path))
        wait_for(lambda: len(lines(path)) > there + 5, 30)
    store = opened(url)
    stored = Counter(str(image.metadata["content"]) for image in store.images(limit=100_000))
    store.close()
    acknowledged = Counter(lines(path))
    assert set(stored.values()) == set(acknowledged.values()) == {1}
    firsts = {content for content in stored if not content.endswith(" too")}
    assert stored.keys() == firsts | {f"{content} too" for content in firsts}
    assert firsts >= acknowledged.keys()
    assert len(firsts) > 5


def kill_and_check(url: str, tmp_path: Path, count: int, least: int) -> None:
    journals = [tmp_path / "writer0", tmp_path / "writer1"]
    reports = [tmp_path / "replica0", tmp_path / "replica1"]
    with Forks("tests.indexes.store.kill_processes") as forks:
        kills = kill_at_random(forks, url, journals, reports, count)
    assert sum(kills.values()) == count
    assert min(kills.values()) >= count // 10
    store = opened(url)
    check_images(store, journals)
    check_spaces(store)
    answers = Counter(line for path in reports for line in lines(path))
    deeds = sum(len(journal(path)) for path in journals)
    print(f"\n{deeds // 2} deeds, {answers['ok']} answers, kills {dict(kills)}")
    assert set(answers) == {"ok"}
    assert answers["ok"] > count
    assert deeds > least
    store.close()


def kill_at_random(
    forks: Forks, url: str, journals: list[Path], reports: list[Path], count: int
) -> Counter[str]:
    """Kill and restart a random process `count` times; return how often each was killed."""
    dice = random.Random(7)
    names = [str(path) for path in journals]

    def start(name: str, run: int) -> int:
        number = int(name[-1])
        if name.startswith("writer"):
            return forks.start("write", url, names[number], 100 * number, run)
        return forks.start("follow", url, str(reports[number]), names)

    pids = {name: start(name, 0) for name in ("writer0", "writer1", "replica0", "replica1")}
    kills: Counter[str] = Counter()
    for run in range(1, count + 1):
        time.sleep(dice.uniform(0.05, 0.35))
        name = dice.choice(sorted(pids))
        forks.kill(pids[name])
        kills[name] += 1
        pids[name] = start(name, run)
    # Each must have resumed work after the last kill.
    sizes = {path: len(lines(path)) for path in journals + reports}
    wait_for(lambda: all(len(lines(path)) > size + 2 for path, size in sizes.items()), 20)
    return kills


def check_images(store: Store, journals: list[Path]) -> None:
    """Check that each id holds its last acknowledged content or one that a killed writer began."""
    certain = settled(journals)
    for path in journals:
        for image_id, allowed in possible(journal(path)).items():
            image = store.image(image_id)
            content = "" if image is None else image.metadata["content"]
            assert content in allowed, (image_id, content, allowed)
            assert image_id not in certain or certain[image_id].content == content
            if image is not None:
                check_whole(store, image_id, content)


def possible(deeds: list[JournalEntry]) -> dict[int, set[str]]:
    """Return the contents that each id may have."""
    allowed: dict[int, set[str]] = {}
    for deed in deeds:
        if deed.done:
            allowed[deed.image_id] = {deed.content}
        else:
            allowed.setdefault(deed.image_id, {""}).add(deed.content)
    return allowed


def check_whole(store: Store, image_id: int, content: str) -> None:
    image = known(store, image_id)
    assert image.sha256 == write_of(image_id, content, True).sha256
    assert store.preview(image_id) == row_of(f"preview {content}", 3000)
    assert store.rows(PHASH, [image_id]) == {image_id: row_of(content)}
    assert store.ids_by_metadata({"content": content}) == [image_id]
    if image.pending:
        assert store.rows(LOCAL, [image_id]) == {}
        original = row_of(f"original {content}", 5000) if image.has_original else None
        assert store.original(image_id, image.generation) == original
    else:
        assert store.rows(LOCAL, [image_id]) == {image_id: row_of(f"local {content}", 4000)}
        assert not image.has_original


def check_spaces(store: Store) -> None:
    """Check that there is no row without its image and that the log leads to the rows."""
    images = {image.image_id: image for image in store.images(limit=1000)}
    assert store.count() == len(images)
    head, rows = scanned(store, PHASH)
    assert rows.keys() == images.keys()
    assert head == store.head()
    complete = {at for at, image in images.items() if not image.pending}
    assert scanned(store, LOCAL)[1].keys() == complete
    assert {
        work.image_id for work in store.pending("local", limit=1000)
    } == images.keys() - complete
    assert {at: row for at, row in tail(store, PHASH, 0).rows.items() if row} == rows
