"""Rows C and D: `ambience backfill`, against a bare process pool and against the old scripts.

    python -m benchmarks.backfill PHOTOS_FOLDER [--count 3000] [--large 0.25] [--rounds 3]

All go through the same files, made of the folder's photographs: a share of 12 MP JPEGs as a camera
writes them, the others 500 px. The pool runs the very functions of the backfill (read, decode,
pHash, colour, commit) with no Ray; the old scripts (benchmarks/old_services.py) go through the
files twice and decode them whole. `memory` is that of all processes of ours together, what they
share counted once, at its peak in a run of its own. `steady` is from the first finished batch to
the last, by the commit times of the rows; `whole` is from the start of the processes to their end.
Medians of the rounds; the old scripts run once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
from PIL import Image, ImageChops, ImageOps

from benchmarks import loading, old_services
from cluster.jobs import backfill
from cluster.jobs.backfill import PIECE, Reader, RetrieverSpec, Writer, spaces_of
from cluster.jobs.resources import Resources
from cluster.jobs.settings import JobSettings
from cluster.jobs.sources import NEW
from indexes.store.url import open_store
from models.pictures.decoding import Picture

KINDS = (RetrieverSpec("phash", "phash", {}), RetrieverSpec("color", "color", {}))
BATCH = PIECE
"""Pictures in one commit."""
LARGE, SMALL = (4000, 3000), (500, 375)
CANVASES = 3
SMALL_QUALITY = 85
STAGED = 256
"""Files whose stages are timed."""
CORES = os.cpu_count() or 1
ONE_READER = Resources(cpus=1, gpus=0, free_gpus=0, readers=1)
SPAWN = multiprocessing.get_context("spawn")
TARGET_POOL, TARGET_OLD = 0.95, 3.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Pictures a second."""

    steady: float
    whole: float


class Maker:
    """Makes distinct files; one in each process of the pool."""

    def __init__(self, photographs: Path) -> None:
        self.photographs = loading.read_photographs(photographs)
        rng = np.random.default_rng(3)
        self.canvases = [loading.mosaic(self.photographs, *LARGE, rng) for _ in range(CANVASES)]
        self.quality = loading.camera_quality(self.canvases[0])

    def make(self, number: int, large: bool) -> bytes:
        rng = np.random.default_rng(number)
        if large:
            canvas = self.canvases[number % CANVASES]
            shift = [int(part) for part in rng.integers(0, LARGE)]
            return loading.as_jpeg(ImageChops.offset(canvas, *shift), self.quality)
        photograph = self.photographs[int(rng.integers(len(self.photographs)))]
        centering = (float(rng.random()), float(rng.random()))
        # An outer border of its own is cut off, so that two files of a photograph differ.
        picture = ImageOps.fit(
            photograph, SMALL, Image.Resampling.BICUBIC, rng.uniform(0, 0.1), centering
        )
        return loading.as_jpeg(picture, SMALL_QUALITY)


class Worker:
    """The reader and the writer of a backfill in one process."""

    def __init__(self, store: str) -> None:
        names = frozenset(kind.name for kind in KINDS)
        self.reader = Reader(spaces_of(KINDS), [], names, JobSettings(store, ONE_READER))
        self.writer = Writer(store)

    def __call__(self, paths: Sequence[str]) -> list[str]:
        """The reason of each path, empty when it is stored."""
        pieces = self.reader([[(path, NEW) for path in paths]])
        return [work.reason for work in self.writer(pieces)[0]]


class Here:
    """What a pool's process keeps."""

    maker: Maker
    worker: Worker


def _begin_making(photographs: Path) -> None:
    Here.maker = Maker(photographs)


def _make_file(folder: Path, share: float, number: int) -> int:
    large = int((number + 1) * share) > int(number * share)
    data = Here.maker.make(number, large)
    (folder / f"{number:06}.jpg").write_bytes(data)
    return len(data)


def make_files(photographs: Path, folder: Path, count: int, share: float) -> None:
    folder.mkdir()
    with ProcessPoolExecutor(CORES, SPAWN, _begin_making, (photographs,)) as pool:
        sizes = list(pool.map(partial(_make_file, folder, share), range(count), chunksize=16))
    print(
        f"{count} files, {sum(sizes) / 1e6:.0f} MB: {share:.0%} of 12 MP, the others 500 px",
        file=sys.stderr,
    )


def _begin_working(store: str) -> None:
    Here.worker = Worker(store)


def _work(paths: Sequence[str]) -> list[str]:
    return [reason for reason in Here.worker(paths) if reason]


def run_pool(files: Path, folder: Path) -> Rate:
    """The backfill's functions in a bare process pool."""
    began = time.monotonic()
    store = f"lmdb:{folder / 'store'}"
    paths = [str(path) for path in sorted(files.iterdir())]
    with ProcessPoolExecutor(CORES, SPAWN, _begin_working, (store,)) as pool:
        bad = [reason for reasons in pool.map(_work, _batches(paths)) for reason in reasons]
    whole = time.monotonic() - began
    if bad:
        raise SystemExit(f"bad files: {bad[:3]}")
    return rate_of(store, len(paths), whole)


def _batches(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(paths), BATCH):
        yield paths[begin : begin + BATCH]


def run_ours(files: Path, folder: Path, workers: int | None) -> Rate:
    """`ambience backfill` on its own Ray, over an empty data folder."""
    config = loading.write_config(folder / "config.yaml", [kind.name for kind in KINDS])
    command = [str(loading.AMBIENCE), "backfill", str(files), "--config", str(config), "--json"]
    if workers is not None:
        command += ["--workers", str(workers)]
    began = time.monotonic()
    outcome = _result(command, folder, {"AMBIENCE_DATA": str(folder)})
    whole = time.monotonic() - began
    count = len(list(files.iterdir()))
    if outcome["indexed"] != count:
        raise SystemExit(f"{outcome['indexed']} of {count} were indexed: {outcome['bad'][:3]}")
    return rate_of(f"lmdb:{folder / 'store'}", count, whole)


def run_watched(files: Path, folder: Path, workers: int | None) -> float:
    """Peak memory of a run of ours over all its processes, in bytes."""
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(1.0):
            now = 0
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.environ().get("AMBIENCE_DATA") == str(folder):
                        now += process.memory_full_info().pss
            peak[0] = max(peak[0], now)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run_ours(files, folder, workers)
    finally:
        ended.set()
        watcher.join()
    return peak[0]


def run_old(files: Path, folder: Path) -> Rate:
    """The old scripts, one after the other."""
    count = len(list(files.iterdir()))
    steady = whole = 0.0
    for kind in KINDS:
        command = [sys.executable, "-m", "benchmarks.old_services", "script", kind.name]
        began = time.monotonic()
        done = _result([*command, str(folder), "--source", str(files)], folder, {})
        whole += time.monotonic() - began
        steady += (done[-1] - done[0]) / (count - old_services.BATCH)
    return Rate(1 / steady, count / whole)


def _result(command: Sequence[str], folder: Path, environment: dict[str, str]) -> Any:
    """What a command prints as JSON."""
    printed = folder / "printed"
    with loading.process(command, printed, environment, stderr=None) as child:
        if child.wait():
            raise SystemExit(f"{' '.join(command)}: exit status {child.returncode}")
    result = json.loads(printed.read_text())
    printed.unlink()
    return result


def rate_of(url: str, count: int, whole: float) -> Rate:
    """By the rows of a store that was empty: they carry the times of their commits."""
    store = open_store(url)
    try:
        created: list[float] = []
        after = -1
        while images := store.images(after, 1000):
            created += [image.created for image in images]
            after = images[-1].image_id
    finally:
        store.close()
    if len(created) != count:
        raise SystemExit(f"{len(created)} of {count} are in the store")
    # Write transactions exclude one another: the first BATCH rows are the first batch.
    created.sort()
    seconds = created[-1] - created[BATCH - 1]
    return Rate((count - BATCH) / seconds, count / whole)


def median(rates: Sequence[Rate]) -> Rate:
    return Rate(
        statistics.median(rate.steady for rate in rates),
        statistics.median(rate.whole for rate in rates),
    )


def measure(files: Path, folder: Path, rounds: int, workers: int | None) -> dict[str, Rate]:
    """Ours and the pool in turn, so that a neighbour's load falls on both; then the old scripts."""
    runs = {"ours": partial(run_ours, workers=workers), "pool": run_pool}
    taken: dict[str, list[Rate]] = {"ours": [], "pool": [], "old": []}
    for name in [*list(runs) * rounds, "old"]:
        own = folder / name
        own.mkdir()
        rate = (runs | {"old": run_old})[name](files, own)
        shutil.rmtree(own)
        print(f"{name}: steady {rate.steady:.1f}/s, whole {rate.whole:.1f}/s", file=sys.stderr)
        taken[name].append(rate)
    return {name: median(rates) for name, rates in taken.items()}


def stage_costs(paths: Sequence[Path], folder: Path) -> dict[str, float]:
    """Milliseconds of each stage of a picture: means over these files, by one process, no Ray.

    The parts of the backfill's own worker are timed as it goes; the rest is mostly SHA-256.
    """
    folder.mkdir()
    worker = Worker(f"lmdb:{folder / 'store'}")
    reader = worker.reader
    parts: list[tuple[Any, str, str]] = [
        (backfill, "read_bytes", "read"),
        (reader.decoder, "decode_blocking", "decode"),
        *((extractor, "extract", space.kind) for space, extractor in reader.extractors.items()),
        (Picture, "preview_jpeg", "preview"),
        (worker.writer.store, "put_many", "commit"),
    ]
    spent = dict.fromkeys((stage for *_, stage in parts), 0.0)

    def timed(work: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def job(*given: Any) -> Any:
            began = time.perf_counter()
            done = work(*given)
            spent[stage] += time.perf_counter() - began
            return done

        return job

    with contextlib.ExitStack() as stack:
        for owner, name, stage in parts:
            stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name), stage)))
        began = time.perf_counter()
        for batch in _batches([str(path) for path in paths]):
            if reasons := [reason for reason in worker(batch) if reason]:
                raise SystemExit(f"bad files: {reasons[:3]}")
        whole = time.perf_counter() - began
    reader.store.close()
    worker.writer.store.close()
    spent |= {"the rest": whole - sum(spent.values()), "all": whole}
    return {stage: 1e3 * seconds / len(paths) for stage, seconds in spent.items()}


def report_stages(files: Path, folder: Path) -> None:
    paths = sorted(files.iterdir())[:STAGED]
    sizes = {path: path.stat().st_size for path in paths}
    middle = (min(sizes.values()) + max(sizes.values())) / 2
    parts = {
        "12 MP": [path for path in paths if sizes[path] > middle],
        "500 px": [path for path in paths if sizes[path] <= middle],
    }
    costs = {name: stage_costs(part, folder / name) for name, part in parts.items() if part}
    stages = list(next(iter(costs.values())))
    rows = [[name, *(f"{of[stage]:.2f}" for stage in stages)] for name, of in costs.items()]
    loading.print_table(["ms a picture", *stages], rows)


def report(rates: dict[str, Rate]) -> bool:
    """Print the table; whether both targets are met."""
    ours, met, rows = rates["ours"], [], []
    for row, name, title, target in (
        ("C", "pool", "a bare process pool", TARGET_POOL),
        ("D", "old", "the old scripts", TARGET_OLD),
    ):
        other = rates[name]
        ratio = ours.steady / other.steady
        met.append(ratio >= target)
        steady, whole = (
            [f"{ours.steady:.1f}", f"{other.steady:.1f}", f"{ratio:.2f}×"],
            [f"{ours.whole:.1f}", f"{other.whole:.1f}", f"{ours.whole / other.whole:.2f}×"],
        )
        rows.append([f"{row}. {title}", *steady, f"≥ {target:g}×", "yes" if met[-1] else "NO"])
        rows.append([f"{row}. {title}, whole run", *whole, "reported", ""])
    header = ("pictures/s, against", "ours", "the other", "ratio", "target", "met")
    loading.print_table(header, rows)
    return all(met)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="photographs")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--large", type=float, default=0.25, help="the share of 12 MP files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, help="of ours, in place of its default")
    given = parser.parse_args()
    loading.end_on_sigterm()
    if given.count < 4 * BATCH:
        parser.error(f"--count: at least {4 * BATCH}, or there is no steady state")
    with tempfile.TemporaryDirectory(prefix="ambience-") as folder:
        files = Path(folder) / "files"
        make_files(given.folder, files, given.count, given.large)
        report_stages(files, Path(folder))
        rates = measure(files, Path(folder), given.rounds, given.workers)
        own = Path(folder) / "watched"
        own.mkdir()
        peak = run_watched(files, own, given.workers)
        print(f"memory: {peak / 2**20:.0f} MiB at most, over all processes", file=sys.stderr)
    return 0 if report(rates) else 1


if __name__ == "__main__":
    sys.exit(main())
