"""Row E: from `ambience serve` over an empty data folder to the first answered search.

    python -m benchmarks.start [--runs 3]

The shipped configuration. The search is asked anew every 50 ms until it is answered with what the
service requires (pHash); also when every retriever answered it, and how long Ctrl-C takes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from PIL import Image

from benchmarks import loading
from cluster.service.applications import read_config, weightless_retrievers

TARGET_SECONDS = 10.0
EVERY = 0.05
REQUIRED = {"phash"}


class Run(NamedTuple):
    """Seconds."""

    first: float
    complete: float
    stop: float


def retrievers() -> set[str]:
    """Those of the shipped configuration that need no weights."""
    config = read_config(loading.ROOT / "serve_config.yaml")
    return set(weightless_retrievers(config))


def answered(client: httpx.Client, image: bytes) -> set[str]:
    """Which retrievers answered a search; none when there was no answer."""
    with contextlib.suppress(httpx.HTTPError):
        answer = client.post("/v1/search", files={"image": image})
        if answer.status_code == 200 and "hits" in answer.json():
            names = answer.headers.get("X-Ambience-Answered", "").split(",")
            return {name.strip() for name in names}
    return set()


def wait_answered(
    port: int, wanted: set[str], image: bytes, child: subprocess.Popen[bytes]
) -> None:
    until = time.monotonic() + loading.START_SECONDS
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        while not answered(client, image) >= wanted:
            if child.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the service did not answer with {', '.join(sorted(wanted))}")
            time.sleep(EVERY)


def run(folder: Path, image: bytes) -> Run:
    """Start, search, stop."""
    port, config = loading.free_port(), loading.ROOT / "serve_config.yaml"
    began = time.perf_counter()
    with loading.ambience(folder / "data", config, port) as child:
        wait_answered(port, REQUIRED, image, child)
        first = time.perf_counter() - began
        wait_answered(port, retrievers(), image, child)
        complete = time.perf_counter() - began
        stop = loading.stop(child)
    return Run(first, complete, stop)


def query() -> bytes:
    """A drawn picture with detail for every retriever."""
    noise = np.random.default_rng(4).integers(0, 256, (30, 40, 3), np.uint8)
    picture = Image.fromarray(noise).resize((800, 600), Image.Resampling.BICUBIC)
    return loading.as_jpeg(picture, 85)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    loading.end_on_sigterm()
    image, runs = query(), []
    for _ in range(given.runs):
        with tempfile.TemporaryDirectory(prefix="ambience-") as folder:
            runs.append(run(Path(folder), image))
        print(json.dumps(runs[-1]._asdict()), file=sys.stderr)
    first, complete, stop = (statistics.median(column) for column in zip(*runs, strict=True))
    met = first <= TARGET_SECONDS
    loading.print_table(
        ("E. seconds to", "median", "target", "met"),
        [
            ["the first answer", f"{first:.1f}", f"≤ {TARGET_SECONDS:g}", "yes" if met else "NO"],
            ["an answer of all retrievers", f"{complete:.1f}", "reported", ""],
            ["stop", f"{stop:.1f}", "reported", ""],
        ],
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
