"""Completion: features and annotations that an add did not wait for are made later, by one replica
per kind."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from indexes.store.base import ANNOTATE, Pending, Space, Store
from models.annotator import Annotation, Annotator
from models.base import Extractor
from models.errors import AmbienceError, InvalidInput
from models.machine import yield_to_others
from models.pictures.decoder import Decoder
from models.pictures.decoding import Picture
from models.pictures.limits import DecodeLimits
from models.types import View

logger = logging.getLogger(__name__)
LEASE_SECONDS = 30.0
_ANY = 1 << 62
_ACCEPTED = DecodeLimits(max_bytes=_ANY, max_pixels=_ANY, max_header_pixels=_ANY)
"""Stored originals were decoded within the ingress's limits, so no other limits may refuse them."""


class Completer(ABC):
    """Completes pending images of one kind, one at a time, while it holds the lease."""

    def __init__(self, kind: str, store: Store, view: View) -> None:
        self.kind = kind
        self.store = store
        self.view = view
        self._decoder = Decoder(_ACCEPTED)
        self._holder = uuid.uuid4().hex
        self._held_until = 0.0
        self._hopeless: set[tuple[int, int]] = set()

    def complete_one(self) -> bool:
        """Complete the first image that can be completed. Returns False when there is none, or no
        lease."""
        pending = self._next()
        if pending is None or not self._holds_lease():
            return False
        self._complete(pending)
        return True

    @abstractmethod
    def _write(self, pending: Pending, picture: Picture, whole: bool) -> None:
        """Make what is pending and store it; `whole` is false for the stored preview."""

    def _next(self) -> Pending | None:
        after = -1
        while page := self.store.pending(self.kind, after):
            for pending in page:
                if self._possible(pending):
                    return pending
            after = page[-1].image_id
        return None

    def _possible(self, pending: Pending) -> bool:
        if (pending.image_id, pending.generation) in self._hopeless:
            return False
        return pending.has_original or (pending.has_preview and self.view == "preview")

    def _holds_lease(self) -> bool:
        now = time.monotonic()
        if now > self._held_until and self.store.lease(
            f"complete:{self.kind}", self._holder, LEASE_SECONDS
        ):
            self._held_until = now + LEASE_SECONDS / 3
        return now <= self._held_until

    def _complete(self, pending: Pending) -> None:
        data = self.store.original(pending.image_id, pending.generation)
        whole = data is not None
        if data is None and self.view == "preview":
            data = self.store.preview(pending.image_id)
        if data is None:
            return  # Replaced or deleted meanwhile.
        try:
            self._write(pending, self._decoder.decode_blocking(data), whole)
        except InvalidInput as exc:
            self._hopeless.add((pending.image_id, pending.generation))
            logger.warning("picture %d can't be completed: %s", pending.image_id, exc)


async def keep_completing(completer: Completer, interval: float) -> None:
    """Complete image after image in a thread of low priority; look again every `interval` seconds.

    What the store or the method can't do now is retried.
    """
    thread = ThreadPoolExecutor(1, "complete", yield_to_others)
    while True:
        try:
            more = await asyncio.get_running_loop().run_in_executor(thread, completer.complete_one)
        except AmbienceError as exc:
            logger.warning("completion of %s: %s", completer.kind, exc)
            more = False
        await asyncio.sleep(0 if more else interval)


class FeatureCompleter(Completer):
    """Completes features of one retriever."""

    def __init__(self, name: str, store: Store, extractor: Extractor) -> None:
        super().__init__(name, store, extractor.view)
        self.extractor = extractor

    def _write(self, pending: Pending, picture: Picture, whole: bool) -> None:  # noqa: ARG002
        row = self.extractor.to_row(self.extractor.extract(picture.view(self.view)))
        space = Space(self.kind, self.extractor.fingerprint)
        self.store.complete(pending.image_id, pending.generation, {space: row})


class AnnotationCompleter(Completer):
    """Completes annotations of one annotator, from pictures or from stored features.

    It holds the lock while it uses the annotator, which takes one call at a time.
    """

    def __init__(self, name: str, store: Store, annotator: Annotator, lock: Lock) -> None:
        super().__init__(ANNOTATE + name, store, annotator.view)
        self._lock = lock
        self.name = name
        self.annotator = annotator

        self._reads_features = annotator.reads() is not None

    def _row(self, pending: Pending) -> bytes | None:
        """The stored features that the annotator reads now; a retriever may change its model."""
        reads = self.annotator.reads()
        assert reads is not None
        return self.store.rows(Space(*reads), [pending.image_id]).get(pending.image_id)

    def _possible(self, pending: Pending) -> bool:
        if not self._reads_features:
            return super()._possible(pending)
        with self._lock:
            return self._row(pending) is not None

    def _complete(self, pending: Pending) -> None:
        if not self._reads_features:
            super()._complete(pending)
            return
        with self._lock:
            row = self._row(pending)
            if row is None:
                return
            annotation = self.annotator.annotate_features([row])[0]
        self._candidates(pending, annotation)

    def _write(self, pending: Pending, picture: Picture, whole: bool) -> None:  # noqa: ARG002
        with self._lock:
            annotation = self.annotator.annotate(picture.view(self.view))
        self._candidates(pending, annotation)

    def _candidates(self, pending: Pending, annotation: Annotation) -> None:
        said = {**annotation.row(), "fingerprint": self.annotator.fingerprint}
        self.store.annotate(pending.image_id, pending.generation, {self.name: said}, "machine")
