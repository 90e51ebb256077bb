"""Recall of copies: `python benchmarks/quality.py CORPUS_FOLDER`, with photos/ and pairs/ in it.

Every photograph is changed in the named ways, encoded as a file, decoded by the service's decoder
and searched for among all photographs and pairs, by each retriever alone and by all fused. Then a
picture of pairs/ looks for another of its group, and unrelated pictures are verified against each
other. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from indexes.base import Hit, Index, Query
from indexes.local.index import LocalIndex
from indexes.local.ranking import MIN_INLIERS
from indexes.ranking.fusion import RankedList, fuse
from indexes.registry import make_index
from indexes.relation.proposals import Proposals, QuerySide, relations
from indexes.store.base import Preview
from models.base import Extractor
from models.errors import AmbienceError
from models.pictures.decoding import Picture, decode
from models.registry import make_extractor
from models.types import Features

ANGLES = tuple(range(10, 360, 10))
NAMES = ("phash", "color", "local")


class Change(NamedTuple):
    """A way to change a picture; `page` is another photograph, to put it on."""

    make: Callable[[Image.Image, Random, Image.Image], Image.Image]
    method: str
    """Whose recall has the target: `local` alone, or `fused`."""
    target: float
    quality: int = 85


def cut(image: Image.Image, area: float, random: Random) -> Image.Image:
    width, height = (max(1, round(side * area**0.5)) for side in image.size)
    left = random.randint(0, image.width - width)
    top = random.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def thumbnail(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((160, 160), Image.Resampling.LANCZOS)
    return small


def pasted(image: Image.Image, random: Random, page: Image.Image) -> Image.Image:
    """The picture at half size, somewhere on the page, which is as large as the picture was."""
    whole = page.resize(image.size, Image.Resampling.LANCZOS)
    half = halved(image)
    left = random.randint(0, whole.width - half.width)
    whole.paste(half, (left, random.randint(0, whole.height - half.height)))
    return whole


def halved(image: Image.Image) -> Image.Image:
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)))


def turned(image: Image.Image, angle: int) -> Image.Image:
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=True)


def bordered(image: Image.Image) -> Image.Image:
    return ImageOps.expand(image, (0, image.height // 8), "black")


CHANGES: dict[str, Change] = {
    "quality 30": Change(lambda i, _r, _p: i, "fused", 0.99, 30),
    "quality 10": Change(lambda i, _r, _p: i, "fused", 0.99, 10),
    "half size": Change(lambda i, _r, _p: halved(i), "fused", 0.99),
    "grey": Change(lambda i, _r, _p: i.convert("L").convert("RGB"), "fused", 0.99),
    "brightness 1.4": Change(
        lambda i, _r, _p: ImageEnhance.Brightness(i).enhance(1.4), "fused", 0.99
    ),
    "brightness 0.6": Change(
        lambda i, _r, _p: ImageEnhance.Brightness(i).enhance(0.6), "fused", 0.99
    ),
    "contrast 1.4": Change(lambda i, _r, _p: ImageEnhance.Contrast(i).enhance(1.4), "fused", 0.99),
    "contrast 0.6": Change(lambda i, _r, _p: ImageEnhance.Contrast(i).enhance(0.6), "fused", 0.99),
    "blur 1.5 px": Change(lambda i, _r, _p: i.filter(ImageFilter.GaussianBlur(1.5)), "fused", 0.99),
    "black borders": Change(lambda i, _r, _p: bordered(i), "fused", 0.99),
    "mirror": Change(lambda i, _r, _p: ImageOps.mirror(i), "fused", 0.99),
    "half of it": Change(lambda i, r, _p: cut(i, 0.5, r), "local", 0.97),
    "half, mirrored": Change(lambda i, r, _p: ImageOps.mirror(cut(i, 0.5, r)), "local", 0.97),
    "quarter of it": Change(lambda i, r, _p: cut(i, 0.25, r), "local", 0.95),
    "160 px": Change(lambda i, _r, _p: thumbnail(i), "local", 0.92),
    "half at 160 px": Change(lambda i, r, _p: thumbnail(cut(i, 0.5, r)), "local", 0.90),
    "on another page": Change(pasted, "local", 0.90),
    "turned by 10s": Change(lambda i, r, _p: turned(i, r.choice(ANGLES)), "local", 0.97),
}
UNRELATED_TARGET = 0.999


@dataclass(frozen=True)
class Corpus:
    """All pictures by number: photographs first, then the pairs."""

    paths: Sequence[Path]
    photos: int
    groups: Mapping[int, str]
    """Of each picture of a pair: its group."""
    kinds: Mapping[int, str]

    @classmethod
    def read(cls, folder: Path) -> Corpus:
        photos = [path for path in sorted((folder / "photos").iterdir()) if _is_picture(path)]
        with (folder / "pairs" / "groups.tsv").open(newline="") as table:
            rows = list(csv.DictReader(table, delimiter="\t"))
        paths = photos + [folder / "pairs" / row["file"] for row in rows]
        numbers = range(len(photos), len(paths))
        groups = {number: row["group"] for number, row in zip(numbers, rows, strict=True)}
        kinds = {number: row["kind"] for number, row in zip(numbers, rows, strict=True)}
        return cls(paths, len(photos), groups, kinds)

    def related(self, one: int, other: int) -> bool:
        return one == other or self.groups.get(one, one) == self.groups.get(other, other)


def twins(features: Mapping[int, Features]) -> dict[int, set[int]]:
    """By picture: those that are the same one in another file, by pHashes (72,) uint8."""
    hashes = np.stack([features[number] for number in sorted(features)])
    near = np.bitwise_count(hashes[:, None] ^ hashes).sum(axis=2, dtype=np.int64) < 16
    return {number: set(np.flatnonzero(row).tolist()) for number, row in enumerate(near)}


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in {".jpg", ".jpeg", ".png"}


@dataclass
class Search:
    """What each worker holds: the retrievers, and their indexes over the whole corpus."""

    corpus: Corpus
    extractors: dict[str, Extractor]
    features: dict[str, dict[int, Features]]
    previews: dict[int, Preview]
    indexes: dict[str, Index]

    def hits(self, picture: Picture) -> dict[str, list[Hit]]:
        """The hits of each retriever as a fused search asks it."""
        found = {}
        for name, extractor in self.extractors.items():
            query = Query(extractor.extract_variants(picture.view(extractor.view), "mirror"))
            index = self.indexes[name]
            found[name] = index.answer(query, index.Params.parse(index.fused))
        return found

    def find(self, data: bytes, aside: int) -> Best:
        """The best picture of each retriever and of their fusion, one picture set aside."""
        picture = decode(data)
        hits = {
            name: [hit for hit in found if hit.image_id != aside]
            for name, found in self.hits(picture).items()
        }
        proposals, lists = Proposals(), []
        for name, found in hits.items():
            verifying = self.indexes[name].verifying
            lists.append(RankedList(name, found, verifying=verifying))
            if verifying:
                proposals.add(found)
        related = relations(QuerySide.of(picture), proposals, self.previews)
        fused = fuse(lists, relations=related)
        best = {name: next(_sure(found), None) for name, found in hits.items()}
        top = fused[0] if fused else None
        return Best(
            {**best, "fused": top.image_id if top is not None else None},
            top is not None and top.verified,
        )


class Best(NamedTuple):
    """The best picture of each retriever and of their fusion."""

    found: dict[str, int | None]
    verified: bool
    """Whether that of the fusion is verified."""


def _sure(hits: Sequence[Hit]) -> Iterator[int]:
    """The images that a search by one retriever shows."""
    return (hit.image_id for hit in hits if hit.inliers is None or hit.inliers >= MIN_INLIERS)


SEARCH: Search
"""Of this worker process."""


def start(
    corpus: Corpus,
    names: Sequence[str],
    features: dict[str, dict[int, Features]],
    previews: dict[int, Preview],
    exact: bool = False,
) -> None:
    import cv2

    global SEARCH  # noqa: PLW0603 (a worker's own)
    cv2.setNumThreads(1)
    extractors = {name: make_extractor(name) for name in names}
    indexes = {}
    for name, extractor in extractors.items():
        rows = features.get(name, {})
        options = {"train_above": 10**9} if exact and name == "local" else {}
        index = make_index(extractor.index, options, lambda ids, rows=rows: _entries(rows, ids))
        index.apply(rows)
        if isinstance(index, LocalIndex):
            index.wait_for_training()
        indexes[name] = index
    SEARCH = Search(corpus, extractors, features, previews, indexes)


def _entries(rows: Mapping[int, Features], ids: Sequence[int]) -> dict[int, Features]:
    return {number: rows[number] for number in ids if number in rows}


def extract(number: int) -> tuple[dict[str, Features], Preview]:
    picture = decode(SEARCH.corpus.paths[number].read_bytes())
    features = {
        name: extractor.extract(picture.view(extractor.view))
        for name, extractor in SEARCH.extractors.items()
    }
    return features, Preview(picture.width, picture.height, picture.preview_jpeg())


def search_copy(task: tuple[str, int]) -> tuple[str, int, Best]:
    """Change a photograph and search for it; the page that it may lie on is set aside."""
    name, number = task
    change = CHANGES[name]
    random = Random(f"{name} {number}")
    other = (number + random.randint(1, SEARCH.corpus.photos - 1)) % SEARCH.corpus.photos
    made = change.make(_upright(number), random, _upright(other))
    file = io.BytesIO()
    made.save(file, "JPEG", quality=change.quality)
    return name, number, SEARCH.find(file.getvalue(), other)


def _upright(number: int) -> Image.Image:
    image = Image.open(SEARCH.corpus.paths[number])
    return ImageOps.exif_transpose(image).convert("RGB")


def search_pair(number: int) -> tuple[int, Best]:
    return number, SEARCH.find(SEARCH.corpus.paths[number].read_bytes(), number)


def count_unrelated(number: int) -> tuple[int, list[tuple[int, int]]]:
    """How many unrelated pictures were verified against this one, and those with inliers."""
    extractor, corpus = SEARCH.extractors["local"], SEARCH.corpus
    pixels = decode(corpus.paths[number].read_bytes()).view(extractor.view)
    query = Query(extractor.extract_variants(pixels, "mirror"))
    rows = SEARCH.features["local"]
    others = [other for other in rows if not corpus.related(number, other)]
    verified = []
    for other in others:
        alone = make_index(extractor.index, {}, lambda ids: _entries(rows, ids))
        alone.apply({other: rows[other]})
        hits = alone.search(query, alone.Params.parse({"k": 1}))
        verified.extend((other, hit.inliers or 0) for hit in hits)
    return len(others), verified


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--every", type=int, default=1, help="Change every nth photograph only.")
    parser.add_argument("--changes", nargs="*", default=list(CHANGES), choices=list(CHANGES))
    parser.add_argument("--retrievers", nargs="*", default=list(NAMES), choices=list(NAMES))
    parser.add_argument(
        "--exact", action="store_true", help="Search local by the index of small collections."
    )
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    began = time.perf_counter()
    corpus = Corpus.read(args.corpus)
    features, previews = _extracted(corpus, args.retrievers, args.jobs)
    with _pool(args.jobs, corpus, args.retrievers, features, previews, args.exact) as pool:
        tasks = _tasks(corpus, args.changes, args.every)
        same = twins(features["phash"]) if "phash" in features else {}
        answers = pool.map(search_copy, tasks, chunksize=8)
        fine = report_changes(corpus, answers, args.retrievers, same)
        report_pairs(corpus, pool.map(search_pair, corpus.groups, chunksize=4), args.retrievers)
        if "local" in args.retrievers:
            sample = range(0, len(corpus.paths), 3 * args.every)
            fine &= report_unrelated(corpus, sample, pool.map(count_unrelated, sample))
    print(f"{time.perf_counter() - began:.0f} s")
    return 0 if fine else 1


def _pool(
    jobs: int,
    corpus: Corpus,
    names: Sequence[str],
    features: dict[str, dict[int, Features]],
    previews: dict[int, Preview],
    exact: bool = False,
) -> ProcessPoolExecutor:
    arguments = (corpus, names, features, previews, exact)
    return ProcessPoolExecutor(jobs, get_context("spawn"), start, arguments)


def _extracted(
    corpus: Corpus, names: Sequence[str], jobs: int
) -> tuple[dict[str, dict[int, Features]], dict[int, Preview]]:
    with _pool(jobs, corpus, names, {}, {}) as pool:
        rows = list(pool.map(extract, range(len(corpus.paths)), chunksize=8))
    features = {name: {number: row[name] for number, (row, _) in enumerate(rows)} for name in names}
    return features, {number: preview for number, (_, preview) in enumerate(rows)}


def _tasks(corpus: Corpus, changes: Sequence[str], every: int) -> list[tuple[str, int]]:
    return [(name, number) for name in changes for number in range(0, corpus.photos, every)]


def report_changes(
    corpus: Corpus,
    answers: Iterator[tuple[str, int, Best]],
    names: Sequence[str],
    same: Mapping[int, set[int]],
) -> bool:
    columns = [*names, "fused"]
    print(f"{'recall@1 under':18}", *(f"{name:>8}" for name in columns), "  target", flush=True)
    fine = True
    for change, group in groupby(answers, key=lambda answer: answer[0]):
        found = [(same.get(number, {number}), number, best.found) for _, number, best in group]
        recall = {
            name: sum(best[name] in right for right, _, best in found) / len(found)
            for name in columns
        }
        method, target = CHANGES[change].method, CHANGES[change].target
        missed = method in recall and recall[method] < target
        fine &= not missed
        shown = " ".join(f"{recall[name]:8.3f}" for name in columns)
        print(f"{change:18} {shown}   {method} {target:.2f}{'  MISSED' if missed else ''}")
        wrong = [number for right, number, best in found if best.get("local", number) not in right]
        if wrong:
            print("  local misses", ", ".join(corpus.paths[number].stem for number in wrong))
        sys.stdout.flush()
    return fine


def report_pairs(corpus: Corpus, answers: Iterator[tuple[int, Best]], names: Sequence[str]) -> None:
    right: defaultdict[str, Counter[str]] = defaultdict(Counter)
    total: Counter[str] = Counter()
    for number, best in answers:
        kind = corpus.kinds[number]
        total[kind] += 1
        for name, found in best.found.items():
            right[kind][name] += found is not None and corpus.related(number, found)
        top = best.found["fused"]
        related = top is not None and corpus.related(number, top)
        right[kind]["verified"] += related and best.verified
    columns = [*names, "fused", "verified"]
    print(f"\n{'recall@1 in pairs':22}", *(f"{name:>8}" for name in columns), "  pictures")
    for kind, count in total.items():
        shown = " ".join(f"{right[kind][name] / count:8.2f}" for name in columns)
        print(f"{kind:22} {shown}   {count}")


def report_unrelated(
    corpus: Corpus, sample: Sequence[int], answers: Iterator[tuple[int, list[tuple[int, int]]]]
) -> bool:
    pairs = 0
    verified = []
    for number, (count, found) in zip(sample, answers, strict=True):
        pairs += count
        verified += [(inliers, number, other) for other, inliers in found]
    share = 1 - len(verified) / pairs
    print(f"\nunrelated pairs without a verified match: {share:.5f} of {pairs}")
    for inliers, number, other in sorted(verified, reverse=True)[:10]:
        print(f"  {inliers} inliers: {corpus.paths[number].name}, {corpus.paths[other].name}")
    return share >= UNRELATED_TARGET


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AmbienceError as exc:
        sys.exit(str(exc))
