"""Features of the old services in the store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from cluster.jobs.backfill import Reader, RetrieverSpec
from cluster.jobs.settings import JobSettings
from cluster.jobs.transfer.environments import opened
from cluster.jobs.transfer.importing import Importer, Outcome, row_from
from indexes.base import Query
from indexes.registry import make_index
from indexes.store.base import ImageWrite, Space, Store
from indexes.store.lmdb.store import LmdbStore
from indexes.store.memory.store import MemoryStore
from models.base import Extractor
from models.errors import InvalidInput
from models.extractors.backbone import Backbone
from models.pictures.decoding import decode
from models.pictures.limits import DecodeLimits
from models.registry import make_extractor
from tests.cluster.jobs.stages import ONE_CORE
from tests.cluster.jobs.transfer.old_folder import old_folder
from tests.drawing import jpeg

PHASH, COLOR = make_extractor("phash"), make_extractor("color")
PHASHES, HISTOGRAMS = "phashes.lmdb", "rgb_histograms.lmdb"


def phash_of(seed: int) -> bytes:
    return PHASH.to_row(PHASH.extract(decode(jpeg(seed)).full))


def histogram_of(seed: int) -> bytes:
    return COLOR.to_row(COLOR.extract(decode(jpeg(seed)).full))


def bring_in(
    store: Store, folder: Path, name: str = "phash", pictures: Path | None = None
) -> Outcome:
    return importer(store, name, make_extractor(name), folder, name, pictures)


def importer(
    store: Store,
    name: str,
    extractor: Extractor,
    folder: Path,
    method: str,
    pictures: Path | None = None,
) -> Outcome:
    space = Space(name, extractor.fingerprint)
    with opened(folder, method) as batches:
        made = Importer(store, space, row_from(extractor), pictures, DecodeLimits())
        return made.run(batches, lambda _: None)


def test_imported_features_are_found_together_with_new_ones(tmp_path: Path) -> None:
    store = MemoryStore()
    images = {at: (f"{at}.online", phash_of(at)) for at in range(1, 20)}
    done = bring_in(store, old_folder(tmp_path, PHASHES, images))
    assert (done.added, done.extended, done.already, done.bad) == (19, 0, 0, [])
    space = Space("phash", PHASH.fingerprint)
    wanted = frozenset({"phash"})
    new = store.put(ImageWrite(None, "a" * 64, 640, 480, wanted, {space: phash_of(40)}))
    assert new.image_id == 20, "ids go on above the imported ones"
    rows = store.rows(space, [*range(30)])
    index = make_index("binary", {}, lambda _: {})
    index.apply({at: PHASH.from_row(row) for at, row in rows.items()})
    for seed, image_id in ((7, 7), (40, new.image_id)):
        query = PHASH.extract(decode(jpeg(seed)).full)
        (first, *_) = index.search(Query([query]), index.Params.parse({"k": 1}))
        assert (first.image_id, first.distance) == (image_id, 0)


def test_the_second_kind_extends_the_images_of_the_first_and_a_third_run_finds_all_there(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    hashes = {at: (f"{at}.jpg", phash_of(at)) for at in (3, 5)}
    colours = {at: (f"{at}.jpg", histogram_of(at)) for at in (3, 5, 8)}
    bring_in(store, old_folder(tmp_path / "phash", PHASHES, hashes))
    folder = old_folder(tmp_path / "color", HISTOGRAMS, colours)
    done = bring_in(store, folder, "color")
    assert (done.added, done.extended) == (1, 2)
    image = store.image(3)
    assert image is not None
    assert image.wanted == {"phash", "color"}
    assert image.pending == frozenset()
    head = store.head()
    again = bring_in(store, folder, "color")
    assert (again.added, again.extended, again.already) == (0, 0, 3)
    assert store.head() == head


def test_with_the_pictures_at_hand_a_backfill_keeps_what_was_imported(tmp_path: Path) -> None:
    pictures, data = tmp_path / "pictures", tmp_path / "store"
    pictures.mkdir()
    (pictures / "3.jpg").write_bytes(jpeg(3))
    mark = bytes(range(72))
    images = {3: ("3.jpg", mark), 4: ("4.jpg", phash_of(4))}
    store = LmdbStore(data)
    done = bring_in(store, old_folder(tmp_path / "old", PHASHES, images), pictures=pictures)
    assert done.added == 1
    (bad,) = done.bad
    assert bad.path == "4 (4.jpg)"
    assert "can't be read" in bad.reason
    image = store.image(3)
    assert image is not None
    assert image.sha256 == hashlib.sha256(jpeg(3)).hexdigest()
    assert (image.width, image.height) == (decode(jpeg(3)).width, decode(jpeg(3)).height)
    store.close()
    space = Space("phash", PHASH.fingerprint)
    kinds = {space: RetrieverSpec("phash", "phash", {})}
    settings = JobSettings(f"lmdb:{data}", ONE_CORE)
    reader = Reader(kinds, [], frozenset({"phash"}), settings)
    work = reader.work_of(str(pictures / "3.jpg"), 3)
    assert work.write is not None
    assert work.write.preview is not None
    reader.store.put(work.write)
    assert reader.store.rows(space, [3]) == {3: mark}
    reader.store.close()


def test_an_upload_has_an_unknown_content_that_an_add_replaces(tmp_path: Path) -> None:
    store = MemoryStore()
    bring_in(store, old_folder(tmp_path, PHASHES, {9: ("9.online", bytes(range(72)))}))
    image = store.image(9)
    assert image is not None
    assert (image.source, image.file_name, image.width) == ("online", "9.online", 0)
    space = Space("phash", PHASH.fingerprint)
    write = ImageWrite(9, "b" * 64, 640, 480, frozenset({"phash"}), {space: phash_of(9)})
    assert store.put(write).outcome == "replaced"
    assert store.rows(space, [9]) == {9: phash_of(9)}


def test_another_image_under_the_same_id_stays(tmp_path: Path) -> None:
    store = MemoryStore()
    space = Space("phash", PHASH.fingerprint)
    wanted = frozenset({"phash"})
    row = phash_of(1)
    store.put(ImageWrite(1, "a" * 64, 640, 480, wanted, {space: row}, source="/g/sea.jpg"))
    images = {1: ("hill.jpg", phash_of(2)), 2: ("lake.jpg", phash_of(3))}
    done = bring_in(store, old_folder(tmp_path, PHASHES, images))
    assert done.added == 1
    (bad,) = done.bad
    assert bad.path == "1 (hill.jpg)"
    assert bad.reason == "the store has another image under this id: sea.jpg"
    assert store.rows(space, [1]) == {1: row}


def test_features_of_another_shape_are_listed_and_the_others_brought_in(tmp_path: Path) -> None:
    broken = np.full(512, np.nan, np.float32).tobytes()
    images = {1: ("1.jpg", bytes(2044)), 2: ("2.jpg", histogram_of(2)), 3: ("3.jpg", broken)}
    done = bring_in(MemoryStore(), old_folder(tmp_path, HISTOGRAMS, images), "color")
    assert done.added == 1
    assert [one.reason for one in done.bad] == [
        "its features have 2044 bytes, not 2048",
        "its features hold numbers that are not finite",
    ]


def test_vectors_are_brought_to_unit_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "fingerprint", "tiny")
    extractor = make_extractor("backbone", {"model": "some/model", "revision": "1"})
    vector = np.random.default_rng(1).normal(size=768).astype(np.float32)
    zero = np.zeros(768, np.float32)
    images = {1: ("1.jpg", vector.tobytes()), 2: ("2.jpg", zero.tobytes())}
    folder = old_folder(tmp_path, "features.lmdb", images)
    store = MemoryStore()
    done = importer(store, "global", extractor, folder, "backbone")
    assert [one.reason for one in done.bad] == ["its features are all zero"]
    row = store.rows(Space("global", "tiny"), [1])[1]
    expected = vector / np.linalg.norm(vector)
    np.testing.assert_allclose(np.frombuffer(row, np.float32), expected, rtol=1e-6)


def test_a_folder_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"phashes\.lmdb can't be read"):
        bring_in(MemoryStore(), tmp_path)


def test_images_of_unknown_content_are_not_told_to_be_the_same_file(tmp_path: Path) -> None:
    store = MemoryStore()
    images = {1: ("a.jpg", phash_of(1)), 2: ("b.jpg", phash_of(1))}
    bring_in(store, old_folder(tmp_path, PHASHES, images))
    contents = {image.sha256 for image in store.images()}
    assert len(contents) == 2
