"""A machine with a GPU and many cores: extractors, backfill and searches of a service that sizes
itself.

    python -m benchmarks.gpu PHOTOS_FOLDER [--pictures 2000] [--cores 1,4,16]

Networks of the published shapes with random weights. The pictures are made of the folder's
photographs, 1024×768. The baselines in the same run: the network alone, without preparing pictures;
pictures prepared on the CPU by the calling thread; a bare process pool of the backfill's functions;
the same service on fewer cores (benchmarks/cores.py).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import ImageOps

from benchmarks import cores as by_cores
from benchmarks import loading
from benchmarks.backfill import rate_of
from benchmarks.neural import MODELS
from cluster.jobs.backfill import PIECE, Reader, RetrieverSpec, spaces_of
from cluster.jobs.resources import Resources
from cluster.jobs.settings import JobSettings
from cluster.jobs.sources import NEW
from models.machine import cores
from models.neural import NeuralExtractor
from models.pictures.decoding import decode
from models.registry import make_extractor

SIZE = (1024, 768)
ROUNDS = 3
ONE_READER = Resources(cpus=1, gpus=0, free_gpus=0, readers=1)
SPAWN = multiprocessing.get_context("spawn")
CPU_KINDS = ("phash", "color", "local")

Networks = dict[str, tuple[str, dict[str, Any]]]
"""By application: the extractor, and the options that name its weights."""


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


# --- networks -------------------------------------------------------------------------------------


def write_networks(folder: Path, wanted: Sequence[str]) -> Networks:
    """Write the weights of all networks."""
    made = {}
    for name, (method, written) in MODELS.items():
        application = name.partition(" ")[0]
        if application not in wanted:
            continue
        (folder / application).mkdir()
        made[application] = method, written(folder / application)
    return made


def per_second(count: int, work: Any) -> float:
    """Pictures a second: the median of some rounds, after a first one."""
    import torch

    rates = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        rates.append(count / (time.perf_counter() - began))
    return statistics.median(rates[1:])


def measure_networks(networks: Networks, files: Sequence[Path], count: int) -> None:
    previews = [decode(path.read_bytes()).preview for path in files[: min(64, count)]]
    previews = (previews * (count // len(previews) + 1))[:count]
    rows = [
        [name, *network_row(method, options, previews)]
        for name, (method, options) in networks.items()
    ]
    header = ("pictures/s", "device", "precision", "extractor", "network alone", "ratio")
    loading.print_table((*header, "prepared on the CPU", "lowest cosine of that"), rows)


def network_row(method: str, options: dict[str, Any], previews: Sequence[Any]) -> list[str]:
    import torch

    exact = make_extractor(method, options | {"precision": "float32"})
    extractor = make_extractor(method, options)
    assert isinstance(exact, NeuralExtractor)
    assert isinstance(extractor, NeuralExtractor)
    exact.load()
    extractor.load()
    on_device = np.array(exact.extract_many(previews[:64]))
    exact._prepares_on_device = False
    on_cpu = np.array(exact.extract_many(previews[:64]))
    cosine = float((on_device * on_cpu).sum(axis=1).min())
    whole = per_second(len(previews), lambda: extractor.extract_many(previews))
    batch = extractor.batch
    with torch.inference_mode():
        inputs = extractor._prepared(previews[:batch])
        passes = max(1, len(previews) // batch)

        def forward() -> None:
            for _ in range(passes):
                extractor._encode(inputs)

        alone = per_second(passes * batch, forward)
    few = previews[:128]

    def as_before() -> None:
        for at in range(0, len(few), batch):
            made = np.stack([extractor._prepare(one) for one in few[at : at + batch]])
            there = torch.from_numpy(made).to(extractor._device)
            extractor._encode(there.to(getattr(torch, extractor.precision)))

    with torch.inference_mode():
        before = per_second(len(few), as_before)
    return [
        extractor.device,
        extractor.precision,
        f"{whole:.0f}",
        f"{alone:.0f}",
        f"{whole / alone:.2f}",
        f"{before:.0f}",
        f"{cosine:.5f}",
    ]


# --- backfill -------------------------------------------------------------------------------------


class Here:
    """What a pool's process keeps."""

    photographs: list[Any]
    reader: Reader


def _begin_making(folder: Path) -> None:
    Here.photographs = loading.read_photographs(folder)


def _make(folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    photograph = Here.photographs[int(rng.integers(len(Here.photographs)))]
    centering = (float(rng.random()), float(rng.random()))
    picture = ImageOps.fit(photograph, SIZE, bleed=rng.uniform(0, 0.1), centering=centering)
    (folder / f"{number:06}.jpg").write_bytes(loading.as_jpeg(picture, 85))


def make_files(photographs: Path, folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    with ProcessPoolExecutor(cores(), SPAWN, _begin_making, (photographs,)) as pool:
        list(pool.map(_make, [folder] * count, range(count), chunksize=16))
    return sorted(folder.iterdir())


def _begin_reading(names: Sequence[str], store: str) -> None:
    kinds = [RetrieverSpec(name, name, {}) for name in names]
    Here.reader = Reader(spaces_of(kinds), [], frozenset(names), JobSettings(store, ONE_READER))


def _read(paths: Sequence[str]) -> int:
    return len(Here.reader([[(path, NEW) for path in paths]])[0])


def pool_rate(names: Sequence[str], files: Sequence[Path], folder: Path) -> float:
    """Pictures a second of a bare pool that reads, decodes, makes previews and extracts."""
    paths = [str(path) for path in files]
    pieces = [paths[at : at + PIECE] for at in range(0, len(paths), PIECE)]
    with ProcessPoolExecutor(
        cores(), SPAWN, _begin_reading, (names, f"lmdb:{folder / 'pool'}")
    ) as pool:
        list(pool.map(_read, pieces[: 2 * cores()]))  # All processes have begun.
        began = time.perf_counter()
        done = sum(pool.map(_read, pieces))
        return done / (time.perf_counter() - began)


def write_config(path: Path, cpu_kinds: Sequence[str], networks: Networks) -> Path:
    """The shipped config with these retrievers, the networks by their files here."""
    loading.write_config(path, [*cpu_kinds, *networks])
    config = yaml.safe_load(path.read_text())
    for application in config["applications"]:
        if application["name"] in networks:
            application["args"]["options"] = networks[application["name"]][1]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def backfill(files: Path, data: Path, config: Path, count: int) -> list[str]:
    """Run the command; pictures a second from the first commit to the last, and of the whole."""
    began = time.monotonic()
    ran = subprocess.run(
        [str(loading.AMBIENCE), "backfill", str(files), "--config", str(config), "--json"],
        env=os.environ | {"AMBIENCE_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    whole = time.monotonic() - began
    if ran.returncode:
        raise SystemExit(f"backfill: {ran.stderr[-2000:]}")
    outcome = json.loads(ran.stdout)
    if outcome["indexed"] != count:
        raise SystemExit(f"{outcome['indexed']} of {count}: {outcome['bad'][:3]}")
    rate = rate_of(f"lmdb:{data / 'store'}", count, whole)
    return [f"{rate.steady:.0f}", f"{rate.whole:.0f}"]


# --- all ------------------------------------------------------------------------------------------


def run(given: argparse.Namespace, folder: Path) -> int:
    """Run the chosen sections; one that fails does not end the others. Returns how many failed."""
    networks = write_networks(folder, given.networks.split(","))
    say(f"{cores()} cores; {given.pictures} pictures")
    files = make_files(given.folder, folder / "files", given.pictures)
    make_extractor("local").load()  # Compiles the kernels once for all processes.
    sections: dict[str, Callable[[], None]] = {
        "networks": lambda: measure_networks(networks, files, given.previews),
        "backfill": lambda: measure_backfills(networks, files, folder),
        "service": lambda: measure_service(networks, files, folder, given.seconds),
        "cores": lambda: measure_cores(given, folder),
    }
    failed = 0
    for name in given.sections.split(","):
        say(name)
        try:
            sections[name]()
        except (Exception, SystemExit):  # noqa: BLE001 (the others may still tell something)
            traceback.print_exc()
            failed += 1
    return failed


def measure_backfills(networks: Networks, files: Sequence[Path], folder: Path) -> None:
    rows = []
    for title, kinds in (("the networks", ()), ("all kinds", CPU_KINDS)):
        data = folder / f"data-{len(kinds)}"
        data.mkdir()
        config = write_config(folder / f"config-{len(kinds)}.yaml", kinds, networks)
        pool = pool_rate(kinds, files, data)
        say(f"bare pool for {title}: {pool:.0f}/s")
        steady, whole = backfill(folder / "files", data, config, len(files))
        say(f"backfill of {title}: {steady}/s")
        rows.append([title, steady, whole, f"{pool:.0f}", f"{float(steady) / pool:.2f}"])
    loading.print_table(
        ("backfill, pictures/s", "steady", "whole run", "bare pool that feeds them", "ratio"), rows
    )


def measure_service(
    networks: Networks, files: Sequence[Path], folder: Path, seconds: float
) -> None:
    """Searches of a service with all kinds, over what the last backfill has stored."""
    data, config = (folder / f"{name}-{len(CPU_KINDS)}" for name in ("data", "config"))
    config = config.with_suffix(".yaml")
    queries = [path.read_bytes() for path in files[:64]]
    port = loading.free_port()
    with loading.ambience(data, config, port) as child:
        url, names = f"http://127.0.0.1:{port}", [*CPU_KINDS, *networks]
        loading.wait_until_filled(url, names, len(files), child, data.with_suffix(".log"))
        status = [str(loading.AMBIENCE), "status"]
        environment = {"AMBIENCE_DATA": str(data), "COLUMNS": "140"}
        subprocess.run(status, env=os.environ | environment, check=False)
        bodies = [loading.multipart(image, query="{}") for image in queries]
        search = loading.posting(f"{url}/v1/search", bodies, lambda *_: None)
        uploads = [loading.multipart(image) for image in queries]
        add = loading.posting(f"{url}/v1/images", uploads, lambda *_: None, status=201)
        rows = []
        for title, step, connections in (
            ("fused search", search, 1),
            ("fused search", search, 8),
            ("fused search", search, 32),
            ("add", add, 32),
        ):
            speed = loading.measure(step, connections, seconds)
            row = [title, str(connections), f"{speed.p50_ms:.0f}", f"{speed.per_second:.1f}"]
            say(" ".join(row))
            rows.append(row)
    loading.print_table(("1024×768", "connections", "p50 ms", "per second"), rows)


def measure_cores(given: argparse.Namespace, folder: Path) -> None:
    counts = [int(count) for count in given.cores.split(",")]
    by_cores.report(by_cores.curve(given.folder, folder, counts, given.seconds))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="photographs")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--networks", default="global,image_text,copy")
    parser.add_argument("--sections", default="networks,backfill,service,cores")
    parser.add_argument("--previews", type=int, default=512, help="for the networks alone")
    parser.add_argument("--seconds", type=float, default=15, help="of each load")
    parser.add_argument("--cores", default="1,4,16", help="of the curve")
    given = parser.parse_args()
    loading.end_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="ambience-") as folder:
        return run(given, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
