"""Folders as the old services left them, written here by LMDB alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import lmdb


def old_folder(folder: Path, environment: str, images: Mapping[int, tuple[str, bytes]]) -> Path:
    """Write a folder of these images: id → file name and features."""
    keyed = {at.to_bytes(4, "big"): one for at, one in images.items()}
    write_environment(folder / environment, {key: row for key, (_, row) in keyed.items()})
    write_environment(
        folder / "id_to_filename.lmdb", {key: name.encode() for key, (name, _) in keyed.items()}
    )
    write_environment(
        folder / "filename_to_id.lmdb", {name.encode(): key for key, (name, _) in keyed.items()}
    )
    return folder


def contents(path: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(path), readonly=True) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


def write_environment(path: Path, rows: Mapping[bytes, bytes]) -> None:
    path.mkdir(parents=True)
    with (
        lmdb.open(str(path), map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, row in rows.items():
            transaction.put(key, row)
