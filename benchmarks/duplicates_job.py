"""The job of `ambience duplicates` over a collection with planted copies.

    python -m benchmarks.duplicates_job PHOTOS FOLDER --images 10000
    python -m benchmarks.duplicates_job PHOTOS FOLDER --images 4000 --filler 96000 --compare 4000

The collection is made in FOLDER once. Its originals are tiles of photographs, of which no two
overlap, enlarged to 480×360; a tenth of the images are copies of them, of the kinds in COPIES. All
are files that are decoded and extracted as at an add. With `--filler` there are so many images more
whose rows are made up: hashes of real pictures with two fifths of their bits flipped, local
features put together from those of others, and previews of others. Then the job runs in a process
of its own, until so many images are compared (`--compare`). Printed are the seconds of its stages,
its largest memory beside mapped files, and the copies that it found.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from benchmarks.local_search import made_up
from cluster.cli.collection.duplicates import THREADS
from cluster.jobs.duplicates import following
from cluster.jobs.duplicates.proposers import Proposer, make_proposers
from cluster.service.applications import read_config
from indexes.duplicates.catalogue import counts
from indexes.duplicates.pairs import have_pairs
from indexes.store.base import ImageWrite, Space, Store
from indexes.store.lmdb.store import LmdbStore
from models.machine import cores
from models.pictures.decoding import decode
from models.registry import make_extractor

SIZE = 480, 360
LEAST_CONTRAST = 12.0
"""Standard deviation of grey values below which a tile shows too little to be told from others."""
GROUP = 64
NAMES = ("phash", "local")
CONFIG = Path(__file__).parent.parent / "serve_config.yaml"


def encoded(image: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def with_comment(image: Image.Image) -> bytes:
    data = encoded(image)
    return data[:2] + b"\xff\xfe\x00\x09comment" + data[2:]


def edited(image: Image.Image) -> bytes:
    changed = image.copy()
    ImageDraw.Draw(changed).rectangle((150, 110, 250, 190), fill="white", outline="black")
    return encoded(changed)


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "bytes": encoded,
    "pixels": with_comment,
    "reencode": lambda image: encoded(image, 60),
    "resize": lambda image: encoded(image.resize((320, 240), Image.Resampling.LANCZOS)),
    "turned": lambda image: encoded(ImageOps.mirror(image)),
    "crop": lambda image: encoded(image.crop((70, 50, 410, 320))),
    "bordered": lambda image: encoded(ImageOps.expand(image, 40, "white")),
    "edited": edited,
}


def tiles(folder: Path, count: int) -> Iterator[Image.Image]:
    """So many tiles of the photographs, as large as that allows."""
    photos = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            with Image.open(path) as image:
                photos.append(ImageOps.exif_transpose(image).convert("RGB"))
    width = SIZE[0]
    while True:
        found = [tile for photo in photos for tile in _tiles_of(photo, width, width * 3 // 4)]
        if len(found) >= count:
            return islice((one.resize(SIZE, Image.Resampling.LANCZOS) for one in found), count)
        width = width * 9 // 10


def _tiles_of(photo: Image.Image, width: int, height: int) -> Iterator[Image.Image]:
    for left in range(0, photo.width - width + 1, width):
        for top in range(0, photo.height - height + 1, height):
            tile = photo.crop((left, top, left + width, top + height))
            if np.asarray(tile.convert("L")).std() >= LEAST_CONTRAST:
                yield tile


class Writer:
    """Writes files with all that an add makes of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._extractors = {name: make_extractor(name) for name in NAMES}
        self.spaces = {name: Space(name, one.fingerprint) for name, one in self._extractors.items()}

    def add(self, files: Sequence[tuple[int, bytes]], threads: ThreadPoolExecutor) -> None:
        self._store.put_many(list(threads.map(lambda one: self._write(*one), files)))

    def _write(self, image_id: int, data: bytes) -> ImageWrite:
        picture = decode(data)
        return ImageWrite(
            image_id,
            hashlib.sha256(data).hexdigest(),
            picture.width,
            picture.height,
            frozenset(NAMES),
            {
                self.spaces[name]: one.to_row(one.extract(picture.view(one.view)))
                for name, one in self._extractors.items()
            },
            source=f"/pictures/{image_id}.jpg",
            preview=picture.preview_jpeg(),
            facts=picture.facts,
        )


def make(photos: Path, store: Store, images: int, filler: int) -> list[tuple[int, int, str]]:
    """Fill a store. Returns the planted copies: original, copy, level."""
    chances, planted = Random(0), []
    writer, originals = Writer(store), images - images // 10
    kinds = list(COPIES)
    # The copies lie among the originals, as they would come.
    order = list(range(images))
    chances.shuffle(order)
    files: list[tuple[int, bytes]] = []
    with ThreadPoolExecutor(cores()) as threads:
        for number, tile in enumerate(tiles(photos, originals)):
            files.append((order[number], encoded(tile)))
            if number < images // 10:
                level, copy = kinds[number % len(kinds)], order[originals + number]
                files.append((copy, COPIES[level](tile)))
                planted.append((order[number], copy, level))
            if len(files) >= GROUP:
                writer.add(files, threads)
                files = []
        writer.add(files, threads)
    _fill(store, writer.spaces, images, filler)
    return planted


def _fill(store: Store, spaces: dict[str, Space], images: int, filler: int) -> None:
    """Add images whose rows are made up."""
    if not filler:
        return
    local = make_extractor("local")
    pool = list(range(min(images, 2000)))
    rows = {name: store.rows(space, pool) for name, space in spaces.items()}
    features = [local.from_row(row) for row in rows["local"].values()]
    previews = store.previews(pool)
    model = store.images_by_id([0])[0]
    random = np.random.default_rng(1)
    for some in following.batches(range(images, images + filler), GROUP):
        writes = []
        for at in some:
            like = int(random.integers(len(pool)))
            flipped = np.packbits(random.random(576) < 0.4)
            code = np.frombuffer(rows["phash"][like], np.uint8) ^ flipped
            made = {spaces["phash"]: code.tobytes()}
            made[spaces["local"]] = local.to_row(made_up(features, at))
            sha256 = hashlib.sha256(str(at).encode()).hexdigest()
            writes.append(
                ImageWrite(
                    at,
                    sha256,
                    *SIZE,
                    frozenset(NAMES),
                    made,
                    source=f"/pictures/{at}.jpg",
                    preview=previews[like].jpeg,
                    facts=model.facts and replace(model.facts, taken=None),
                )
            )
        store.put_many(writes)


class Enough(Exception):
    """As many images as asked for were compared."""


class Stages:
    """Seconds of CPU, of all threads, by stage."""

    def __init__(self) -> None:
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self.wall: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            self.cpu[name] += time.process_time() - cpu
            self.wall[name] += time.perf_counter() - wall

    def wrap(self, of: object, method: str, name: str) -> None:
        """Time a method of an object, or a function of a module."""
        inner: Callable[..., Any] = getattr(of, method)

        def timed(*args: Any, **given: Any) -> Any:
            with self.timed(name):
                return inner(*args, **given)

        setattr(of, method, timed)


def _watch_memory(most: list[int], ended: threading.Event) -> None:
    while not ended.wait(0.1):
        status = Path("/proc/self/status").read_text()
        now = int(status.partition("RssAnon:")[2].split()[0])
        most[0] = max(most[0], now)


def job(folder: Path, compare: int | None) -> None:
    """Run the job, and print what it took."""
    ended, most, stages = threading.Event(), [0], Stages()
    threading.Thread(target=_watch_memory, args=(most, ended), daemon=True).start()
    with closing(LmdbStore(folder / "store")) as store, ThreadPoolExecutor(cores()) as threads:
        proposers = make_proposers(read_config(CONFIG), store)
        for one in proposers:
            _wrap(stages, one)
        stages.wrap(following, "regroup", "group")
        compared = 0

        def note(done: int, _: int) -> None:
            nonlocal compared
            compared = done
            if compare is not None and done >= compare:
                raise Enough

        finder = following.DuplicateFinder(store, proposers, threads, note)
        stages.wrap(finder, "_confirmed", "confirm and group")
        with stages.timed("all"):
            try:
                print(finder.run())
            except Enough:
                print(f"ended after {compared} images")
        ended.set()
        _print(stages, compared, most[0], folder, store)


def _wrap(stages: Stages, proposer: Proposer) -> None:
    stages.wrap(proposer, "load", f"load {proposer.space.kind}")
    stages.wrap(proposer, "propose", f"propose by {proposer.space.kind}")


def _print(stages: Stages, compared: int, most: int, folder: Path, store: Store) -> None:
    for name, seconds in stages.cpu.items():
        each = f"{seconds / max(compared, 1) * 1e3:.1f} ms an image"
        print(f"{name:>20}: {seconds:8.1f} s of CPU, {stages.wall[name]:8.1f} s, {each}")
    print(f"{most / 2**10:.0f} MiB at most; {store.count()} images")
    planted = json.loads((folder / "planted.json").read_text())
    stored = have_pairs(store, [(min(a, b), max(a, b)) for a, b, _ in planted])
    total, found, right = Counter[str](), Counter[str](), Counter[str]()
    after_last = compared if compared < store.count() else store.count()
    for a, b, level in planted:
        if max(a, b) < after_last:
            pair = stored.get((min(a, b), max(a, b)))
            total[level] += 1
            found[level] += pair is not None
            right[level] += pair is not None and pair.level == level
    for level in COPIES:
        print(f"{level:>20}: {total[level]} planted, {found[level]} found, {right[level]} so named")
    print(", ".join(f"{name} {one.groups}" for name, one in counts(store).items()), "groups")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--filler", type=int, default=0)
    parser.add_argument("--compare", type=int)
    given = parser.parse_args()
    if not (given.folder / "planted.json").exists():
        given.folder.mkdir(parents=True)
        began = time.process_time()
        with closing(LmdbStore(given.folder / "store")) as store:
            planted = make(given.photos, store, given.images, given.filler)
        (given.folder / "planted.json").write_text(json.dumps(planted))
        print(f"made in {time.process_time() - began:.0f} s of CPU")
    # A process of its own: its memory is that of the job alone. As in the command, each matrix
    # product and search takes one thread.
    os.environ |= dict.fromkeys(THREADS, "1")
    run = multiprocessing.get_context("spawn").Process(
        target=job, args=(given.folder, given.compare)
    )
    run.start()
    run.join()
    if run.exitcode:
        raise SystemExit(run.exitcode)


if __name__ == "__main__":
    main()
