"""Finds duplicates among the stored images, and follows what changes.

Images are worked on in blocks. Each is compared with those of its block and of all blocks before,
so that each pair is compared once. What was compared is recorded with its content and features: a
run that was ended, and one that is repeated, goes on with what is new.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import orjson

from cluster.jobs.duplicates.candidates import Candidate, Candidates, Roster, add_identical
from cluster.jobs.duplicates.confirming import confirm
from cluster.jobs.duplicates.proposers import Proposer
from indexes.duplicates.catalogue import AGAIN, FOLLOWED, REGROUP, followed_write, regroup
from indexes.duplicates.connected import Writes
from indexes.duplicates.decisions import finish_begun
from indexes.duplicates.facts import Facts, facts_of
from indexes.duplicates.kept import forget_old
from indexes.duplicates.levels import Level
from indexes.duplicates.pairs import Pair, have_pairs, id_text, pair_writes, pairs_of
from indexes.store.base import Store
from indexes.store.records import RecordKey

T = TypeVar("T")

DONE = "duplicates.done"
METHOD = 1
"""Number of the method: another one compares all images again."""
BLOCK = 2000
"""Images that are recorded as compared together."""
COMPARED = 128
"""Candidates whose previews are read, and whose groups are written, together."""
PAGE = 1000
LOG_PAGE = 10_000
MARK, MARK_SECONDS = "duplicates", 24 * 3600.0
PARTNERS = 12
"""Pairs of an image through which others are proposed to its partners."""
UNCONNECTED: frozenset[Level] = frozenset({"burst", "similar", "collage"})
"""Levels whose pairs propose no others."""


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most `size`, read as they are needed."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


@dataclass(slots=True)
class Outcome:
    """What a pass has done."""

    images: int = 0
    new: int = 0
    """Images that were compared."""
    compared: int = 0
    """Candidates whose previews were compared."""
    left_out: int = 0
    """Candidates that were not: of images with very many."""
    pairs: Counter[str] = field(default_factory=Counter)
    """New pairs by level."""


class DuplicateFinder:
    """The job in one process, with the indexes of its proposers."""

    def __init__(
        self,
        store: Store,
        proposers: Sequence[Proposer],
        threads: ThreadPoolExecutor,
        note: Callable[[int, int], None] = lambda _, __: None,
    ) -> None:
        self._store = store
        self._proposers = proposers
        self._threads = threads
        self._note = note
        """Takes the number of images compared, and of those to compare; may raise to end."""
        self._roster = Roster()
        self._compared: set[int] = set()
        """Images that were compared as they are now."""
        self._contents: dict[int, tuple[str, bool]] = {}
        """SHA-256 of all images, and whether there is a preview, as they were read."""
        self._progress = 0, 0
        self._loaded = False

    def run(self) -> Outcome:
        """Compare what is new up to the log's head, and regroup what has changed."""
        finish_begun(self._store)
        forget_old(self._store)
        head = self._store.head()
        touched = self._changed()
        if touched is None or self._store.record(*REGROUP) is not None:
            touched = sorted({*self._all_ids(), *self._contents})
        self._regroup(touched)  # What lost a pair by these changes is compared again at once.
        again = self._again()
        touched = sorted({*touched, *again})
        looked_at = touched if self._loaded else sorted({*self._all_ids(), *touched})
        self._read(looked_at)
        todo = self._outstanding(looked_at, again)
        outcome = Outcome(self._store.count(), len(todo))
        done = 0
        for block in batches(todo, BLOCK):
            self._progress = done, len(todo)
            self._note(*self._progress)
            self._work(block, outcome)
            done += len(block)
        self._note(done, len(todo))
        self._store.write_records({**followed_write(self._store, head), REGROUP: None})
        # What is still to be read of the log is not compacted until the next pass.
        self._store.mark(MARK, head, MARK_SECONDS)
        return outcome

    # --- what has changed ------------------------------------------------------------------------

    def _changed(self) -> list[int] | None:
        """Ids that changed since the last pass; None if that is unknown."""
        said = orjson.loads(self._store.record(*FOLLOWED) or b"{}")
        if said.get("store") != self._store.uuid:
            return None
        after, found = said["head"], set[int]()
        while (page := self._store.log(after, LOG_PAGE)) is not None:
            found.update(page.seqs)
            if page.head == after:
                return sorted(found)
            after = page.head
        return None

    def _all_ids(self) -> Iterator[int]:
        after = -1
        while images := self._store.images(after, PAGE):
            after = images[-1].image_id
            yield from (image.image_id for image in images)

    def _read(self, ids: Sequence[int]) -> None:
        """Read images, then their features.

        In this order a picture that is replaced meanwhile is recorded under its old content, and is
        compared when its log entry is reached.
        """
        for some in batches(ids, PAGE):
            images = self._store.images_by_id(some)
            gone = set(some) - images.keys()
            self._roster.remove(gone)
            self._compared -= gone
            for at in gone:
                self._contents.pop(at, None)
            self._roster.update(facts_of(self._store, images.values()).values())
            self._contents |= {
                at: (image.sha256, image.has_preview) for at, image in images.items()
            }
        for proposer in self._proposers:
            if self._loaded:
                proposer.follow(self._store, ids)
            else:
                proposer.load(self._store)
        self._loaded = True

    def _again(self) -> set[int]:
        """Images that lost a pair since they were compared."""
        found: set[int] = set()
        after = ""
        while page := self._store.records(AGAIN, after, PAGE):
            found.update(int(one.key) for one in page)
            after = page[-1].key
        return found

    def _outstanding(self, ids: Sequence[int], again: Collection[int]) -> list[int]:
        """Those of these images that were not compared as they are now, or are to be again."""
        todo: list[int] = []
        for some in batches(ids, PAGE):
            known = self._store.records_by_key(DONE, [id_text(at) for at in some])
            gone: Writes = {
                RecordKey(kind, id_text(at)): None
                for at in some
                if at not in self._contents and (at in again or id_text(at) in known)
                for kind in (DONE, AGAIN)
            }
            if gone:
                self._store.write_records(gone)
            for at in some:
                if at not in self._contents:
                    continue
                if at not in again and known.get(id_text(at)) == self._mark(at):
                    self._compared.add(at)
                else:
                    self._compared.discard(at)
                    todo.append(at)
        return todo

    def _mark(self, image_id: int) -> bytes:
        """What an image is recorded as compared with: its content and its features."""
        spaces = [list(one.space) for one in self._proposers if image_id in one.ids]
        said = orjson.dumps([METHOD, *self._contents[image_id], spaces])
        return hashlib.blake2b(said, digest_size=12).digest()

    # --- comparing -------------------------------------------------------------------------------

    def _work(self, block: Sequence[int], outcome: Outcome) -> None:
        allowed = self._compared.union(block)
        candidates = Candidates()
        for proposer in self._proposers:
            proposer.propose(block, allowed, candidates, self._threads)
        for at in block:
            same = self._store.ids_by_sha256(self._contents[at][0])
            add_identical(candidates, at, same, allowed)
            self._roster.add_to(candidates, at, allowed)
        likeliest, left_out = candidates.likeliest()
        outcome.left_out += left_out
        found = self._confirmed(likeliest, outcome)
        self._confirmed(self._connecting(found, candidates), outcome)
        done: Writes = {RecordKey(DONE, id_text(at)): self._mark(at) for at in block}
        self._store.write_records(done | {RecordKey(AGAIN, id_text(at)): None for at in block})
        self._compared.update(block)

    def _confirmed(self, candidates: Iterable[Candidate], outcome: Outcome) -> list[Pair]:
        """Compare candidates, and write and group those that are pairs."""
        confirmed: list[Pair] = []
        for some in batches(candidates, COMPARED):
            self._note(*self._progress)
            ids = sorted({at for one in some for at in (one.a, one.b)})
            facts = facts_of(self._store, self._store.images_by_id(ids).values())
            previews = self._store.previews(ids)
            there = [one for one in some if one.a in facts and one.b in facts]

            def one_pair(one: Candidate, facts: dict[int, Facts] = facts) -> Pair | None:
                return confirm(one, facts, previews)  # noqa: B023

            pairs = [pair for pair in self._threads.map(one_pair, there) if pair is not None]
            outcome.compared += len(there)
            outcome.pairs.update(pair.level for pair in pairs)
            if pairs:
                both = {at for pair in pairs for at in (pair.a, pair.b)}
                regroup(self._store, both, pair_writes(pairs))
            confirmed += pairs
        return confirmed

    def _connecting(self, found: Sequence[Pair], tried: Candidates) -> list[Candidate]:
        """Candidates that complete groups: images with a duplicate in common."""
        more = Candidates()
        for at in {at for pair in found for at in (pair.a, pair.b)}:
            known = (one for one in pairs_of(self._store, at) if one.level not in UNCONNECTED)
            partners = [pair.other(at) for pair, _ in zip(known, range(PARTNERS), strict=False)]
            for number, one in enumerate(partners):
                for other in partners[:number]:
                    if (min(one, other), max(one, other)) not in tried.of:
                        more.between(one, other)
        stored = have_pairs(self._store, more.of)
        return [one for ends, one in more.of.items() if ends not in stored]

    def _regroup(self, ids: Iterable[int]) -> None:
        left = list(ids)
        seen: set[int] = set()
        for some in batches((at for at in left if at not in seen), COMPARED):
            seen |= regroup(self._store, some)
