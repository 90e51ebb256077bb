"""The store contract: images, their features and a log of changes, written in transactions.

Every add or delete is one transaction that writes rows and a log entry. A log entry says only that
an id changed; a follower reads the current row.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

from indexes.store.records import Records
from indexes.store.scan import Scan
from indexes.store.summary import Sizes, Summary
from models.types import FileFacts

Outcome = Literal["created", "replaced", "unchanged"]
"""Outcome of a write. `replaced` includes a write that extends an image of the same sha256; the
generation is then below the seq."""


class Space(NamedTuple):
    """A feature space: a kind (`phash`) under one fingerprint. Two spaces never mix."""

    kind: str
    fingerprint: str


ANNOTATIONS = Space("text", "annotations-1")
"""The space of annotations, which the retriever `text` follows. A row is a JSON object, annotator →
annotation. Only `Store.annotate` adds annotations."""

ANNOTATE = "annotate:"
"""Prefix of the kinds of annotators, which distinguishes them from the kinds of retrievers."""

Author = Literal["machine", "person", "restored"]
"""Who made an annotation; `restored` writes each as it was, with its own `by`."""


@dataclass(frozen=True, slots=True)
class ImageWrite:
    """One add or replace. An `image_id` of None takes the next free id."""

    image_id: int | None
    sha256: str
    width: int
    height: int
    wanted: frozenset[str]
    features: Mapping[Space, bytes]
    source: str = "online"
    """Path of the file, or `online` for an upload."""
    upload_name: str | None = None
    """The name of the uploaded file; None keeps the stored one."""
    metadata: Mapping[str, Any] | None = None
    """Metadata; None keeps the stored metadata, or sets {} for a new or replaced image."""
    preview: bytes | None = None
    """The preview as JPEG."""
    original: bytes | None = None
    """The upload's bytes, kept only while a wanted kind is missing."""
    created: float | None = None
    """Creation time in seconds since the epoch; None means now."""
    if_version: int | None = None
    """The version that the stored image must have; 0: there must be none; None: any or none."""
    facts: FileFacts | None = None
    """What the file says; None keeps the stored facts, or none for a new or replaced image."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The condition of writes: a check of the rows that have changed since the caller looked."""

    space: Space
    after: int
    """Seq up to which the caller has seen the rows of the space."""
    check: Callable[[Mapping[int, bytes]], None]
    """Takes the rows by id that have changed since; raises an error to refuse the write."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of one write."""

    image_id: int
    seq: int
    """Seq of this write's log entry, or of the image's creation when nothing was written."""
    generation: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Image:
    """An image row."""

    image_id: int
    generation: int
    """The seq that created the row. Later writes carry it and are dropped if it has changed."""
    sha256: str
    width: int
    height: int
    source: str
    created: float
    """Creation time in seconds since the epoch."""
    wanted: frozenset[str]
    pending: frozenset[str]
    """Wanted kinds that have no features yet."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    has_preview: bool = False
    has_original: bool = False
    version: int = 0
    """The seq of the newest change of this image."""
    upload_name: str | None = None
    """The name of the file that was uploaded."""
    facts: FileFacts | None = None
    """What its file says; None for an image of an older version, until it is added again."""

    @property
    def file_name(self) -> str:
        """`{id}.online` for an upload, else the file's name, as in the old gateway."""
        return file_name_of(self.image_id, self.source)


class Preview(NamedTuple):
    """The preview of an image, with the size of the original in pixels."""

    width: int
    height: int
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Pending:
    """An image that still lacks features or annotations of a kind."""

    image_id: int
    generation: int
    has_original: bool
    has_preview: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes that a follower must apply to reach `head`; None means remove."""

    head: int
    rows: Mapping[int, bytes | None]


class LogPage(NamedTuple):
    """A part of the log: the seq of its last entry, and of each image that changed."""

    head: int
    seqs: Mapping[int, int]


class Store(Records):
    """A thread-safe store. Its methods raise StoreUnavailable, never the backend's own errors."""

    # --- writes: each is durable when it returns -------------------------------------------------

    def put(self, write: ImageWrite) -> Receipt:
        """Call `put_many` with one write."""
        return self.put_many([write])[0]

    @abstractmethod
    def put_many(self, writes: Sequence[ImageWrite]) -> list[Receipt]:
        """Add or replace images in order, all in one transaction.

        A write to an existing id with another sha256 replaces the image: all features of every
        space, the preview, the original and the pending work of the old generation are removed, and
        a new generation begins. A write with the same sha256 keeps the generation: wanted kinds are
        united, given features are written, given metadata and facts replace the old, a file's path
        replaces another source, and a preview is stored if there was none. If all of that is stored
        already, nothing is written and the outcome is `unchanged`. Kinds of given features count as
        wanted.
        Ids assigned by the store come from a persistent counter above every id ever seen below
        2^46. Should it get there, it goes on and skips ids in use. Raises
        InvalidInput for an id outside [0, 2^47), and PreconditionFailed for another version than
        `if_version`.
        """

    @abstractmethod
    def put_if(self, writes: Sequence[ImageWrite], guard: Guard) -> list[Receipt]:
        """Put images as `put_many` does if the guard's check accepts all rows that have changed.

        No other write is committed between the check and these. Raises the check's error, or
        Unavailable if the log no longer tells what has changed; nothing is written then.
        """

    @abstractmethod
    def delete(self, image_id: int, if_version: int | None = None) -> int | None:
        """Remove an image and everything stored for it. Returns the seq, or None if there was no
        such image. Raises PreconditionFailed as `put_many` does."""

    @abstractmethod
    def delete_kind(self, image_id: int, kind: str) -> int | None:
        """Remove a kind from the wanted kinds, and its features of every fingerprint.

        If the image then wants no retriever's kind, the image itself is removed. For an annotator's
        kind, its annotation is removed. Returns the seq, or None if there was nothing to remove.
        """

    @abstractmethod
    def complete(
        self, image_id: int, generation: int, features: Mapping[Space, bytes]
    ) -> int | None:
        """Write features that were pending. Returns None, and writes nothing, if the generation has
        changed.

        Features of kinds that the image no longer wants are ignored; None is returned if none
        remain. The original is removed when no kind is pending any more. If all features are stored
        already, nothing is written and the head is returned.
        """

    @abstractmethod
    def annotate(
        self,
        image_id: int,
        generation: int,
        annotations: Mapping[str, Mapping[str, Any] | None],
        by: Author,
        metadata: Mapping[str, Any] | None = None,
        if_version: int | None = None,
    ) -> int | None:
        """Write annotations by annotator, or remove those given as None; the others stay.

        `metadata` holds changes: given keys replace stored ones, None removes a key. A machine
        never changes a person's annotation or removal, which `restored` may. An annotator is no
        longer pending once it has an annotation or a person has removed it. `matching({"tags":
        tag})` finds the tags of annotations as well as those of metadata. Returns the seq; the head
        if nothing changed; or None, writing nothing, if the generation has changed. Raises
        InvalidInput for what can't be stored, and PreconditionFailed as `put_many` does.
        """

    @abstractmethod
    def activate(self, kind: str, fingerprint: str | None) -> None:
        """Set the fingerprint of the space that searches of this kind use; None unsets it."""

    @abstractmethod
    def drop_space(self, space: Space) -> int:
        """Remove all rows of a space in several transactions. Returns their number.

        Each removal is logged. An image left without features of a wanted kind becomes pending.
        Raises Conflict, and removes nothing, if searches use the space.
        """

    @abstractmethod
    def compact(self, through: int) -> None:
        """Compact the log up to this seq. Followers that have not applied it must rebuild."""

    @abstractmethod
    def reserve_ids(self, following: int) -> int:
        """Raise the id counter to at least `following`, at most to 2^46. Returns it."""

    @abstractmethod
    def claim_id(self, key: str, sha256: str, seconds: float) -> int:
        """The id that was assigned under this key, or the next free one if there is none.

        The key then belongs to this content for `seconds`. Raises KeyReused if it belongs to other
        content.
        """

    @abstractmethod
    def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew a lease. Returns False while another holder's lease has not expired."""

    @abstractmethod
    def release(self, name: str, holder: str) -> None:
        """Release a lease if this holder holds it."""

    @abstractmethod
    def mark(self, name: str, seq: int, seconds: float) -> None:
        """Record, under a name and for `seconds`, that the log after `seq` is needed.

        A mark does not prevent compaction by itself; callers of `compact` must read `marks`.
        """

    # --- reads -----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def uuid(self) -> str:
        """UUID of this store, generated when the store was created."""

    @abstractmethod
    def head(self) -> int:
        """The newest seq; 0 for an empty log."""

    def wait(self, after: int, seconds: float, ended: threading.Event) -> None:  # noqa: ARG002
        """Wait until the head may have passed `after`, `ended` is set, or `seconds` have passed."""
        ended.wait(seconds)

    @abstractmethod
    def marks(self) -> dict[str, int]:
        """Seq by name of the marks that have not expired."""

    @abstractmethod
    def changes(self, space: Space, after: int, limit: int | None = None) -> Changes | None:
        """Read log entries after `after`, coalesced by id, and the current rows in ONE snapshot.

        With a limit, at most `limit` entries are read, and `head` is the seq of the last one. Ids
        whose row in this space was not touched may be left out. Returns None if the log was
        compacted beyond `after`, or if `after` is beyond the head (a restored store); the follower
        must then rebuild.
        """

    @abstractmethod
    def log(self, after: int, limit: int) -> LogPage | None:
        """At most `limit` log entries after `after`; None where `changes` returns None."""

    @abstractmethod
    def scan(self, space: Space, batch: int = 4096) -> Scan:
        """Head and all rows of a space in one snapshot. Use it as a context manager."""

    @abstractmethod
    def rows(self, space: Space, image_ids: Sequence[int]) -> dict[int, bytes]:
        """Features by id; missing ids are left out."""

    def image(self, image_id: int) -> Image | None:
        return self.images_by_id([image_id]).get(image_id)

    @abstractmethod
    def images(self, after: int = -1, limit: int = 100) -> list[Image]:
        """At most `limit` image rows with ids above `after`, by ascending id."""

    def summaries(self, after: int = -1, limit: int = 100) -> list[Summary]:
        """The same rows, summarised."""
        rows = self.images(after, limit)
        return [Summary(*(getattr(row, name) for name in Summary._fields)) for row in rows]

    @abstractmethod
    def images_by_id(self, image_ids: Sequence[int]) -> dict[int, Image]:
        """Image rows by id; missing ids are left out."""

    @abstractmethod
    def ids_by_file_name(self, file_name: str) -> list[int]:
        """Ids of the images with this `file_name`, ascending."""

    @abstractmethod
    def ids_by_sha256(self, sha256: str) -> list[int]:
        """Ids of the images with this content, ascending."""

    @abstractmethod
    def ids_by_metadata(self, metadata: Mapping[str, Any]) -> list[int]:
        """Ids, ascending, of images whose metadata has all these top-level keys with these values.

        A stored list matches if it contains the value. `tags` includes the tags of annotations.
        """

    def preview(self, image_id: int) -> bytes | None:
        """The preview of one image as JPEG."""
        found = self.previews([image_id]).get(image_id)
        return None if found is None else found.jpeg

    @abstractmethod
    def previews(self, image_ids: Sequence[int]) -> dict[int, Preview]:
        """Previews by id, read in one snapshot; ids without one are left out."""

    @abstractmethod
    def original(self, image_id: int, generation: int) -> bytes | None: ...

    @abstractmethod
    def pending(self, kind: str, after: int = -1, limit: int = 64) -> list[Pending]:
        """At most `limit` images with ids above `after` that want this kind and lack it, by
        ascending id."""

    @abstractmethod
    def ids_by_source(self) -> dict[str, int]:
        """Source path → id of all images that came from files, for a resumed backfill."""

    @abstractmethod
    def missing(self, kinds: Mapping[str, str], image_ids: Sequence[int]) -> dict[int, set[str]]:
        """For each existing id, the kinds in `kinds` (kind → fingerprint) that have no row."""

    @abstractmethod
    def active(self) -> dict[str, str]:
        """Kind → fingerprint, as set by `activate`; other kinds are left out."""

    @abstractmethod
    def spaces(self) -> list[Space]:
        """Every space that holds a row, sorted."""

    @abstractmethod
    def count(self) -> int:
        """Number of images."""

    def sizes(self) -> Sizes:
        """What the store takes on disk; nothing for a store in memory."""
        return Sizes(0, 0)

    @abstractmethod
    def close(self) -> None: ...


def file_name_of(image_id: int, source: str) -> str:
    """The file name that the old services gave an image."""
    return f"{image_id}.online" if source == "online" else PurePath(source).name
