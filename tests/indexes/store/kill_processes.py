"""Writers and replicas of the kill test, which run until they are killed.

A writer notes each operation in its journal before it starts and once more when it is
acknowledged. A replica reads the journals, queries its own index, and reports what was wrong.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from indexes.replica.follower import Follower
from indexes.store.base import Guard, ImageWrite, Store
from indexes.store.lmdb.environment import LmdbOptions
from indexes.store.lmdb.store import LmdbStore
from indexes.store.postgres.connections import PostgresOptions
from indexes.store.postgres.store import PostgresStore
from models.errors import Conflict
from tests.indexes.pictures import LOCAL, PHASH, row_of
from tests.indexes.store.forks import lines, say
from tests.indexes.tiny_index import decode, nearest, tiny

IDS = 12
"""Number of ids of each writer: few, so that every id is soon used again."""
SEARCHES = 3
"""Number of threads of a replica that search at once."""
FIRST_MAP = 1 << 18
"""Initial map size in bytes: tiny, so that the map also grows while processes are killed."""


def opened(url: str) -> Store:
    if url.startswith("postgresql:"):
        return PostgresStore(url, PostgresOptions(originals_bytes=50_000))
    return LmdbStore(Path(url), LmdbOptions(map_size=FIRST_MAP, originals_bytes=50_000))


def write_of(image_id: int | None, content: str, complete: bool) -> ImageWrite:
    """Return a write in which everything identifies the content, with or without local features."""
    features = {PHASH: row_of(content)}
    if complete:
        features[LOCAL] = row_of(f"local {content}", 4000)
    return ImageWrite(
        image_id,
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        width=4,
        height=3,
        wanted=frozenset({"phash", "local"}),
        features=features,
        metadata={"content": content},
        preview=row_of(f"preview {content}", 3000),
        original=row_of(f"original {content}", 5000),
    )


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A journal entry: an id holds `content` from now on, or "" once it is deleted.

    `line` tells apart entries that are otherwise equal, as in a delete, an add and a delete.
    """

    line: int
    image_id: int
    content: str
    done: bool


def journal(path: Path) -> list[JournalEntry]:
    deeds = []
    for number, line in enumerate(lines(path)):
        image_id, content, done = line.split(" ")
        deeds.append(JournalEntry(number, int(image_id), content.strip("."), done == "done"))
    return deeds


def write(url: str, path: str, first_id: int, run: int) -> None:
    """Add, replace, delete and complete images, one or a group at a time."""
    store = opened(url)
    dice = random.Random(f"{path} {run}")
    for step in range(10**9):
        ids = dice.sample(range(first_id, first_id + IDS), dice.choice([1, 1, 1, 4]))
        contents = ["" if dice.random() < 0.3 else f"{run}-{step}-{at}" for at in ids]
        if "" in contents:
            ids, contents = ids[:1], [""]
        deeds = [f"{at} .{content}" for at, content in zip(ids, contents, strict=True)]
        for deed in deeds:
            say(path, f"{deed} begun")
        if contents == [""]:
            store.delete(ids[0])
        else:
            pairs = zip(ids, contents, strict=True)
            store.put_many([write_of(at, content, dice.random() < 0.5) for at, content in pairs])
        for deed in deeds:
            say(path, f"{deed} done")
        complete_pending(store, dice)


def complete_pending(store: Store, dice: random.Random) -> None:
    """Read pending work and write it later like a completer, when the id may hold another image."""
    for work in store.pending("local", limit=3):
        original = store.original(work.image_id, work.generation)
        image = store.image(work.image_id)
        if dice.random() < 0.5 and image is not None and image.generation == work.generation:
            content = image.metadata["content"]
            assert original in (None, row_of(f"original {content}", 5000))
            features = {LOCAL: row_of(f"local {content}", 4000)}
            store.complete(work.image_id, work.generation, features)


def add_once(url: str, path: str) -> None:
    """Add each content of an endless sequence, with one that belongs to it in the same
    transaction, unless another process has added it."""
    store = opened(url)
    for step in range(10**9):
        content = f"{step}"

        def refuse(rows: Mapping[int, bytes], row: bytes = row_of(content)) -> None:
            if row in rows.values():
                raise Conflict("added by another process")

        try:
            group = [write_of(None, one, True) for one in (content, f"{content} too")]
            store.put_if(group, Guard(PHASH, 0, refuse))
            say(path, content)
        except Conflict:
            continue


def settled(journals: list[Path]) -> dict[int, JournalEntry]:
    """Return the last operation on each id, if it is acknowledged."""
    last = {deed.image_id: deed for path in journals for deed in journal(path)}
    return {image_id: deed for image_id, deed in last.items() if deed.done}


def follow(url: str, path: str, journals: list[str]) -> None:
    """Run a replica that searches for acknowledged images, in several threads, and checks the
    answers."""
    store = opened(url)
    follower = Follower(store, PHASH, tiny(), decode, searches=SEARCHES)
    follower.rebuild()
    paths = [Path(name) for name in journals]
    with ThreadPoolExecutor(SEARCHES) as threads:
        for ended in as_completed(
            threads.submit(keep_searching, follower, path, paths, number)
            for number in range(SEARCHES)
        ):
            ended.result()  # A search ends only by an error.


def keep_searching(follower: Follower, path: str, paths: list[Path], number: int) -> None:
    dice = random.Random(os.getpid() + number)
    while True:
        before = settled(paths)
        if not before:
            continue
        image_id = dice.choice(sorted(before))
        content = before[image_id].content or "nobody has this"
        answer = follower.search(*nearest(row_of(content), k=100))
        found = {hit.image_id: hit.distance for hit in answer.hits}
        held = [*answer_errors(before, settled(paths), image_id, found)]
        if answer.stale:
            held.append("marked stale")
        say(path, f"stale {held}" if held else "ok")


def answer_errors(
    before: dict[int, JournalEntry],
    after: dict[int, JournalEntry],
    asked: int,
    found: dict[int, float | None],
) -> Iterator[str]:
    """Yield what the answer lacks or should not contain, for ids that nobody changed meanwhile."""
    quiet = {at: deed.content for at, deed in before.items() if after.get(at) == deed}
    for image_id, content in quiet.items():
        if not content and image_id in found:
            yield f"{image_id} was deleted and is found"
        if content and image_id not in found:
            yield f"{image_id} was added and is not found"
    if quiet.get(asked) and found.get(asked) != 0.0:
        yield f"{asked} is found as another picture"
