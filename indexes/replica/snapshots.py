"""The place of an index's snapshots, and the validation of a snapshot before it is restored."""

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
"""Seconds for which the log after a snapshot is kept once no replica uses the snapshot."""


class Snapshots:
    """The snapshots of one retriever's index on this host, shared by all its replicas here.

    Each set of options has its own file, so that two versions of a retriever do not overwrite each
    other's snapshot. `layout` identifies the shard, if any.
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
        """Prefix of this retriever's file names."""
        return f"{quote(self.space.kind, safe='')}@"

    def name(self, index: Index) -> str:
        """Name of the lease for writing the snapshot, and of the mark that keeps the log."""
        return f"snapshot:{socket.gethostname()}:{self.path(index).name}"

    def header(self, index: Index) -> dict[str, Any]:
        """Header fields that a snapshot must have to be restored into this index."""
        return {"store": self.store.uuid, **self._identity(index)}

    def written(self, index: Index) -> Mapping[str, Any] | None:
        """The header of the current file if it belongs to this store and index. Raises OSError."""
        header = header_of(self.path(index))
        return None if header is None or self._mismatch(header, index) else header

    def load(self, index: Index) -> int | None:
        """Restore a snapshot into an empty index. Returns its seq, or None if none is valid.

        An invalid file is removed. From then on the log after this seq, or else after the current
        head, is kept. Raises StoreUnavailable.
        """
        path = self.path(index)
        applied = None
        try:
            with opened(path) as saved:
                applied = self._validated_seq(saved.header, index)
                index.restore(saved)
        except FileNotFoundError:
            log.info("%s has no snapshot yet", self.space.kind)
        except OSError as exc:
            log.warning("%s can't read its snapshot: %s", self.space.kind, exc)
        except (SnapshotRejected, KeyError, ValueError) as exc:
            # KeyError and ValueError mean that the file holds other arrays than this
            # version of the index expects.
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
        """Keep the log after this seq for another day. An unavailable store is only logged."""
        try:
            self.store.mark(self.name(index), seq, DAY)
        except StoreUnavailable as exc:
            log.warning("%s can't record which part of the log it needs: %s", self.space.kind, exc)

    def _validated_seq(self, header: Mapping[str, Any], index: Index) -> int:
        """Return the seq of a valid snapshot. Raises SnapshotRejected, with the reason, for an
        invalid one."""
        if mismatch := self._mismatch(header, index):
            raise SnapshotRejected(f"it belongs to another {mismatch}")
        applied: int = header["seq"]
        # The mark is set before the checks, so that the log is not compacted after them.
        self.mark(index, applied)
        if applied > self.store.head():
            raise SnapshotRejected("it is newer than the store")
        if self.store.changes(self.space, applied, 1) is None:
            raise SnapshotRejected("the log no longer reaches back to it")
        return applied

    def _mismatch(self, header: Mapping[str, Any], index: Index) -> str | None:
        """The first header field that differs from what is expected; None if none does."""
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
