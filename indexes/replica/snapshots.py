"""Where an index is kept between two lives of its replica, and whether what is kept holds."""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from xxhash import xxh3_64

from indexes.base import Index
from indexes.replica.snapshot_file import header_of, opened
from indexes.store.base import Space, Store
from models.errors import SnapshotRejected, StoreUnavailable

log = logging.getLogger(__name__)

FORMAT = 1
DAY = 24 * 3600.0
"""Seconds for which the log is kept back to a snapshot that no replica has asked for again."""


class Snapshots:
    """The snapshot of one retriever's index on this host; all its replicas here share the file.

    Each set of options (`layout` is that of its shards, if any) has a file of its own, so that two
    versions of a retriever never take turns with one.
    """

    def __init__(self, folder: Path, store: Store, space: Space, layout: str = "") -> None:
        self.store = store
        self.folder = folder
        self.space = space
        self.layout = layout
        self.holder = uuid.uuid4().hex

    def path(self, index: Index) -> Path:
        identity = orjson.dumps(self._identity(index), option=orjson.OPT_SORT_KEYS)
        return self.folder / f"{self.prefix}{xxh3_64(identity).hexdigest()}.snapshot"

    @property
    def prefix(self) -> str:
        """What the names of this retriever's files begin with."""
        return f"{quote(self.space.kind, safe='')}@"

    def name(self, index: Index) -> str:
        """That of the lease and of the mark."""
        return f"snapshot:{socket.gethostname()}:{self.path(index).name}"

    def header(self, index: Index) -> dict[str, Any]:
        """What the header must say for an index to be restored from it."""
        return {"store": self.store.uuid, **self._identity(index)}

    def written(self, index: Index) -> Mapping[str, Any] | None:
        """The header of what is there now, if it is of this store and index; raises OSError."""
        header = header_of(self.path(index))
        return None if header is None or self._stranger(header, index) else header

    def load(self, index: Index) -> int | None:
        """Restore an empty index; the seq that it stands at, or None where no snapshot holds.

        A file that does not hold is removed. From here on the log is kept back to this seq, or to
        the head of now. Raises StoreUnavailable.
        """
        path = self.path(index)
        applied = None
        try:
            with opened(path) as saved:
                applied = self._held(saved.header, index)
                index.restore(saved)
        except FileNotFoundError:
            log.info("%s has no snapshot yet", self.space.kind)
        except OSError as exc:
            log.warning("%s can't read its snapshot: %s", self.space.kind, exc)
        except (SnapshotRejected, KeyError, ValueError) as exc:
            # The latter two: it holds other arrays than this version of the index asks for.
            log.warning(
                "%s is built from all rows, not from %s: %r", self.space.kind, path.name, exc
            )
            _remove(path)
            applied = None
        if applied is None:
            self.mark(index, self.store.head())
        else:
            log.info("%s begins from its snapshot, at seq %d", self.space.kind, applied)
        return applied

    def mark(self, index: Index, seq: int) -> None:
        """Keep the log from this seq on for another day."""
        try:
            self.store.mark(self.name(index), seq, DAY)
        except StoreUnavailable as exc:
            log.warning("%s can't say from where on it needs the log: %s", self.space.kind, exc)

    def _held(self, header: Mapping[str, Any], index: Index) -> int:
        """The snapshot's seq; raises SnapshotRejected, saying why, where it does not hold."""
        if stranger := self._stranger(header, index):
            raise SnapshotRejected(f"it is of another {stranger}")
        applied: int = header["seq"]
        # Marked first: what is there now then stays there.
        self.mark(index, applied)
        if applied > self.store.head():
            raise SnapshotRejected("the store is older than it")
        if self.store.changes(self.space, applied, 1) is None:
            raise SnapshotRejected("the log no longer reaches back to it")
        return applied

    def _stranger(self, header: Mapping[str, Any], index: Index) -> str | None:
        """What the snapshot is of another one of."""
        wanted = self.header(index)
        return next((key for key in wanted if header.get(key) != wanted[key]), None)

    def _identity(self, index: Index) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.space.kind,
            "fingerprint": self.space.fingerprint,
            "index": f"{type(index).__name__} {index.state_version}",
            "options": {**index.options.model_dump(mode="json"), **index.depends_on},
            "layout": self.layout,
        }


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        log.warning("%s can't be removed: %s", path, exc)
