"""The folder of one of the old services: LMDB environments of features and of file names.

Keys are image ids of 4 bytes, big-endian. Features are the bytes of an array of little-endian
float32, or of uint8. `id_to_filename.lmdb` and `filename_to_id.lmdb` lie beside the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import numpy as np

from models.base import Extractor
from models.errors import InvalidInput
from models.types import Features

BATCH = 256
"""Images that are read, and written, at a time."""
MAX_ID = 2**32 - 1
LONGEST_NAME = 511
"""Bytes of the longest key that LMDB takes."""
MAP_BYTES = 1 << 40
"""Address space for a growing environment; its file takes what is written."""
NAMES, IDS = "id_to_filename.lmdb", "filename_to_id.lmdb"
FEATURES = {"phash": "phashes.lmdb", "color": "rgb_histograms.lmdb"}
OTHER_FEATURES = "features.lmdb"


class OldImage(NamedTuple):
    """One image as an old service knows it."""

    image_id: int
    file_name: str
    """`{id}.online` for an upload, else the name of its file."""
    features: bytes

    @property
    def name_bytes(self) -> bytes:
        return self.file_name.encode("utf-8", "surrogateescape")


def features_name(extractor: str) -> str:
    """Name of the environment of features, by the extractor that makes the same ones."""
    return FEATURES.get(extractor, OTHER_FEATURES)


def old_bytes(extractor: Extractor, features: Features) -> bytes:
    """Features as an old service stores them."""
    return features.astype(_old_dtype(extractor)).tobytes()


def from_old_bytes(extractor: Extractor, row: bytes) -> Features:
    """Features as the extractor makes them. Raises InvalidInput for bytes of another length, and
    for numbers that are none."""
    dtype = _old_dtype(extractor)
    size = int(np.prod(extractor.shape)) * dtype.itemsize
    if len(row) != size:
        raise InvalidInput(f"its features have {len(row)} bytes, not {size}")
    features = np.frombuffer(row, dtype).astype(extractor.dtype).reshape(extractor.shape)
    if not np.isfinite(features).all():
        raise InvalidInput("its features hold numbers that are not finite")
    if extractor.additive:
        # What can be added up is of unit length; an old service need not have seen to that.
        length = float(np.linalg.norm(features))
        if length == 0:
            raise InvalidInput("its features are all zero")
        if abs(length - 1) > 1e-5:
            features /= length
    return features


@contextmanager
def opened(folder: Path, extractor: str) -> Iterator[Iterator[list[OldImage]]]:
    """Batches of all images of an old service, by ascending id. Raises InvalidInput for a folder
    that is none of its."""
    with ExitStack() as stack:
        features, names = (
            stack.enter_context(open_readonly(folder / name).begin(buffers=False))
            for name in (features_name(extractor), NAMES)
        )
        yield _batches(features, names)


def write(folder: Path, extractor: str, images: Iterator[Sequence[OldImage]]) -> None:
    """Write environments that an old service opens. Raises InvalidInput if there are some."""
    paths = [folder / name for name in (features_name(extractor), NAMES, IDS)]
    if there := [str(path) for path in paths if path.exists()]:
        raise InvalidInput(f"{there[0]} is there already: name another folder")
    with ExitStack() as stack:
        environments = []
        for path in paths:
            path.mkdir(parents=True)
            environment = lmdb.open(str(path), map_size=MAP_BYTES)
            stack.callback(environment.close)
            environments.append(environment)
        for batch in images:
            keyed = [(one.image_id.to_bytes(4, "big"), one.name_bytes, one) for one in batch]
            rows = (
                [(key, one.features) for key, _, one in keyed],
                [(key, name) for key, name, _ in keyed],
                [(name, key) for key, name, _ in keyed],
            )
            for environment, pairs in zip(environments, rows, strict=True):
                with environment.begin(write=True) as transaction:
                    transaction.cursor().putmulti(pairs)


def _old_dtype(extractor: Extractor) -> np.dtype[Any]:
    return np.dtype(np.uint8 if extractor.dtype == np.uint8 else "<f4")


def open_readonly(path: Path) -> lmdb.Environment:
    """An environment of an old service. Raises InvalidInput if it can't be read."""
    try:
        # Without its lock file: the folder may be a copy on a medium that can't be written.
        return lmdb.open(str(path), readonly=True, lock=False, create=False)
    except lmdb.Error as exc:
        raise InvalidInput(f"{path} can't be read as one of LMDB's environments: {exc}") from exc


def _batches(features: lmdb.Transaction, names: lmdb.Transaction) -> Iterator[list[OldImage]]:
    rows = iter(features.cursor())
    while batch := list(islice(rows, BATCH)):
        yield [_image(bytes(key), names.get(key), bytes(row)) for key, row in batch]


def _image(key: bytes, name: bytes | memoryview | None, features: bytes) -> OldImage:
    image_id = int.from_bytes(key, "big")
    shown = f"{image_id}.online" if name is None else bytes(name).decode("utf-8", "surrogateescape")
    return OldImage(image_id, shown, features)
