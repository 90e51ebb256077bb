"""Searches beside what may not hold them up: background work, and retrievers that can't answer.

    python -m benchmarks.yielding PHOTOS_FOLDER [--pictures 600] [--seconds 20]

Fused searches over pHash, colour and local features with pictures of 500 px, from 2 connections.
The baseline is the same service, quiet. Beside it run `ambience backfill` of other pictures,
`ambience annotate` (OCR), and a replica's completion of OCR over pictures just added. Then the same
service with three more networks in its configuration; run this where their weights can't be had,
which they then look for again and again. Each service waits until `local` has trained its lists,
which it never does with fewer than about 500 pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt

from benchmarks import loading
from benchmarks.cores import KINDS, local_is_trained, make_files, search
from models.machine import cores, run_when_idle

CONNECTIONS = 2
QUERIES = 64
NETWORKS = ("global", "image_text", "copy")
RATIO_TARGET, UNAVAILABLE_TARGET = 1.5, 1.05
Row = list[str]
Milliseconds = npt.NDArray[np.float64]


class Bench:
    """Folders, the pictures, and one service after the other over the same data."""

    def __init__(self, photographs: Path, folder: Path, pictures: int, seconds: float) -> None:
        self.seconds = seconds
        self.pictures = pictures
        self.data = folder / "data"
        self.data.mkdir()
        self.folder = folder
        files = make_files(photographs, folder / "all", 2 * pictures)
        self.there, self.more = folder / "there", folder / "more"
        for to, some in ((self.there, files[:pictures]), (self.more, files[pictures:])):
            to.mkdir()
            for path in some:
                path.rename(to / path.name)
        queries = sorted(self.there.iterdir())[:QUERIES]
        self.bodies = [loading.multipart(path.read_bytes(), query="{}") for path in queries]
        self.quiet: Milliseconds = np.empty(0)

    def config(self, *others: str) -> Path:
        return loading.write_config(self.folder / "-".join(("config", *others)), (*KINDS, *others))

    def command(self, *arguments: str) -> list[str]:
        return [str(loading.AMBIENCE), *arguments]

    @contextlib.contextmanager
    def service(self, config: Path, others: int = 0) -> Iterator[str]:
        """A service that is ready to search, with its lists trained; it has so many other
        retrievers and annotators."""
        port = loading.free_port()
        url, log = f"http://127.0.0.1:{port}", self.data.with_suffix(".log")

        def listed(answer: httpx.Response) -> bool:
            count = len(answer.json()["retrievers"])
            return count == len(KINDS) + others and local_is_trained(answer)

        with loading.ambience(self.data, config, port) as child:
            loading.wait_for(f"{url}/readyz", lambda answer: answer.is_success, child, log)
            loading.wait_for(f"{url}/v1/retrievers", listed, child, log)
            yield url

    @contextlib.contextmanager
    def beside(self, config: Path, *arguments: str) -> Iterator[None]:
        """A job that runs meanwhile; it must last."""
        log = self.folder / f"{arguments[0]}.log"
        where = {"AMBIENCE_DATA": str(self.data)}
        command = self.command(*arguments, "--config", str(config), "--json")
        with loading.process(command, log, where) as child:
            yield
            if child.poll() is not None:
                print(f"`{arguments[0]}` ended before the searches did", file=sys.stderr)

    def searched(self, url: str) -> Milliseconds:
        """Milliseconds of each search."""
        took = asyncio.run(search(f"{url}/v1/search", self.bodies, CONNECTIONS, self.seconds))
        return np.array(took) * 1e3

    def row(self, what: str, took: Milliseconds) -> Row:
        if not len(self.quiet):
            self.quiet = took
        here, there = (np.quantile(some, (0.5, 0.95, 0.99)) for some in (took, self.quiet))
        figures = [f"{ms:.0f} ({ms / quiet:.2f}×)" for ms, quiet in zip(here, there, strict=True)]
        return [what, *figures, f"{len(took) / self.seconds:.1f}"]


@contextlib.contextmanager
def idle_loops() -> Iterator[None]:
    """A loop for each core that runs only where nothing else wants it: what any work beside the
    searches costs on this machine, however it yields."""
    context = multiprocessing.get_context("spawn")
    loops = [context.Process(target=_spin, daemon=True) for _ in range(cores())]
    for one in loops:
        one.start()
    try:
        yield
    finally:
        for one in loops:
            one.kill()


def _spin() -> None:
    run_when_idle()
    values = np.ones((400, 400), np.float32)
    while True:
        values @ values


def add_all(url: str, files: Sequence[Path]) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        for path in files:
            client.post("/v1/images", files={"image": path.read_bytes()}).raise_for_status()


def measure(bench: Bench) -> list[Row]:
    plain, reading = bench.config(), bench.config("ocr")
    with loading.process(
        bench.command("backfill", str(bench.there), "--config", str(plain), "--json"),
        bench.folder / "first.log",
        {"AMBIENCE_DATA": str(bench.data)},
    ) as child:
        child.wait()
    rows = []
    with bench.service(plain) as url:
        rows.append(bench.row("quiet", bench.searched(url)))
        with idle_loops():
            rows.append(bench.row("beside loops of the idle class", bench.searched(url)))
        for name, config, arguments in (
            ("backfill", plain, ("backfill", str(bench.more))),
            ("annotate (OCR)", reading, ("annotate", "--only", "ocr")),
        ):
            with bench.beside(config, *arguments):
                # Until it has started, it imports its modules at the usual priority.
                rows.append(bench.row(f"while {name} starts", bench.searched(url)))
                rows.append(bench.row(f"beside {name}", bench.searched(url)))
        rows.append(bench.row("quiet again", bench.searched(url)))
    with bench.service(bench.config(*NETWORKS), len(NETWORKS)) as url:
        rows.append(bench.row("three retrievers without weights", bench.searched(url)))
    with bench.service(reading, 1) as url:
        add_all(url, sorted(bench.more.iterdir())[: bench.pictures // 4])
        rows.append(bench.row("beside completion (OCR)", bench.searched(url)))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="photographs")
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    loading.end_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="ambience-") as folder:
        bench = Bench(given.folder, Path(folder), given.pictures, given.seconds)
        rows = measure(bench)
    targets = f"{RATIO_TARGET}× at p95, without weights {UNAVAILABLE_TARGET}×"
    print(f"milliseconds (ratio to quiet; targets {targets})\n")
    loading.print_table(("searches", "p50", "p95", "p99", "searches/s"), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
