"""A store against a collection: every kind of disagreement is found, and healed where it can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np
import pytest

from cluster.jobs.backfill import RetrieverSpec, Work, spaces_of, stages_of
from cluster.jobs.fsck import (
    Checker,
    Finding,
    heal_store,
    look_through,
    plan,
    preview_fault,
    row_fault,
)
from cluster.jobs.settings import JobSettings
from cluster.jobs.sources import Ids
from indexes.store.base import Image, ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.pictures.decoding import decode
from models.registry import make_extractor
from tests.cluster.jobs.stages import ONE_CORE, through
from tests.drawing import jpeg
from tests.indexes.pictures import known

KINDS = [RetrieverSpec("phash", "phash", {}), RetrieverSpec("color", "color", {})]
PHASH, COLOR = (Space(kind.name, kind.make().fingerprint) for kind in KINDS)


class Collection:
    """A folder of pictures, indexed in a store."""

    def __init__(self, folder: Path, count: int) -> None:
        self.pictures, self.data = folder / "pictures", folder / "store"
        self.pictures.mkdir()
        for seed in range(count):
            self.write(seed, seed)
        todo = [(str(path), int(path.stem)) for path in sorted(self.pictures.iterdir())]
        through(stages_of(KINDS, self.settings), todo)

    @property
    def settings(self) -> JobSettings:
        return JobSettings(f"lmdb:{self.data}", ONE_CORE)

    def write(self, name: int, seed: int) -> Path:
        path = self.pictures / f"{name}.jpg"
        path.write_bytes(jpeg(seed, 160, 120))
        return path

    def check(self, heal: bool = False, ids: Ids = "filename") -> list[Finding]:
        """Check everything in this process, as the job does in several."""
        store = LmdbStore(self.data)
        todo, findings = plan(str(self.pictures), ids, store)
        store.close()
        stages = stages_of(KINDS, self.settings, Checker)
        works: Sequence[Work] = through(stages if heal else stages[:1], todo) if todo else []
        for work in works:
            findings += getattr(work, "findings", [])
            findings += [Finding("unreadable", work.reason, work.path)] if work.reason else []
        store = LmdbStore(self.data)
        folder = str(self.pictures)
        findings += look_through(store, KINDS, folder, {image_id for _, image_id in todo})
        if heal:
            heal_store(store, findings)
        store.close()
        return findings

    def image(self, image_id: int) -> Image:
        store = LmdbStore(self.data)
        try:
            return known(store, image_id)
        finally:
            store.close()


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path, 6)


def told(findings: Sequence[Finding]) -> list[tuple[str, int | None, str]]:
    return sorted((one.what, one.image_id, one.kind) for one in findings)


def test_of_a_store_that_agrees_nothing_is_said(collection: Collection) -> None:
    assert collection.check() == []
    assert collection.check(ids="sequential") == []


def test_each_disagreement_is_found_and_healed_once(collection: Collection) -> None:
    store = LmdbStore(collection.data)
    store.delete(0)
    store.delete_kind(1, "color")
    image = known(store, 2)
    size = image.width, image.height
    wrong = np.zeros(72, np.uint8).tobytes()
    store.put(ImageWrite(2, image.sha256, *size, frozenset(), {PHASH: wrong}, source=image.source))
    store.close()
    collection.write(3, 33)
    (collection.pictures / "4.jpg").unlink()
    (collection.pictures / "7.jpg").write_bytes(jpeg(7)[:300])
    expected = [
        ("another file", 3, ""),
        ("no features", 1, "color"),
        ("no file", 4, ""),
        ("not indexed", None, ""),
        ("other features", 2, "phash"),
    ]
    found = collection.check()
    unreadable = [one for one in found if one.what == "unreadable"]
    assert [Path(one.path).name for one in unreadable] == ["7.jpg"]
    assert told([one for one in found if one not in unreadable]) == expected
    assert told(collection.check()) == told(found), "a check changes nothing"
    assert told(collection.check(heal=True)) == told(found)
    assert [one.what for one in collection.check()] == ["unreadable"]
    store = LmdbStore(collection.data)
    for image_id, seed in ((0, 0), (1, 1), (2, 2), (3, 33)):
        picture = decode(jpeg(seed, 160, 120))
        for space, name in ((PHASH, "phash"), (COLOR, "color")):
            extractor = make_extractor(name)
            row = extractor.to_row(extractor.extract(picture.full))
            assert store.rows(space, [image_id]) == {image_id: row}
    assert store.image(4) is None
    store.close()


def test_healing_keeps_tags_and_metadata(collection: Collection) -> None:
    store = LmdbStore(collection.data)
    image = known(store, 2)
    store.annotate(2, image.generation, {"caption": {"text": "a hill"}}, "person", {"album": "a"})
    store.delete_kind(2, "color")
    store.close()
    collection.check(heal=True)
    after = collection.image(2)
    assert after.metadata == {"album": "a"}
    assert after.generation == image.generation
    assert after.wanted == {"phash", "color"}


def test_a_recycled_id_is_of_another_file(collection: Collection) -> None:
    store = LmdbStore(collection.data)
    store.delete(5)
    wanted = frozenset({"phash"})
    store.put(ImageWrite(5, "f" * 64, 9, 9, wanted, {PHASH: bytes(72)}, source="online"))
    store.close()
    (finding,) = collection.check()
    assert (finding.what, finding.image_id, finding.detail) == (
        "another file",
        5,
        "stored from online",
    )


def test_bytes_flipped_on_the_disk_are_found(collection: Collection) -> None:
    store = LmdbStore(collection.data)
    row = store.rows(PHASH, [3])[3]
    store.close()
    path = collection.data / "data.mdb"
    stored = path.read_bytes()
    at = stored.index(row) + 40
    flipped = bytearray(stored)
    while (at := flipped.find(row)) >= 0:
        flipped[at + 40] ^= 0x10
    path.write_bytes(flipped)
    assert told(collection.check(heal=True)) == [("other features", 3, "phash")]
    assert collection.check() == []


def test_features_of_a_model_that_the_config_does_not_name_are_found_and_dropped(
    collection: Collection,
) -> None:
    old = Space("phash", "an old one")
    store = LmdbStore(collection.data)
    image = known(store, 1)
    write = ImageWrite(1, image.sha256, 160, 120, frozenset({"phash"}), {old: bytes(72)})
    store.put(write)
    store.close()
    assert told(collection.check(heal=True)) == [("old model", None, "phash")]
    assert collection.check() == []
    store = LmdbStore(collection.data)
    assert old not in store.spaces()
    store.close()


def test_rows_of_an_upload_that_can_not_be_read_are_found(collection: Collection) -> None:
    store = LmdbStore(collection.data)
    wanted = frozenset({"phash", "color"})
    broken = np.full(512, -1, np.float32).tobytes()
    rows = {PHASH: bytes(71), COLOR: broken}
    store.put(ImageWrite(90, "e" * 64, 160, 120, wanted, rows, preview=b"no jpeg"))
    store.close()
    assert told(collection.check()) == [
        ("damaged features", 90, "color"),
        ("damaged features", 90, "phash"),
        ("damaged preview", 90, ""),
    ]


def test_a_preview_of_another_picture_is_found(collection: Collection) -> None:
    store = LmdbStore(collection.data)
    upload, other = decode(jpeg(50, 160, 120)), decode(jpeg(51, 160, 120))
    extractor = make_extractor("phash")
    rows = {PHASH: extractor.to_row(extractor.extract(upload.full))}
    for image_id, shown in ((90, upload), (91, other)):
        store.put(
            ImageWrite(
                *(image_id, f"{image_id:064}", 160, 120, frozenset({"phash"}), rows),
                preview=shown.preview_jpeg(),
            )
        )
    store.close()
    with lmdb.open(str(collection.data), max_dbs=32) as environment:
        previews = environment.open_db(b"previews", create=False)
        with environment.begin(write=True, db=previews) as transaction:
            key = (2).to_bytes(8, "big")
            assert transaction.replace(key, other.preview_jpeg()) is not None
    assert told(collection.check()) == [("damaged preview", 2, ""), ("damaged preview", 91, "")]


def test_features_without_their_image_are_found(collection: Collection) -> None:
    with lmdb.open(str(collection.data), max_dbs=32) as environment:
        images = environment.open_db(b"images", create=False)
        with environment.begin(write=True, db=images) as transaction:
            assert transaction.delete((4).to_bytes(8, "big"))
    orphans = [("orphaned features", 4, kind) for kind in ("color", "phash")]
    assert told(collection.check()) == [("not indexed", None, ""), *orphans]
    assert told(collection.check(heal=True)) == [("not indexed", None, "")]
    assert collection.check() == []


def test_a_vector_must_be_of_unit_length() -> None:
    extractor = make_extractor("backbone", {"model": "some/model", "revision": "1"})
    vector = np.full(768, 768**-0.5, np.float32)
    assert row_fault(extractor, vector.tobytes()) is None
    vector[5] = 1e9
    assert row_fault(extractor, vector.tobytes()) == "the vector's length is 1e+09, not 1"
    vector[5] = np.nan
    assert row_fault(extractor, vector.tobytes()) == "the vector's length is nan, not 1"
    assert row_fault(extractor, bytes(7)) is not None


@pytest.mark.parametrize(
    ("size", "fits"),
    [((1600, 1200), True), ((160, 120), True), ((0, 0), True), ((1200, 1600), False)],
)
def test_a_preview_has_the_shape_of_its_picture(size: tuple[int, int], fits: bool) -> None:
    assert (preview_fault(jpeg(1, 160, 120), *size) is None) == fits


def test_a_store_whose_rows_were_removed_is_filled_again(collection: Collection) -> None:
    with lmdb.open(str(collection.data), max_dbs=32) as environment:
        features = environment.open_db(b"features", create=False)
        with environment.begin(write=True) as transaction:
            transaction.drop(features, delete=False)
    found = told(collection.check(heal=True))
    assert found == sorted(
        ("no features", image_id, kind) for image_id in range(6) for kind in ("color", "phash")
    )
    assert collection.check() == []
    assert spaces_of(KINDS).keys() == {PHASH, COLOR}
