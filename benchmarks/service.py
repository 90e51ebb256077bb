"""Rows A and B: a search by picture over HTTP, against the services that came before.

    python -m benchmarks.service PHOTOS_FOLDER [--images 100000] [--seconds 8] [--rows A,B]

`ambience serve` with pHash and colour, and the two old services (benchmarks/old_services.py), hold
the same features: those of the folder's photographs, and made-up ones (random bits; mixtures of the
photographs' histograms). All run at once and are asked in turn, in rounds, the same JPEGs: mosaics
of the photographs, as large as a camera's. Figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import aiohttp
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks import loading, old_services
from benchmarks.loading import Speed, Step
from indexes.store.base import ImageWrite, Space
from indexes.store.url import open_store
from models.pictures.decoding import decode
from models.registry import make_extractor

KINDS = ("phash", "color")
K, COPY_DISTANCE = 200, 64
"""What the old gateway asked its services for."""
QUERIES = 4
BATCH = 2000
CONNECTIONS = (1, 8)


class Size(NamedTuple):
    """A size of query pictures, and the targets of its row."""

    row: str
    name: str
    width: int
    height: int
    p50_ms: float | None = None
    per_second: float | None = None


SIZES = (
    Size("A", "12 MP", 4000, 3000, 80, 20),
    Size("A", "20 MP", 5472, 3648),
    Size("B", "500 px", 500, 375, 20, 60),
)


@dataclass(frozen=True, slots=True)
class Collection:
    """Features of all images, by id: uint8 (n, 72) and float32 (n, 512)."""

    codes: npt.NDArray[np.uint8]
    histograms: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything answers."""

    ours: str
    old: Mapping[str, str]


def make_collection(photographs: Sequence[Image.Image], count: int) -> Collection:
    """The photographs first, made-up images after them."""
    rng = np.random.default_rng(1)
    phash, color = make_extractor("phash"), make_extractor("color")
    views = [decode(loading.as_jpeg(image, 95)).full for image in photographs[:count]]
    codes = rng.integers(0, 256, (count, 72), np.uint8)
    codes[: len(views)] = [phash.extract(view) for view in views]
    real = np.array([color.extract(view) for view in views], np.float32)
    return Collection(codes, np.concatenate([real, _composite(real, count - len(real), rng)]))


def _composite(
    real: npt.NDArray[np.float32], count: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Each of two photographs in random shares, every bin changed by about a third."""
    rows = np.empty((count, real.shape[1]), np.float32)
    for begin in range(0, count, BATCH):
        part = rows[begin : begin + BATCH]
        share = rng.uniform(0.5, 1, (len(part), 1)).astype(np.float32)
        first, second = real[rng.integers(0, len(real), (2, len(part)))]
        composite = share * first + (1 - share) * second
        composite *= rng.lognormal(0, 0.3, composite.shape).astype(np.float32)
        part[:] = composite * (1e7 / composite.sum(axis=1, keepdims=True))
    return rows


def fill_ours(data: Path, collection: Collection) -> None:
    store = open_store(f"lmdb:{data / 'store'}")
    spaces = [Space(kind, make_extractor(kind).fingerprint) for kind in KINDS]
    try:
        for begin in range(0, len(collection.codes), BATCH):
            ids = range(begin, min(begin + BATCH, len(collection.codes)))
            store.put_many([_write(number, collection, spaces) for number in ids])
    finally:
        store.close()


def _write(image_id: int, collection: Collection, spaces: Sequence[Space]) -> ImageWrite:
    rows = (collection.codes[image_id], collection.histograms[image_id])
    return ImageWrite(
        image_id=image_id,
        sha256=hashlib.sha256(str(image_id).encode()).hexdigest(),
        width=500,
        height=375,
        wanted=frozenset(KINDS),
        features={space: row.tobytes() for space, row in zip(spaces, rows, strict=True)},
        source=f"{image_id}.jpg",
    )


def fill_old(folder: Path, collection: Collection) -> None:
    old_services.write_features("phash", folder, enumerate(collection.codes))
    old_services.write_features("color", folder, enumerate(collection.histograms))


@contextlib.contextmanager
def everything(folder: Path, count: int) -> Iterator[Addresses]:
    """Ours and the old services, ready."""
    with contextlib.ExitStack() as stack:
        old = {name: stack.enter_context(_old_service(name, folder)) for name in KINDS}
        data, port = folder / "data", loading.free_port()
        config = loading.write_config(folder / "config.yaml", KINDS)
        child = stack.enter_context(loading.ambience(data, config, port))
        url = f"http://127.0.0.1:{port}"
        loading.wait_until_filled(url, KINDS, count, child, data.with_suffix(".log"))
        yield Addresses(f"{url}/v1/search", old)


@contextlib.contextmanager
def _old_service(name: str, folder: Path) -> Iterator[str]:
    port, log = loading.free_port(), folder / f"old-{name}.log"
    command = [sys.executable, "-m", "benchmarks.old_services", "serve", name, str(folder / "old")]
    with loading.process([*command, "--port", str(port)], log) as child:
        url = f"http://127.0.0.1:{port}"
        loading.wait_for(f"{url}/openapi.json", lambda answer: answer.is_success, child, log)
        yield f"{url}/{name}_get_similar_images_by_image_buffer"


def steps_of(addresses: Addresses, images: Sequence[bytes], count: int) -> dict[str, Step]:
    """What is measured: each old service, both at once as the old gateway asked them, and ours."""
    query = json.dumps({"retrievers": dict.fromkeys(KINDS, 1.0), "min_confidence": 0})
    phash = [loading.multipart(image, distance_threshold=str(COPY_DISTANCE)) for image in images]
    color = [loading.multipart(image, k=str(K)) for image in images]
    ours = [loading.multipart(image, query=query) for image in images]

    def all_answered(answer: aiohttp.ClientResponse, body: bytes) -> None:
        answered = answer.headers.get("X-Ambience-Answered", "").replace(" ", "").split(",")
        if set(answered) != set(KINDS) or not json.loads(body)["hits"]:
            raise SystemExit(f"an incomplete answer: {answer.headers} {body[:300]!r}")

    def of_color(_: aiohttp.ClientResponse, body: bytes) -> None:
        if len(json.loads(body)) != min(K, count):
            raise SystemExit(f"the old colour service: {body[:300]!r}")

    old_phash = loading.posting(addresses.old["phash"], phash, lambda *_: None)
    old_color = loading.posting(addresses.old["color"], color, of_color)
    return {
        "old pHash": old_phash,
        "old colour": old_color,
        "old both at once": loading.together(old_phash, old_color),
        "ours": loading.posting(addresses.ours, ours, all_answered),
    }


def make_queries(photographs: Sequence[Image.Image], size: Size) -> list[bytes]:
    rng = np.random.default_rng(2)
    pictures = [loading.mosaic(photographs, size.width, size.height, rng) for _ in range(QUERIES)]
    quality = loading.camera_quality(pictures[0])
    files = [loading.as_jpeg(picture, quality) for picture in pictures]
    megabytes = np.mean([len(file) for file in files]) / 1e6
    print(f"{size.name}: JPEGs of quality {quality}, {megabytes:.2f} MB", file=sys.stderr)
    return files


Results = dict[tuple[str, int], Speed]


def measure_all(steps: Mapping[str, Step], seconds: float, rounds: int) -> Results:
    """In rounds, so that a neighbour's load falls on all."""
    taken: dict[tuple[str, int], list[Speed]] = {}
    for _, connections, name in itertools.product(range(rounds), CONNECTIONS, steps):
        speed = loading.measure(steps[name], connections, seconds / rounds)
        taken.setdefault((name, connections), []).append(speed)
    return {key: loading.median(speeds) for key, speeds in taken.items()}


def table_rows(size: Size, results: Results) -> list[list[str]]:
    """The row of p50 at one connection, and that of requests a second at eight."""
    one = {name: speed.p50_ms for (name, at), speed in results.items() if at == 1}
    many = {name: speed.per_second for (name, at), speed in results.items() if at != 1}
    one["in turn"] = one["old pHash"] + one["old colour"]
    many["in turn"] = 1 / (1 / many["old pHash"] + 1 / many["old colour"])
    order = ("old pHash", "old colour", "in turn", "old both at once", "ours")
    rows = []
    for figure, values, target, lower in (
        ("p50 ms, 1 connection", one, size.p50_ms, True),
        ("requests/s, 8 connections", many, size.per_second, False),
    ):
        gains = [
            (values[old] / values["ours"]) if lower else (values["ours"] / values[old])
            for old in ("in turn", "old both at once")
        ]
        met = target is None or (values["ours"] <= target if lower else values["ours"] >= target)
        wanted = "reported" if target is None else f"{'≤' if lower else '≥'} {target:g}"
        rows.append(
            [f"{size.row}. {size.name}, {figure}"]
            + [f"{values[name]:.1f}" for name in order]
            + [f"{gain:.1f}×" for gain in gains]
            + [wanted, "" if target is None else "yes" if met else "NO"]
        )
    return rows


HEADER = (
    *("", "old pHash", "old colour", "in turn", "both at once", "ours"),
    *("against in turn", "against both at once", "target", "met"),
)


def run(given: argparse.Namespace, folder: Path) -> list[list[str]]:
    photographs = loading.read_photographs(given.folder)
    collection = make_collection(photographs, given.images)
    fill_ours(folder / "data", collection)
    fill_old(folder / "old", collection)
    rows: list[list[str]] = []
    with everything(folder, given.images) as addresses:
        for size in SIZES:
            if size.row in given.rows.split(","):
                images = make_queries(photographs, size)
                steps = steps_of(addresses, images, given.images)
                rows += table_rows(size, measure_all(steps, given.seconds, given.rounds))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="photographs")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=8, help="for each figure, all rounds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default="A,B")
    given = parser.parse_args()
    loading.end_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="ambience-") as folder:
        rows = run(given, Path(folder))
    loading.print_table(HEADER, rows)
    return 1 if any(row[-1] == "NO" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
