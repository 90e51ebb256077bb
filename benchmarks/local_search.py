"""Local search at scale: `python benchmarks/local_search.py PHOTOS_FOLDER [--pictures 10000]`.

With `--ours` only ours is measured, after the steps of `ambience train`: for 100,000 pictures.

The collection is the photographs and, up to the number asked for, pictures made up of their
keypoints: each has the place of one, the descriptor of another with a quarter of its dimensions of
a third, and noise. Queries are crops, mirrored crops and thumbnails of the photographs. Compared,
after extraction: our exact search, our trained index, and the old services' way with the same
trained index: 200 descriptors of the query, 10 nearest of each, the image of every hit looked up in
a database, each image's descriptors read point by point, mutual matching, RANSAC. Exits with 1 if
ours is not 10 times as fast, or finds less.
"""

from __future__ import annotations

import argparse
import io
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import cv2
import faiss
import lmdb
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.learnt import train_file
from indexes.base import Query
from indexes.inverted.file import POINTS_PER_LIST, list_count
from indexes.local.descriptors import DescriptorSearch, unit
from indexes.local.index import LocalIndex
from models.pictures.decoding import decode
from models.registry import make_extractor
from models.types import Features

RATIO_TARGET = 10.0
Rows = dict[int, Features]


class Question(NamedTuple):
    image_id: int
    variants: list[Features]
    stored: Features
    """What the old way asks with: as many keypoints as are stored."""


def files(folder: Path) -> list[bytes]:
    kinds = {".jpg", ".jpeg", ".png"}
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix.lower() in kinds]


def made_up(real: Sequence[Features], number: int) -> Features:
    """A picture of 200 keypoints like real ones, whose descriptors and places are nobody's."""
    rng = np.random.default_rng(number)
    pool = np.concatenate([real[pick] for pick in rng.integers(0, len(real), 8)])
    picture: Features = pool[rng.integers(0, len(pool), 200)].copy()
    strangers = pool["descriptor"][rng.integers(0, len(pool), 200)]
    swapped = rng.random((200, 128)) < 0.25
    composite = np.where(swapped, strangers, picture["descriptor"])
    picture["descriptor"] = np.rint(composite + rng.normal(0, 10, composite.shape)).clip(0, 255)
    for name in ("x", "y", "scale", "angle"):
        picture[name] = pool[name][rng.integers(0, len(pool), 200)]
    return picture


def questions(photos: Sequence[bytes], count: int) -> list[Question]:
    extractor = make_extractor("local")
    asked = []
    for number in range(count):
        image_id = number * len(photos) // count
        random = Random(number)
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(photos[image_id]))).convert("RGB")
        image = _changed(image, random, number % 3)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=85)
        gray = decode(file.getvalue()).gray
        variants = extractor.extract_variants(gray, "mirror")
        asked.append(Question(image_id, variants, extractor.extract(gray)))
    return asked


def _changed(image: Image.Image, random: Random, how: int) -> Image.Image:
    """Half of the picture, half of it mirrored, or its thumbnail."""
    if how == 2:
        image.thumbnail((160, 160), Image.Resampling.LANCZOS)
        return image
    width, height = (round(side * 0.5**0.5) for side in image.size)
    left = random.randint(0, image.width - width)
    top = random.randint(0, image.height - height)
    half = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(half) if how else half


class OldWay:
    """The old services' search, with our trained index in the place of theirs."""

    def __init__(self, folder: Path, rows: Rows, search: DescriptorSearch) -> None:
        self._search = search
        self._wanted = np.arange(len(rows))
        self._table = sqlite3.connect(folder / "points.sqlite")
        self._table.execute("create table points (first integer primary key, image integer)")
        self._points = lmdb.open(str(folder / "descriptors"), map_size=1 << 36)
        self._ranges: dict[int, tuple[int, int]] = {}
        with self._points.begin(write=True) as write:
            for image_id, row in rows.items():
                first = image_id << 8
                self._ranges[image_id] = (first, first + len(row))
                self._table.execute("insert into points values (?, ?)", (first, image_id))
                whole = unit(row["descriptor"])
                for place in range(len(row)):
                    key = (first + place).to_bytes(8, "big")
                    point = np.array([row["x"][place], row["y"][place]])
                    write.put(key, point.tobytes() + whole[place].tobytes())

    def find(self, question: Question) -> int | None:
        descriptors = unit(question.stored["descriptor"])
        distances, ids = self._search.search(descriptors, 10, self._wanted)
        votes = Counter(self._image_of(int(hit)) for hit in ids[(distances < 0.8) & (ids >= 0)])
        places = np.stack([question.stored["x"], question.stored["y"]], axis=1)
        scores = {
            image_id: self._inliers(places, descriptors, image_id)
            for image_id, count in votes.items()
            if count >= 4
        }
        return max(scores, key=lambda image_id: scores[image_id]) if scores else None

    def _image_of(self, point: int) -> int:
        query = "select image from points where first <= ? order by first desc limit 1"
        found: int = self._table.execute(query, (point,)).fetchone()[0]
        return found

    def _inliers(
        self, places: npt.NDArray[np.float32], descriptors: npt.NDArray[np.float32], image_id: int
    ) -> int:
        with self._points.begin() as read:
            keys = (point.to_bytes(8, "big") for point in range(*self._ranges[image_id]))
            table = np.stack([np.frombuffer(read.get(key), np.float32) for key in keys])
        distances = np.sqrt(np.maximum(2 - 2 * descriptors @ table[:, 2:].T, 0))
        forth, back = _by_ratio(distances), _by_ratio(distances.T)
        pairs = [(a, b) for a, b in forth.items() if back.get(b) == a]
        if len(pairs) < 4:
            return 0
        ours, theirs = np.array(pairs).T
        _, mask = cv2.findHomography(places[ours], table[theirs, :2], cv2.RANSAC, 5.0)
        return 0 if mask is None else int(mask.sum())


def _by_ratio(distances: npt.NDArray[np.float32]) -> dict[int, int]:
    nearest = np.argsort(distances, axis=1)[:, :2]
    first, second = (np.take_along_axis(distances, nearest, axis=1)).T
    kept = np.flatnonzero(first <= 0.8 * second)
    return dict(zip(kept.tolist(), nearest[kept, 0].tolist(), strict=True))


def timed(find: Callable[[Question], int | None], asked: Sequence[Question]) -> tuple[float, float]:
    """Median seconds of a search, and recall@1."""
    find(asked[0])
    seconds, right = [], 0
    for question in asked:
        began = time.perf_counter()
        found = find(question)
        seconds.append(time.perf_counter() - began)
        right += found == question.image_id
    return float(np.median(seconds)), right / len(asked)


def ours(index: LocalIndex) -> Callable[[Question], int | None]:
    params = index.Params.parse({"k": 20})

    def find(question: Question) -> int | None:
        hits = index.search(Query(question.variants), params)
        return hits[0].image_id if hits else None

    return find


def built(rows: Rows, **options: Any) -> LocalIndex:
    def read(ids: Sequence[int]) -> Mapping[int, Features]:
        return {image_id: rows[image_id] for image_id in ids if image_id in rows}

    index = LocalIndex(LocalIndex.Config(**options), read)
    ids = sorted(rows)
    for start in range(0, len(ids), 1000):
        index.apply({image_id: rows[image_id] for image_id in ids[start : start + 1000]})
    return index


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=45)
    parser.add_argument("--flat", type=int, default=5, help="Questions for the exact search.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ours", action="store_true", help="Not the others.")
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    photos = files(args.photos)
    extractor = make_extractor("local")
    real = [extractor.extract(decode(data).gray) for data in photos]
    rows = dict(enumerate(real))
    rows |= {number: made_up(real, number) for number in range(len(real), args.pictures)}
    asked = questions(photos, args.questions)
    return report_ours(rows, asked) if args.ours else report(rows, asked, args.flat)


def learnt_from(rows: Rows, folder: Path) -> Path:
    """A file of `ambience train`, of as many pictures' descriptors as its lists need."""
    count = sum(map(len, rows.values()))
    entries_named = np.random.default_rng(1).permutation(len(rows))
    entries_named = entries_named[: 1 + list_count(count) * POINTS_PER_LIST * len(rows) // count]
    sample = unit(np.concatenate([rows[int(at)]["descriptor"] for at in entries_named]))
    method = LocalIndex(LocalIndex.Config(), lambda _: {}).training_method(sample.shape[1])
    return train_file(sample, count, method, folder)


def report_ours(rows: Rows, asked: Sequence[Question]) -> int:
    print(f"{len(rows)} pictures, {sum(map(len, rows.values()))} descriptors")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = learnt_from(rows, Path(folder))
        learning = time.perf_counter() - began
        index = built(rows, trained=str(path))
    filling = time.perf_counter() - began - learning
    print(f"learnt in {learning:.0f} s, filled in {filling:.0f} s")
    print(f"{'':16} {'median ms':>9} {'recall@1':>9} {'MB':>7}")
    _line(index.kind, *timed(ours(index), asked), index)
    for stage, seconds in stages(index, asked).items():
        print(f"  {stage}: {1e3 * seconds:.1f} ms")
    return 0


def stages(index: LocalIndex, asked: Sequence[Question]) -> dict[str, float]:
    """Median seconds."""
    params = index.Params.parse({"k": 20})
    taken: dict[str, list[float]] = {"nearest descriptors": [], "votes": [], "all": []}
    for question in asked:
        query = Query(question.variants)
        began = time.perf_counter()
        said = index._candidates(query, params)
        near = time.perf_counter()
        index.merge_candidates([said], query, params)
        voted = time.perf_counter()
        index.search(query, params)
        spans = (near - began, voted - near, time.perf_counter() - voted)
        for name, span in zip(taken, spans, strict=True):
            taken[name].append(span)
    found = {name: float(np.median(spans)) for name, spans in taken.items()}
    found["matches and verification"] = 2 * found["all"] - sum(found.values())
    return found


def report(rows: Rows, asked: Sequence[Question], flat: int) -> int:
    print(f"{len(rows)} pictures, {sum(map(len, rows.values()))} descriptors")
    print(f"{'':16} {'median ms':>9} {'recall@1':>9} {'MB':>7}")
    exact = built(rows, train_above=10**12)
    _line("exact", *timed(ours(exact), asked[:flat]), exact)
    del exact
    began = time.perf_counter()
    index = built(rows)
    index.wait_for_training()
    took = time.perf_counter() - began
    seconds, recall = timed(ours(index), asked)
    _line(index.kind, seconds, recall, index)
    print(f"  loaded, trained and grown in {took:.0f} s")
    with tempfile.TemporaryDirectory() as folder:
        old = OldWay(Path(folder), rows, index._search_by)
        old_seconds, old_recall = timed(old.find, asked)
    _line("the old way", old_seconds, old_recall, None)
    ratio = old_seconds / seconds
    print(f"the old way takes {ratio:.1f} times as long (target {RATIO_TARGET:.0f})")
    return 0 if ratio >= RATIO_TARGET and recall >= old_recall else 1


def _line(name: str, seconds: float, recall: float, index: LocalIndex | None) -> None:
    size = f"{index.nbytes / 1e6:7.0f}" if index else ""
    print(f"{name:16} {seconds * 1e3:9.1f} {recall:9.3f} {size}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
