"""The services that came before, built again from their description: what ours is measured against.

One process each for pHash and colour, FastAPI over uvicorn, the work done in the handler. Each
decodes the whole upload for itself and asks a FAISS index in memory; the features lie in LMDB under
4-byte big-endian ids. Their scripts go through a folder with a pool of processes, once for each.

    python -m benchmarks.old_services serve phash DATA_FOLDER --port 33333
    python -m benchmarks.old_services script color DATA_FOLDER --source PICTURES_FOLDER
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import cv2
import faiss
import lmdb
import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, File, Form
from PIL import Image
from scipy import fft

Array = npt.NDArray[Any]
GRID, LOW, BITS = 96, 24, 576
BINS = 512
BATCH = 64
MAP_BYTES = 16 << 30


@dataclass(frozen=True, slots=True)
class Old:
    """What differs between the two services."""

    extract: Callable[[bytes], Array]
    dtype: type[np.generic]
    lmdb_name: str
    make_index: Callable[[], Any]
    radius: type[int] | type[float]
    """What its FAISS index takes."""


def phash_of(data: bytes) -> Array:
    """576 bits as 72 uint8: whole decode, luma, 96×96 by Lanczos, the DCT's low frequencies."""
    luma = Image.open(io.BytesIO(data)).convert("L")
    grid = np.asarray(luma.resize((GRID, GRID), Image.Resampling.LANCZOS), np.float64)
    low = fft.dct(fft.dct(grid, axis=0), axis=1)[:LOW, :LOW]
    return np.packbits(low > np.median(low))


def histogram_of(data: bytes) -> Array:
    """512 float32 that sum to 1e7: whole decode, RGB in 8×8×8 cells."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    counts = cv2.calcHist([pixels], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel()
    shares: Array = (counts * (1e7 / (pixels.shape[0] * pixels.shape[1]))).astype(np.float32)
    return shares


SERVICES = {
    "phash": Old(
        phash_of,
        np.uint8,
        "phashes.lmdb",
        lambda: faiss.IndexBinaryIDMap2(faiss.IndexBinaryFlat(BITS)),
        int,
    ),
    "color": Old(
        histogram_of,
        np.float32,
        "rgb_histograms.lmdb",
        lambda: faiss.IndexIDMap2(faiss.IndexFlat(BINS, faiss.METRIC_L1)),
        float,
    ),
}


def write_features(name: str, folder: Path, rows: Iterable[tuple[int, Array]]) -> list[float]:
    """Into the service's LMDB, a transaction for each 64; when each was durable (monotonic)."""
    path = folder / SERVICES[name].lmdb_name
    path.mkdir(parents=True, exist_ok=True)
    done = []
    with lmdb.open(str(path), map_size=MAP_BYTES) as environment:
        remaining = iter(rows)
        while batch := list(islice(remaining, BATCH)):
            with environment.begin(write=True) as transaction:
                for image_id, features in batch:
                    transaction.put(image_id.to_bytes(4, "big"), features.tobytes())
            done.append(time.monotonic())
    return done


def load_index(name: str, folder: Path) -> Any:
    """A FAISS index of all the LMDB holds."""
    service = SERVICES[name]
    ids, rows = [], []
    with (
        lmdb.open(str(folder / service.lmdb_name), readonly=True) as environment,
        environment.begin() as transaction,
    ):
        for key, value in transaction.cursor():
            ids.append(int.from_bytes(key, "big"))
            rows.append(np.frombuffer(value, service.dtype))
    index = service.make_index()
    index.add_with_ids(np.stack(rows), np.array(ids, np.int64))
    return index


def make_app(name: str, folder: Path) -> FastAPI:
    """The service's route for searches by an uploaded picture."""
    app = FastAPI()
    service, index = SERVICES[name], load_index(name, folder)

    @app.post(f"/{name}_get_similar_images_by_image_buffer")
    async def search(
        image: Annotated[bytes, File()],
        k: Annotated[int | None, Form()] = None,
        distance_threshold: Annotated[float | None, Form()] = None,
    ) -> list[dict[str, int | float]]:
        query = service.extract(image)[None]
        if k is not None:
            distances, ids = (row[0] for row in index.search(query, k))
        else:
            assert distance_threshold is not None
            _, distances, ids = index.range_search(query, service.radius(distance_threshold))
        order = np.argsort(distances, kind="stable")
        return [
            {"image_id": int(ids[at]), "distance": float(distances[at])}
            for at in order
            if ids[at] >= 0
        ]

    return app


def script(name: str, folder: Path, source: Path) -> list[float]:
    """Features of all files of a folder; when each batch was durable (monotonic)."""
    # One picture a core at a time: threads inside would only compete.
    cv2.setNumThreads(1)
    jobs = ((name, image_id, path) for image_id, path in enumerate(sorted(source.iterdir())))
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        return write_features(name, folder, pool.imap_unordered(_extract_file, jobs, chunksize=8))


def _extract_file(job: tuple[str, int, Path]) -> tuple[int, Array]:
    name, image_id, path = job
    return image_id, SERVICES[name].extract(path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("serve", "script"))
    parser.add_argument("name", choices=SERVICES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=33333)
    parser.add_argument("--source", type=Path)
    given = parser.parse_args()
    if given.what == "script":
        print(json.dumps(script(given.name, given.folder, given.source)))
        return
    import uvicorn

    uvicorn.run(make_app(given.name, given.folder), port=given.port, log_level="error")


if __name__ == "__main__":
    main()
