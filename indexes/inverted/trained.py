"""What `ambience train` makes of an index: its lists and codes, learnt once for all replicas."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexes.inverted.file import Learnt
from models.errors import RetrieverUnavailable

AUTO = "auto"
"""In place of a file: the retriever's own."""


@dataclass(frozen=True, slots=True)
class Trained:
    """An empty inverted file."""

    version: int
    """Counts up with each training."""
    points: int
    """It was fitted to so many rows."""
    pictures: int
    """So many were stored then."""
    whitening: str | None
    """Checksum of the whitening that the rows went through."""
    learnt: Learnt

    @property
    def checksum(self) -> str:
        """SHA-256 of all that is in it."""
        said = f"{self.version} {self.points} {self.pictures} {self.whitening}"
        return hashlib.sha256(said.encode() + self.learnt.tobytes()).hexdigest()


def save(path: Path, trained: Trained) -> None:
    """Beside its place, then renamed: a reader sees the old version or this one."""
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
    """What `save` wrote, or None if nothing is there; raises RetrieverUnavailable if damaged."""
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
