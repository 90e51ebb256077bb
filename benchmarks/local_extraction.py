"""Extraction of `local` against OpenCV's SIFT: `python benchmarks/local_extraction.py CORPUS`.

The baseline is the way of version 0.2: OpenCV detects, Python selects, and OpenCV describes, which
builds the scale space again. Compared in one run: CPU of one thread per photograph, pictures per
second of several threads, and recall@1 of hard copies among all photographs. Exits with 1 if ours
is not 3 times as fast, or if recall of a kind of copy is more than half a percent lower.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from benchmarks.quality import CHANGES
from indexes.base import Query
from indexes.local.index import LocalIndex
from models.descriptors.base import Described
from models.descriptors.keypoints import Keypoints, resized
from models.descriptors.rootsift import RootSift, rootsift
from models.descriptors.selection import Selection
from models.errors import AmbienceError
from models.extractors.local import Local, LocalOptions
from models.pictures.decoding import decode
from models.types import Pixels

RATIO_TARGET = 3.0
RECALL_MARGIN = 0.005
HARD = ("quarter of it", "160 px", "half at 160 px", "on another page", "turned by 10s")
Run = Callable[[Pixels], object]


class OpenCvSift(RootSift):
    """The same method as in version 0.2: OpenCV detects and orients all, and describes some."""

    def describe(self, gray: Pixels, sides: tuple[int, int], selection: Selection) -> Described:
        small, factor = resized(gray, sides)
        sift = cv2.SIFT_create(  # type: ignore[attr-defined]
            contrastThreshold=-1.0, enable_precise_upscale=True
        )
        found = sift.detect(small, None)
        rows = [(*point.pt, point.size, point.angle, point.response) for point in found]
        table = np.array(rows, np.float32).reshape(-1, 5)
        strength = table[:, 4] * np.sqrt(table[:, 2])
        points = (table[:, :2] + 0.5) / factor - 0.5
        order = np.lexsort((points[:, 1], points[:, 0], -strength))
        chosen = order[spread(points[order], gray.shape, selection)]
        keypoints = Keypoints(points[chosen], table[chosen, 2] / factor, table[chosen, 3] % 360)
        if not len(chosen):
            return Described(keypoints, np.empty((0, 128), np.uint8))
        _, descriptors = sift.compute(small, [found[row] for row in chosen])
        return Described(keypoints, rootsift(np.asarray(descriptors, np.float32)))


def spread(
    points: npt.NDArray[np.float32], shape: tuple[int, ...], selection: Selection
) -> npt.NDArray[np.intp]:
    """`Selection.rows` as it was."""
    column, row = np.clip(points * 4 // np.array(shape[1::-1]), 0, 3).astype(int).T
    cells = row * 4 + column
    strong = [np.flatnonzero(cells == cell)[:100] for cell in range(16)]
    candidates = np.sort(np.concatenate(strong))
    right = points[:, 0] >= shape[1] / 2
    quadrant = (right * 2 + (points[:, 1] >= shape[0] / 2)).tolist()
    room = [selection.total // 4 if selection.total <= 256 else selection.total] * 4
    radius2 = (max(shape) / 60) ** 2
    kept = np.empty((selection.total, 2), np.float32)
    chosen: list[int] = []
    for row in candidates.tolist():
        if not room[quadrant[row]]:
            continue
        offsets = kept[: len(chosen)] - points[row]
        near = np.count_nonzero(np.einsum("ij,ij->i", offsets, offsets) < radius2)
        if near >= selection.near:
            continue
        kept[len(chosen)] = points[row]
        chosen.append(row)
        room[quadrant[row]] -= 1
        if len(chosen) == selection.total:
            break
    return np.array(chosen, np.intp)


def opencv() -> Local:
    extractor = Local(LocalOptions())
    extractor._descriptor = OpenCvSift()
    return extractor


def ours() -> Local:
    extractor = Local(LocalOptions())
    extractor.load()
    return extractor


def cpu(runs: Sequence[Run], pictures: Sequence[Pixels]) -> list[float]:
    """Median CPU milliseconds of each run: of a picture the least of three, taken in turns."""
    taken = np.full((len(runs), len(pictures)), np.inf)
    for _ in range(3):
        for number, pixels in enumerate(pictures):
            for which, run in enumerate(runs):
                began = time.process_time()
                run(pixels)
                spent = (time.process_time() - began) * 1e3
                taken[which, number] = min(taken[which, number], spent)
    return [float(value) for value in np.median(taken, axis=1)]


def report_speed(extractors: Mapping[str, Local], pictures: Sequence[Pixels]) -> bool:
    stored: list[Run] = [one.extract for one in extractors.values()]
    queries: list[Run] = [
        lambda pixels, one=one: one.extract_variants(pixels, "mirror")  # type: ignore[misc]
        for one in extractors.values()
    ]
    print(f"{'CPU ms a picture':22}", *(f"{name:>8}" for name in extractors), "  ratio")
    fine = True
    for title, runs in (("stored", stored), ("as a query", queries)):
        theirs, mine = cpu(runs, pictures)
        print(f"{title:22} {theirs:8.1f} {mine:8.1f} {theirs / mine:7.1f}")
        fine &= theirs / mine >= RATIO_TARGET
    return fine


def report_threads(extractor: Local, pictures: Sequence[Pixels], most: int) -> None:
    for threads in range(1, most + 1):
        with ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            list(pool.map(extractor.extract, pictures))
            rate = len(pictures) / (time.perf_counter() - began)
        print(f"{f'{threads} threads':22} {rate:17.1f} pictures/s")


def recall(extractor: Local, paths: Sequence[Path], change: str, asking: Sequence[int]) -> float:
    """Share of changed photographs that find themselves first among all."""
    rows = {number: extractor.extract(_gray(path)) for number, path in enumerate(paths)}
    index = LocalIndex(LocalIndex.Config(train_above=10**9), lambda ids: {i: rows[i] for i in ids})
    index.apply(rows)
    params = index.Params.parse({"k": 3})
    right = 0
    for number in asking:
        random = Random(f"{change} {number}")
        other = (number + random.randint(1, len(paths) - 1)) % len(paths)
        made = CHANGES[change].make(_upright(paths[number]), random, _upright(paths[other]))
        file = io.BytesIO()
        made.save(file, "JPEG", quality=CHANGES[change].quality)
        query = Query(extractor.extract_variants(decode(file.getvalue()).gray, "mirror"))
        hits = [hit.image_id for hit in index.search(query, params) if hit.image_id != other]
        right += hits[:1] == [number]
    return right / len(asking)


def report_recall(extractors: Mapping[str, Local], paths: Sequence[Path], every: int) -> bool:
    asking = range(0, len(paths), every)
    print(f"{'recall@1':22}", *(f"{name:>8}" for name in extractors), f"  of {len(asking)}")
    fine = True
    for change in HARD:
        theirs, mine = (recall(one, paths, change, asking) for one in extractors.values())
        print(f"{change:22} {theirs:8.3f} {mine:8.3f}", flush=True)
        fine &= mine >= theirs - RECALL_MARGIN
    return fine


def _gray(path: Path) -> Pixels:
    return decode(path.read_bytes()).gray


def _upright(path: Path) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--every", type=int, default=1, help="Ask with every nth photograph only.")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    kinds = {".jpg", ".jpeg", ".png"}
    photos = sorted((args.corpus / "photos").iterdir())
    paths = [path for path in photos if path.suffix.lower() in kinds]
    extractors = {"OpenCV": opencv(), "ours": ours()}
    pictures = [_gray(path) for path in paths[::4]]
    fine = report_speed(extractors, pictures)
    report_threads(extractors["ours"], pictures * 4, args.threads)
    fine &= report_recall(extractors, paths, args.every)
    return 0 if fine else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AmbienceError as exc:
        sys.exit(str(exc))
