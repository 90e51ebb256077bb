"""The store contract: images, their features and a log of changes, all in transactions.

Every add or delete is one transaction that writes rows and a log entry. A log entry says only that
an id changed; a follower reads the row as it is now. Backends: `lmdb_store`, `postgres_store`,
`memory_store`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

Outcome = Literal["created", "replaced", "unchanged"]
"""`replaced` is also the same picture that got more: its generation is then below the seq."""


class Space(NamedTuple):
    """A feature space: a kind (`phash`) under one fingerprint. Two spaces never mix."""

    kind: str
    fingerprint: str


ANNOTATIONS = Space("text", "annotations-1")
"""Here lies what is said of an image: a JSON object, annotator → annotation. `text` follows it.
Only `Store.annotate` writes it."""

ANNOTATE = "annotate:"
"""What the wanted kinds of annotators begin with, so that no retriever's kind is one of them."""

Author = Literal["machine", "person"]
"""Who says an annotation."""


@dataclass(frozen=True, slots=True)
class ImageWrite:
    """One add or replace. `image_id` None asks for the next free id."""

    image_id: int | None
    sha256: str
    width: int
    height: int
    wanted: frozenset[str]
    features: Mapping[Space, bytes]
    source: str = "online"
    """The file's path, or `online` for an upload."""
    metadata: Mapping[str, Any] | None = None
    """None leaves what is there (a new image, also one that replaces another, gets {})."""
    preview: bytes | None = None
    """A JPEG of the preview."""
    original: bytes | None = None
    """The upload's bytes, kept only while a wanted kind is missing."""
    created: float | None = None
    """Seconds since the epoch; None is now."""


@dataclass(frozen=True, slots=True)
class Receipt:
    image_id: int
    seq: int
    """Of this write's log entry; of the image's creation when nothing was written."""
    generation: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Image:
    """An image row."""

    image_id: int
    generation: int
    """The seq that created the row; later writes carry it and are dropped when it has changed."""
    sha256: str
    width: int
    height: int
    source: str
    created: float
    """Seconds since the epoch."""
    wanted: frozenset[str]
    pending: frozenset[str]
    """Wanted kinds that have no features yet."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    has_preview: bool = False
    has_original: bool = False

    @property
    def file_name(self) -> str:
        """`{id}.online` for an upload, else the file's name, as the old gateway had it."""
        return file_name_of(self.image_id, self.source)


@dataclass(frozen=True, slots=True)
class Pending:
    """Work for a completer."""

    image_id: int
    generation: int
    has_original: bool
    has_preview: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What a follower must apply to stand at `head`; None means remove."""

    head: int
    rows: Mapping[int, bytes | None]


class Store(ABC):
    """Thread-safe. Foreign errors come out as StoreUnavailable, never as the backend's own."""

    # --- writes: each is durable when it returns -------------------------------------------------

    def put(self, write: ImageWrite) -> Receipt:
        """`put_many` of one."""
        return self.put_many([write])[0]

    @abstractmethod
    def put_many(self, writes: Sequence[ImageWrite]) -> list[Receipt]:
        """Add or replace, all in one transaction, in order.

        For an id that exists: with another sha256 it is a replace (all features of every space,
        preview, original and pending work of the old generation go; a new generation begins). With
        the same sha256 the generation stays: wanted kinds are united, given features written, given
        metadata replaced, and a file's path takes the place of another source; a preview is kept if
        there was none. `unchanged`, and nothing written, when all of that is there already.
        Kinds of given features are wanted too.
        Ids given by the service come from a persistent counter above every id ever seen.
        Raises InvalidInput for an id out of [0, 2^47).
        """

    @abstractmethod
    def delete(self, image_id: int) -> int | None:
        """Remove an image and all that belongs to it. Its seq, or None when it was not there."""

    @abstractmethod
    def delete_kind(self, image_id: int, kind: str) -> int | None:
        """Remove one kind's features (of every fingerprint) and stop wanting it.

        The image goes with the last kind of a retriever that it wants. An annotator's kind takes
        what it said along. Its seq, or None when there was nothing to remove.
        """

    @abstractmethod
    def complete(
        self, image_id: int, generation: int, features: Mapping[Space, bytes]
    ) -> int | None:
        """Write features that were pending; None, and nothing written, if the generation is gone.

        Kinds the image no longer wants are dropped. The original goes with the last pending kind.
        When all of it is there already nothing is written, and the head is returned.
        """

    @abstractmethod
    def annotate(
        self,
        image_id: int,
        generation: int,
        annotations: Mapping[str, Mapping[str, Any] | None],
        by: Author,
        metadata: Mapping[str, Any] | None = None,
    ) -> int | None:
        """Write annotations by annotator, or remove those given as None; the others stay.

        `metadata` are changes: keys given take the place of those there, None removes one.
        A person's word stands, their removal too: a machine changes nothing of it. An annotator of
        which there is an annotation, or a person's removal, is no longer pending. Tags are found by
        `matching({"tags": tag})`, as those of metadata are. Returns the seq, the head when nothing
        changed, or None, and nothing written, if the generation is gone. Raises InvalidInput for
        names and values that can't be kept.
        """

    @abstractmethod
    def activate(self, kind: str, fingerprint: str | None) -> None:
        """Say which of a kind's spaces searches use from now on; None forgets it."""

    @abstractmethod
    def drop_space(self, space: Space) -> int:
        """Remove all rows of a space, in several transactions; how many.

        Each is logged; an image that is left without features of the kind it wants is pending.
        Raises Conflict, and removes nothing, for the space that searches use.
        """

    @abstractmethod
    def compact(self, through: int) -> None:
        """Forget the log up to this seq: followers that have not applied it must rebuild."""

    @abstractmethod
    def reserve_ids(self, following: int) -> int:
        """The next id that the service gives: this one, unless the counter is above it already."""

    @abstractmethod
    def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew a lease; False while another holder's has not run out."""

    @abstractmethod
    def release(self, name: str, holder: str) -> None:
        """Give a lease back if this holder has it."""

    @abstractmethod
    def mark(self, name: str, seq: int, seconds: float) -> None:
        """Say under this name that the log is needed from behind this seq on, for so long.

        It holds nothing back by itself: whoever compacts asks for `marks`.
        """

    # --- reads -----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def uuid(self) -> str:
        """Of this store, made at its creation."""

    @abstractmethod
    def head(self) -> int:
        """The newest seq; 0 for an empty log."""

    def wait(self, after: int, seconds: float, ended: threading.Event) -> None:  # noqa: ARG002
        """Until the head may be beyond `after`, `ended` is set, or so many seconds have passed."""
        ended.wait(seconds)

    @abstractmethod
    def marks(self) -> dict[str, int]:
        """Seq by name of the marks whose time is not over."""

    @abstractmethod
    def changes(self, space: Space, after: int, limit: int | None = None) -> Changes | None:
        """Entries after `after`, coalesced by id, with the rows as they are now: ONE snapshot.

        With a limit, at most so many entries: `head` is then that of the last one read. Ids whose
        row in this space was not touched may be left out.
        None when the log was compacted beyond `after`, or `after` is beyond the head (a restored
        store): the follower must rebuild.
        """

    @abstractmethod
    def scan(self, space: Space, batch: int = 4096) -> Scan:
        """Head and all rows of a space in one snapshot. Use as a context manager."""

    @abstractmethod
    def rows(self, space: Space, image_ids: Sequence[int]) -> dict[int, bytes]:
        """Features by id; missing ids are left out."""

    @abstractmethod
    def image(self, image_id: int) -> Image | None: ...

    @abstractmethod
    def images(self, after: int = -1, limit: int = 100) -> list[Image]:
        """By ascending id, those above `after`."""

    @abstractmethod
    def known(self, image_ids: Sequence[int]) -> dict[int, Image]:
        """Image rows by id; missing ids are left out."""

    @abstractmethod
    def named(self, file_name: str) -> list[int]:
        """Ids of the images with this `file_name`, ascending."""

    @abstractmethod
    def matching(self, metadata: Mapping[str, Any]) -> list[int]:
        """Ids, ascending, of images whose metadata has all these top-level keys with these values.

        A stored list matches when it contains the value. `tags` are those of annotations, too.
        """

    @abstractmethod
    def preview(self, image_id: int) -> bytes | None: ...

    @abstractmethod
    def original(self, image_id: int, generation: int) -> bytes | None: ...

    @abstractmethod
    def pending(self, kind: str, after: int = -1, limit: int = 64) -> list[Pending]:
        """Images that want this kind and lack it, by ascending id above `after`."""

    @abstractmethod
    def sources(self) -> dict[str, int]:
        """Source path → id of all images that came from files (for a resumed backfill)."""

    @abstractmethod
    def missing(self, kinds: Mapping[str, str], image_ids: Sequence[int]) -> dict[int, set[str]]:
        """For each id that exists: those of `kinds` (kind → fingerprint) without a row."""

    @abstractmethod
    def active(self) -> dict[str, str]:
        """Kind → fingerprint, as `activate` said; kinds of which nothing was said are left out."""

    @abstractmethod
    def spaces(self) -> list[Space]:
        """Every space that holds a row, sorted."""

    @abstractmethod
    def count(self) -> int:
        """How many images."""

    @abstractmethod
    def close(self) -> None: ...


@dataclass(slots=True)
class Scan:
    """A snapshot of one space. Close it (or leave its `with`) soon: it pins old pages."""

    head: int
    batches: Iterator[list[tuple[int, bytes]]]
    close: Callable[[], None]

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def file_name_of(image_id: int, source: str) -> str:
    """The name the old services gave an image."""
    return f"{image_id}.online" if source == "online" else PurePath(source).name


def missing_kinds(wanted: Collection[str], features: Mapping[Space, bytes]) -> frozenset[str]:
    """Wanted kinds without features of any fingerprint."""
    return frozenset(wanted) - {space.kind for space in features}
