"""Random histories in which the followed index, one rebuilt from rows, and a dict must agree."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from indexes.replica.follower import Follower
from indexes.replica.saving import save_if_due
from indexes.replica.snapshots import Snapshots
from indexes.store.annotations import annotations_of
from indexes.store.base import ANNOTATE, ANNOTATIONS, Author, ImageWrite, Space, Store
from indexes.store.lmdb.environment import LmdbOptions
from indexes.store.lmdb.store import LmdbStore
from indexes.store.memory.store import MemoryStore
from indexes.store.postgres.connections import PostgresOptions
from indexes.store.postgres.store import PostgresStore
from indexes.store.records import Record, RecordKey
from models.errors import PreconditionFailed
from tests.indexes.pictures import LOCAL, PHASH, PHASH_NEW, row_of, scanned
from tests.indexes.tiny_index import TinyIndex, decode, nearest, tiny
from tests.postgres_server import PostgresServer

SPACES = (PHASH, PHASH_NEW, LOCAL)
IDS = st.integers(0, 4)
CONTENTS = st.sampled_from("abc")
SOME_SPACES = st.sets(st.sampled_from(SPACES))
ANNOTATORS = st.sampled_from(["caption", "ocr"])
RECORD_KEYS = st.sampled_from(["a", "a\0", "ab", "é"])
TAGS = ("sea", "dog")


def features_of(content: str, spaces: set[Space]) -> dict[Space, bytes]:
    return {space: row_of(f"{content} in {space}") for space in spaces}


class Picture:
    """What the model remembers of an image."""

    def __init__(self, content: str, generation: int) -> None:
        self.content = content
        self.generation = generation
        self.wanted: set[str] = set()
        self.features: dict[Space, bytes] = {}
        self.candidates: dict[str, dict[str, Any]] = {}
        """Annotations by annotator; only `by` is left of one that a person removed."""

    @property
    def pending(self) -> set[str]:
        had = {space.kind for space in self.features} | {
            ANNOTATE + name for name in self.candidates
        }
        return self.wanted - had


class StoreMachine(RuleBasedStateMachine):
    """Subclasses define how a store is opened and what a crash leaves."""

    def open(self) -> Store:
        raise NotImplementedError

    def crash(self) -> Store:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.store = self.open()
        self.model: dict[int, Picture] = {}
        self.records: dict[str, bytes] = {}
        self.ever = -1
        self.old: list[tuple[int, int, str]] = []
        """Images of all writes so far, on which work may have begun: (id, generation, content)."""
        self.saved: tuple[int, dict[int, bytes]] = (0, {})
        self.kept = Path(tempfile.mkdtemp(prefix="ambience-machine-"))
        self.follow()

    def follow(self) -> None:
        """Start a new replica."""
        self.index = tiny()
        self.snapshots = Snapshots(self.kept, self.store, PHASH)
        self.snapshot_path = self.snapshots.path(self.index)
        self.follower = Follower(self.store, PHASH, self.index, decode, snapshots=self.snapshots)
        self.follower.rebuild()

    # --- writes ----------------------------------------------------------------------------------

    @rule(
        image_id=st.none() | IDS,
        content=CONTENTS,
        wanted=SOME_SPACES,
        given=SOME_SPACES,
        annotators=st.sets(ANNOTATORS),
    )
    def add(
        self,
        image_id: int | None,
        content: str,
        wanted: set[Space],
        given: set[Space],
        annotators: set[str] = frozenset(),  # type: ignore[assignment]
    ) -> None:
        kinds = frozenset(space.kind for space in wanted | {PHASH})
        kinds |= {ANNOTATE + name for name in annotators}
        features = features_of(content, given)
        original = b"original" if len(given) < 2 else None
        write = ImageWrite(image_id, content, 4, 3, kinds, features, original=original)
        before = self.store.head()
        receipt = self.store.put(write)
        if image_id is None:
            assert receipt.image_id > self.ever
        self.ever = max(self.ever, receipt.image_id)
        had = self.model.get(receipt.image_id)
        if had is None or had.content != content:
            self.model[receipt.image_id] = Picture(content, receipt.generation)
            assert receipt.generation == receipt.seq == before + 1
            assert receipt.outcome == ("created" if had is None else "replaced")
        picture = self.model[receipt.image_id]
        assert receipt.generation == picture.generation
        assert (receipt.outcome == "unchanged") == (self.store.head() == before)
        picture.wanted |= kinds | {space.kind for space in features}
        picture.features.update(features)
        self.old.append((receipt.image_id, receipt.generation, content))

    @rule(image_id=IDS)
    def delete(self, image_id: int) -> None:
        gone = self.store.delete(image_id)
        assert (gone is None) == (image_id not in self.model)
        self.model.pop(image_id, None)

    @precondition(lambda self: self.old)
    @rule(
        data=st.data(),
        name=ANNOTATORS,
        tags=st.none() | st.lists(st.sampled_from(TAGS), unique=True),
        by=st.sampled_from(["machine", "person"]),
    )
    def annotate(self, data: st.DataObject, name: str, tags: list[str] | None, by: Author) -> None:
        """Annotate an image as it was at any time, as a machine or a person."""
        image_id, generation, _ = data.draw(st.sampled_from(self.old))
        before = self.store.head()
        words = None if tags is None else {"tags": tags}
        done = self.store.annotate(image_id, generation, {name: words}, by)
        picture = self.model.get(image_id)
        if picture is None or picture.generation != generation:
            assert done is None
            return
        said = dict(picture.candidates)
        if by == "person" or said.get(name, {}).get("by") != "person":
            said[name] = {**(words or {}), "by": by}
            if words is None and by == "machine":
                del said[name]
        assert done == before + (said != picture.candidates)
        picture.candidates = said

    @rule(image_id=IDS, kind=st.sampled_from(["phash", "local", "never", ANNOTATE + "ocr"]))
    def delete_kind(self, image_id: int, kind: str) -> None:
        gone = self.store.delete_kind(image_id, kind)
        picture = self.model.get(image_id)
        if picture is None or kind not in picture.wanted:
            assert gone is None
            return
        assert gone == self.store.head()
        picture.wanted.discard(kind)
        picture.features = {at: row for at, row in picture.features.items() if at.kind != kind}
        picture.candidates.pop(kind.removeprefix(ANNOTATE), None)
        if all(kind.startswith(ANNOTATE) for kind in picture.wanted):
            del self.model[image_id]

    @precondition(lambda self: self.old)
    @rule(data=st.data(), spaces=SOME_SPACES)
    def complete(self, data: st.DataObject, spaces: set[Space]) -> None:
        """Complete work begun at any time, mostly on an image deleted or replaced by now."""
        image_id, generation, content = data.draw(st.sampled_from(self.old))
        features = features_of(content, spaces)
        done = self.store.complete(image_id, generation, features)
        picture = self.model.get(image_id)
        if picture is None or picture.generation != generation:
            assert done is None
            return
        wanted = {at: row for at, row in features.items() if at.kind in picture.wanted}
        assert (done is None) == (not wanted)
        picture.features.update(wanted)

    @rule(image_id=IDS, content=CONTENTS)
    def recycle_between_a_read_and_its_write(self, image_id: int, content: str) -> None:
        """Let a completer read pending work, give the id another picture, then let it write."""
        works = [work for work in self.store.pending("local") if work.image_id == image_id]
        self.delete(image_id)
        self.add(image_id, content, {LOCAL}, {PHASH})
        for work in works:
            late = {LOCAL: row_of("late work of the picture before")}
            assert self.store.complete(image_id, work.generation, late) is None

    @rule(space=st.sampled_from(SPACES))
    def drop_a_space(self, space: Space) -> None:
        held = self.rows_of(space)
        assert self.store.drop_space(space) == len(held)
        for image_id in held:
            del self.model[image_id].features[space]

    # --- searches --------------------------------------------------------------------------------

    @rule(image_id=IDS, content=CONTENTS, asked=st.lists(CONTENTS, min_size=1, max_size=3))
    def add_beside_searches(self, image_id: int, content: str, asked: list[str]) -> None:
        """Search in several threads while an image is added; all other images are found."""
        others = {at: row for at, row in self.rows_of(PHASH).items() if at != image_id}

        def search(wanted: str) -> None:
            row = features_of(wanted, {PHASH})[PHASH]
            answer = self.follower.search(*nearest(row, k=100))
            found = {hit.image_id: hit.distance == 0 for hit in answer.hits}
            found.pop(image_id, None)
            assert found == {at: held == row for at, held in others.items()}

        with ThreadPoolExecutor(len(asked)) as threads:
            searches = [threads.submit(search, wanted) for wanted in asked]
            self.add(image_id, content, {PHASH}, {PHASH})
            for running in searches:
                running.result()

    @rule(
        writes=st.dictionaries(RECORD_KEYS, st.none() | st.binary(max_size=300), max_size=3),
        expected=st.dictionaries(RECORD_KEYS, st.booleans(), max_size=2),
    )
    def write_records(self, writes: dict[str, bytes | None], expected: dict[str, bool]) -> None:
        """Write records, under conditions that hold or don't."""
        other = b"other" * 100
        conditions = {
            RecordKey("kind", key): self.records.get(key) if holds else other
            for key, holds in expected.items()
        }
        named = {RecordKey("kind", key): value for key, value in writes.items()}
        if not all(expected.values()):
            with pytest.raises(PreconditionFailed):
                self.store.write_records(named, conditions)
            return
        self.store.write_records(named, conditions)
        changed = {**self.records, **writes}
        self.records = {key: value for key, value in changed.items() if value is not None}

    # --- histories -------------------------------------------------------------------------------

    @rule()
    def crash_and_reopen(self) -> None:
        """Crash and reopen the store; the follower lives in another process and goes on."""
        self.store = self.crash()
        self.follower.applier.store = self.snapshots.store = self.store

    @rule()
    def save(self) -> None:
        self.follower.catch_up()
        self.saved = (self.follower.applied, self.index_now().rows_held())

    @rule()
    def replay(self) -> None:
        """Start another replica from the saved index; it applies the log again from there."""
        self.follower.close()
        applied, rows = self.saved
        self.index = tiny()
        self.index.apply({image_id: decode(row) for image_id, row in rows.items()})
        self.follower = Follower(self.store, PHASH, self.index, decode, applied, self.snapshots)

    @rule()
    def snapshot(self) -> None:
        """Write a snapshot now, however few changes there were since the last one."""
        self.snapshot_path.unlink(missing_ok=True)
        assert save_if_due(self.follower)

    @rule(through=st.none() | st.integers(0, 50))
    def restart(self, through: int | None) -> None:
        """Start a new replica with a snapshot of any age; the log may have been compacted since."""
        self.follower.close()
        if through is not None:
            self.store.compact(through)
        self.follow()

    @precondition(lambda self: self.snapshot_path.exists())
    @rule(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), halved=st.booleans())
    def spoil_the_snapshot(self, where: float, bit: int, halved: bool) -> None:
        # The length of the snapshot differs between runs because it contains the time.
        bad = bytearray(self.snapshot_path.read_bytes())
        bad[int(where * len(bad))] ^= 1 << bit
        self.snapshot_path.write_bytes(bad[: len(bad) // 2] if halved else bad)

    @rule()
    def rebuild(self) -> None:
        self.follower.rebuild()

    @rule(through=st.integers(0, 50))
    def compact(self, through: int) -> None:
        self.store.compact(through)

    # --- invariants ------------------------------------------------------------------------------

    def index_now(self) -> TinyIndex:
        index = self.follower.submit(lambda index: index).result()
        assert isinstance(index, TinyIndex)
        return index

    @invariant()
    def the_followed_index_the_rows_and_the_model_agree(self) -> None:
        head = self.store.head()
        assert self.follower.catch_up() == head
        expected = self.rows_of(PHASH)
        assert self.index_now().rows_held() == expected
        rebuilt = Follower(self.store, PHASH, tiny(), decode)
        rebuilt.rebuild()
        held: Any = rebuilt.submit(lambda index: index).result()
        rebuilt.close()
        assert held.rows_held() == expected
        for space in SPACES:
            assert scanned(self.store, space, batch=2) == (head, self.rows_of(space))

    @invariant()
    def the_images_and_the_model_agree(self) -> None:
        images = {image.image_id: image for image in self.store.images()}
        assert images.keys() == self.model.keys()
        assert self.store.count() == len(self.model)
        for image_id, picture in self.model.items():
            image = images[image_id]
            assert (image.generation, image.sha256) == (picture.generation, picture.content)
            assert (image.wanted, image.pending) == (picture.wanted, picture.pending)
            assert image.has_original <= bool(picture.pending)
        pending = {at for at, picture in self.model.items() if "local" in picture.pending}
        assert {work.image_id for work in self.store.pending("local")} == pending
        held = set(self.store.spaces()) - {ANNOTATIONS}
        assert held == {space for space in SPACES if self.rows_of(space)}

    @invariant()
    def the_annotations_and_the_model_agree(self) -> None:
        shown = {
            image_id: {
                name: said for name, said in one.candidates.items() if said != {"by": "person"}
            }
            for image_id, one in self.model.items()
        }
        held = annotations_of(self.store, [*self.model])
        assert held == {image_id: said for image_id, said in shown.items() if said}
        for tag in TAGS:
            has = (
                image_id
                for image_id, one in self.model.items()
                if any(tag in said.get("tags", ()) for said in one.candidates.values())
            )
            assert self.store.ids_by_metadata({"tags": tag}) == sorted(has)

    @invariant()
    def the_records_and_the_model_agree(self) -> None:
        held: list[Record] = []
        while page := self.store.records("kind", held[-1].key if held else "", 2):
            held += page
        assert held == [Record(*item) for item in sorted(self.records.items())]

    def rows_of(self, space: Space) -> dict[int, bytes]:
        pictures = self.model.items()
        return {at: one.features[space] for at, one in pictures if space in one.features}

    def teardown(self) -> None:
        self.follower.close()
        self.store.close()
        shutil.rmtree(self.kept)


class LmdbMachine(StoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="ambience-machine-"))
        self.crashes = 0

    def open(self) -> Store:
        # The map is so small that it must grow during the test.
        options = LmdbOptions(map_size=1 << 16, originals_bytes=20)
        return LmdbStore(self.base / str(self.crashes), options)

    def crash(self) -> Store:
        """Reopen what a killed process leaves: its file as it is, never closed."""
        folder = self.base / str(self.crashes)
        self.crashes += 1
        new = self.base / str(self.crashes)
        new.mkdir()
        shutil.copy(folder / "data.mdb", new)
        self.store.close()
        return self.open()

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.base)


class MemoryMachine(StoreMachine):
    def open(self) -> Store:
        return MemoryStore(originals_bytes=20)

    def crash(self) -> Store:
        return self.store


class PostgresMachine(StoreMachine):
    server: PostgresServer

    def open(self) -> Store:
        self.url = self.server.new_database()
        return self.opened()

    def opened(self) -> Store:
        return PostgresStore(self.url, PostgresOptions(originals_bytes=20))

    def crash(self) -> Store:
        """Reopen what a killed process leaves: the server has ended its connections."""
        self.server.cut_connections(self.url)
        self.store.close()
        return self.opened()

    def teardown(self) -> None:
        super().teardown()
        self.server.take_back(self.url)


QUICK = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLmdbMachine = LmdbMachine.TestCase
TestLmdbMachine.settings = QUICK
TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = QUICK
TestPostgresMachine = pytest.mark.usefixtures("machine_server")(PostgresMachine.TestCase)
TestPostgresMachine.settings = settings(QUICK, max_examples=8)


@pytest.fixture
def machine_server(postgres: PostgresServer) -> None:
    PostgresMachine.server = postgres
