"""The file that `ambience train` writes: lists and codes, trained once for all replicas."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexes.inverted.file import TrainedIndex
from models.errors import RetrieverUnavailable

AUTO = "auto"
"""Stands in the configuration for the retriever's own file."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained, empty inverted file."""

    version: int
    """Version; increases with each training."""
    points: int
    """Number of training points."""
    pictures: int
    """Number of stored images at the time of training."""
    whitening: str | None
    """Checksum of the whitening that was applied to the rows."""
    learnt: TrainedIndex

    @property
    def checksum(self) -> str:
        """SHA-256 of the contents."""
        said = f"{self.version} {self.points} {self.pictures} {self.whitening}"
        return hashlib.sha256(said.encode() + self.learnt.tobytes()).hexdigest()


def save(path: Path, trained: Trained) -> None:
    """Write beside the target, then rename, so that a reader sees the old version or this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            version=trained.version,
            points=trained.points,
            pictures=trained.pictures,
            whitening=trained.whitening or "",
            learnt=trained.learnt,
            checksum=trained.checksum,
        )
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def load(path: Path) -> Trained | None:
    """Read what `save` wrote; None if there is no file. Raises RetrieverUnavailable if it is
    damaged."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            read = Trained(
                int(file["version"]),
                int(file["points"]),
                int(file["pictures"]),
                str(file["whitening"]) or None,
                file["learnt"],
            )
            checksum = str(file["checksum"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise RetrieverUnavailable(f"{path} is no training: {exc}; train again") from exc
    if checksum != read.checksum:
        raise RetrieverUnavailable(f"{path} is damaged: train again, or delete it")
    return read
