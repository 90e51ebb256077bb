"""The images of a store that carry one tag, as a store of their own.

What is built over it (an index, a calibration, counts, pages) is what it would be if the other
images did not exist. What is left of them: seqs, generations, versions and assigned ids are those
of the whole store, so they tell how much is written to it.

The tag decides who sees an image, so writes keep it: an added image gets it, and `tags` of the
metadata can't be changed here. Records are kept apart from those of the whole store.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from indexes.store.base import (
    Author,
    Changes,
    Guard,
    Image,
    ImageWrite,
    LogPage,
    Pending,
    Preview,
    Receipt,
    Space,
    Store,
)
from indexes.store.checks import check_version, check_writes
from indexes.store.records import Record, RecordKey
from indexes.store.scan import Scan
from indexes.store.tagged.members import TAGS, Members, carries
from models.errors import KeyLimited, PreconditionFailed

T = TypeVar("T")
Prepared = TypeVar("Prepared")
ATTEMPTS = 16
"""Number of attempts at a write to an image that others change at the same time."""
WHOLE_LOG = 2**31 - 1
"""A limit above the number of entries that are read at once."""
FOREIGN_ID = (
    "image_id: a key that is limited to a tag replaces only images that it sees; "
    "the id of a new one is the service's choice"
)


class TaggedStore(Store):
    """Shows and changes only the images whose metadata has a tag.

    Besides what the contract says, its writes raise KeyLimited: for an id that is given and shows
    no image, whether or not the whole store has one, for other `tags` than an image has, and for
    what concerns the whole store.
    """

    def __init__(self, base: Store, tag: str) -> None:
        self.base = base
        self.tag = tag
        self._members = Members(base, tag)
        self._name = hashlib.blake2b(tag.encode(), digest_size=8).hexdigest()
        self._lock = threading.Lock()
        self._claimed: set[int] = set()
        """Ids that were assigned under a key, and not written since."""

    # --- writes ----------------------------------------------------------------------------------

    def put_many(self, writes: Sequence[ImageWrite]) -> list[Receipt]:
        return self._put(writes, self.base.put_many)

    def put_if(self, writes: Sequence[ImageWrite], guard: Guard) -> list[Receipt]:
        return self._put(writes, lambda own: self.base.put_if(own, guard))

    def _put(
        self,
        writes: Sequence[ImageWrite],
        put: Callable[[Sequence[ImageWrite]], list[Receipt]],
    ) -> list[Receipt]:
        receipts = _repeated(lambda: self._own(writes), put)
        with self._lock:
            self._claimed -= {receipt.image_id for receipt in receipts}
        return receipts

    def delete(self, image_id: int, if_version: int | None = None) -> int | None:
        def delete(image: Image | None) -> int | None:
            return None if image is None else self.base.delete(image_id, image.version)

        return _repeated(lambda: self._expected(image_id, if_version), delete)

    def delete_kind(self, image_id: int, kind: str) -> int | None:
        return None if self.image(image_id) is None else self.base.delete_kind(image_id, kind)

    def complete(
        self, image_id: int, generation: int, features: Mapping[Space, bytes]
    ) -> int | None:
        if self.image(image_id) is None:
            return None
        return self.base.complete(image_id, generation, features)

    def annotate(
        self,
        image_id: int,
        generation: int,
        annotations: Mapping[str, Mapping[str, Any] | None],
        by: Author,
        metadata: Mapping[str, Any] | None = None,
        if_version: int | None = None,
    ) -> int | None:
        def checked() -> Image | None:
            image = self._expected(image_id, if_version)
            if image is not None:
                _check_tags(metadata, image.metadata[TAGS])
            return image

        def annotate(image: Image | None) -> int | None:
            if image is None:
                return None
            return self.base.annotate(
                image_id, generation, annotations, by, metadata, image.version
            )

        return _repeated(checked, annotate)

    def activate(self, kind: str, fingerprint: str | None) -> None:  # noqa: ARG002
        raise _whole()

    def drop_space(self, space: Space) -> int:  # noqa: ARG002
        raise _whole()

    def compact(self, through: int) -> None:  # noqa: ARG002
        raise _whole()

    def reserve_ids(self, following: int) -> int:  # noqa: ARG002
        raise _whole()

    def mark(self, name: str, seq: int, seconds: float) -> None:  # noqa: ARG002
        raise _whole()

    def claim_id(self, key: str, sha256: str, seconds: float) -> int:
        image_id = self.base.claim_id(f"{self._name}:{key}", sha256, seconds)
        with self._lock:
            self._claimed.add(image_id)
        return image_id

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        return self.base.lease(f"{self._name}:{name}", holder, seconds)

    def release(self, name: str, holder: str) -> None:
        self.base.release(f"{self._name}:{name}", holder)

    def write_records(
        self,
        writes: Mapping[RecordKey, bytes | None],
        expected: Mapping[RecordKey, bytes | None] | None = None,
    ) -> None:
        self.base.write_records(
            {self._record_key(key): value for key, value in writes.items()},
            {self._record_key(key): value for key, value in (expected or {}).items()},
        )

    # --- reads -----------------------------------------------------------------------------------

    @property
    def uuid(self) -> str:
        named = f"{self.base.uuid}:{self._name}"
        return hashlib.blake2b(named.encode(), digest_size=16).hexdigest()

    def head(self) -> int:
        return self.base.head()

    def wait(self, after: int, seconds: float, ended: threading.Event) -> None:
        self.base.wait(after, seconds, ended)

    def marks(self) -> dict[str, int]:
        return {}

    def changes(self, space: Space, after: int, limit: int | None = None) -> Changes | None:
        # The log of the space alone would not tell that an image has got the tag, or lost it.
        page = self.base.log(after, WHOLE_LOG if limit is None else limit)
        if page is None:
            return None
        # A row that is left out because its image changes meanwhile has a later entry.
        rows = self.rows(space, list(page.seqs))
        return Changes(page.head, {at: rows.get(at) for at in page.seqs})

    def log(self, after: int, limit: int) -> LogPage | None:
        """As of the whole store, since the log does not tell whether an image that is gone had the
        tag: it is for followers, and must not be shown."""
        return self.base.log(after, limit)

    def scan(self, space: Space, batch: int = 4096) -> Scan:
        """The rows of the members at its beginning. What changes meanwhile may be in it, and has an
        entry in the log after its head."""
        head = self.base.head()
        ids = self._members.current().ids

        def batches() -> Iterator[list[tuple[int, bytes]]]:
            for start in range(0, len(ids), batch):
                yield list(self.rows(space, ids[start : start + batch].tolist()).items())

        return Scan(head, batches(), lambda: None)

    def rows(self, space: Space, image_ids: Sequence[int]) -> dict[int, bytes]:
        return self._visible(image_ids, lambda ids: self.base.rows(space, ids))

    def images(self, after: int = -1, limit: int = 100) -> list[Image]:
        ids, found = self._members.current().ids, list[Image]()
        start = int(np.searchsorted(ids, after, "right"))
        while start < len(ids) and len(found) < limit:
            page = ids[start : start + limit - len(found)]
            found += self.images_by_id(page.tolist()).values()
            start += len(page)
        return found

    def images_by_id(self, image_ids: Sequence[int]) -> dict[int, Image]:
        images = self.base.images_by_id(image_ids)
        return {at: image for at, image in images.items() if carries(image, self.tag)}

    def ids_by_file_name(self, file_name: str) -> list[int]:
        return self._filtered(self.base.ids_by_file_name(file_name))

    def ids_by_sha256(self, sha256: str) -> list[int]:
        return self._filtered(self.base.ids_by_sha256(sha256))

    def ids_by_metadata(self, metadata: Mapping[str, Any]) -> list[int]:
        return self._filtered(self.base.ids_by_metadata(metadata))

    def previews(self, image_ids: Sequence[int]) -> dict[int, Preview]:
        return self._visible(image_ids, self.base.previews)

    def original(self, image_id: int, generation: int) -> bytes | None:
        image = self.image(image_id)
        if image is None or image.generation != generation:
            return None
        return self.base.original(image_id, generation)

    def pending(self, kind: str, after: int = -1, limit: int = 64) -> list[Pending]:
        found: list[Pending] = []
        while len(found) < limit and (page := self.base.pending(kind, after, limit)):
            after = page[-1].image_id
            generations = self._members.current().generations
            found += [one for one in page if generations.get(one.image_id) == one.generation]
        return found[:limit]

    def ids_by_source(self) -> dict[str, int]:
        found = self.base.ids_by_source()
        members = self._members.current()
        return {source: at for source, at in found.items() if at in members}

    def missing(self, kinds: Mapping[str, str], image_ids: Sequence[int]) -> dict[int, set[str]]:
        return self._visible(image_ids, lambda ids: self.base.missing(kinds, ids))

    def active(self) -> dict[str, str]:
        return self.base.active()

    def spaces(self) -> list[Space]:
        return self.base.spaces()

    def count(self) -> int:
        return len(self._members.current().generations)

    def records_by_key(self, kind: str, keys: Collection[str]) -> dict[str, bytes]:
        return self.base.records_by_key(self._record_kind(kind), keys)

    def records(
        self, kind: str, after: str = "", limit: int = 100, prefix: str = ""
    ) -> list[Record]:
        return self.base.records(self._record_kind(kind), after, limit, prefix)

    def record_kinds(self) -> list[str]:
        ending = self._record_kind("")
        kinds = self.base.record_kinds()
        return sorted(kind.removesuffix(ending) for kind in kinds if kind.endswith(ending))

    def close(self) -> None:
        """Does nothing: the whole store is closed by who opened it."""

    # --- what is shown ---------------------------------------------------------------------------

    def _visible(
        self, image_ids: Sequence[int], read: Callable[[list[int]], dict[int, T]]
    ) -> dict[int, T]:
        """What is read for those of these ids that carry the tag, and are the same images before
        and after the read, so that nothing of another image under the same id is shown."""
        before = self._members.current().generations
        found = read([int(at) for at in image_ids if int(at) in before])
        after = self._members.current().generations
        return {at: one for at, one in found.items() if before[at] == after.get(at)}

    def _filtered(self, image_ids: Sequence[int]) -> list[int]:
        members = self._members.current()
        return [at for at in image_ids if at in members]

    def _expected(self, image_id: int, if_version: int | None) -> Image | None:
        """The image, if it is shown. Raises PreconditionFailed for another version."""
        image = self.image(image_id)
        check_version(if_version, None if image is None else image.version)
        return image

    def _own(self, writes: Sequence[ImageWrite]) -> list[ImageWrite]:
        """The writes, so that they give or keep the tag, and fail if an image changes meanwhile."""
        check_writes(writes)
        images = self.images_by_id([one.image_id for one in writes if one.image_id is not None])
        own: list[ImageWrite] = []
        written: dict[int, str] = {}
        for write in writes:
            at = write.image_id
            if at is None:
                own.append(self._tagged(write, None, ""))
                continue
            image = images.get(at)
            if image is None and not (self._is_claimed(at) and self.base.image(at) is None):
                raise KeyLimited(FOREIGN_ID, "image_id")
            tagged = self._tagged(
                write, image, written.get(at, "" if image is None else image.sha256)
            )
            if at not in written:
                # A later write of this transaction finds what this one leaves.
                check_version(write.if_version, None if image is None else image.version)
                tagged = replace(tagged, if_version=0 if image is None else image.version)
            written[at] = write.sha256
            own.append(tagged)
        return own

    def _is_claimed(self, image_id: int) -> bool:
        with self._lock:
            return image_id in self._claimed

    def _tagged(self, write: ImageWrite, image: Image | None, sha256: str) -> ImageWrite:
        """The write of an image that has this content before, with the tags that it keeps."""
        tags = [self.tag] if image is None else image.metadata[TAGS]
        _check_tags(write.metadata, tags)
        if write.metadata is None and sha256 == write.sha256:
            return write
        return replace(write, metadata={**(write.metadata or {}), TAGS: tags})

    def _record_kind(self, kind: str) -> str:
        return f"{kind}@{self._name}"

    def _record_key(self, key: RecordKey) -> RecordKey:
        return RecordKey(self._record_kind(key.kind), key.key)


def _repeated(prepare: Callable[[], Prepared], write: Callable[[Prepared], T]) -> T:
    """Prepare a write and do it; anew if an image changes between the two."""
    for _ in range(ATTEMPTS):
        prepared = prepare()
        try:
            return write(prepared)
        except PreconditionFailed:
            continue
    raise PreconditionFailed("the image keeps changing: try again", "image_id")


def _check_tags(metadata: Mapping[str, Any] | None, tags: Any) -> None:
    """Raises KeyLimited for other tags than these."""
    if metadata is not None and TAGS in metadata and metadata[TAGS] != tags:
        raise KeyLimited(
            "metadata.tags: a key that is limited to a tag can't change them; "
            "tags of annotations it can",
            "metadata.tags",
        )


def _whole() -> KeyLimited:
    return KeyLimited("this concerns all images: a key that is limited to a tag can't do it")
