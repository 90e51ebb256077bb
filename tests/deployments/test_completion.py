from __future__ import annotations

from pathlib import Path

from deployments.completion import FeatureCompleter
from indexes.lmdb_store import LmdbStore
from indexes.store import ImageWrite, Space
from models.base import make_extractor
from models.images import decode
from tests.drawing import jpeg

PHASH = make_extractor("phash")
SPACE = Space("phash", PHASH.fingerprint)


def pending(image_id: int, original: bytes | None, sha256: str = "a") -> ImageWrite:
    wanted = frozenset({"phash"})
    return ImageWrite(image_id, sha256 * 64, 640, 480, wanted, {}, original=original)


def test_a_pending_picture_gets_the_same_features_as_an_added_one(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.put(pending(7, jpeg(7)))
    completer = FeatureCompleter("phash", store, PHASH)
    assert completer.complete_one()
    assert not completer.complete_one()
    expected = PHASH.to_row(PHASH.extract(decode(jpeg(7)).full))
    assert store.rows(SPACE, [7]) == {7: expected}
    image = store.image(7)
    assert image is not None
    assert image.pending == frozenset()
    assert not image.has_original
    store.close()


def test_one_that_can_not_be_decoded_does_not_stop_the_others(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.put(pending(1, jpeg(1)[:400]))
    store.put(pending(2, jpeg(2)))
    completer = FeatureCompleter("phash", store, PHASH)
    while completer.complete_one():
        pass
    assert store.rows(SPACE, [1, 2]).keys() == {2}
    store.close()


def test_without_the_original_it_stays_pending(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.put(pending(1, None))
    assert not FeatureCompleter("phash", store, PHASH).complete_one()
    image = store.image(1)
    assert image is not None
    assert image.pending == {"phash"}
    store.close()


def test_only_the_holder_of_the_lease_completes(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.put(pending(1, jpeg(1)))
    assert store.lease("complete:phash", "another replica", 60)
    assert not FeatureCompleter("phash", store, PHASH).complete_one()
    store.release("complete:phash", "another replica")
    assert FeatureCompleter("phash", store, PHASH).complete_one()
    store.close()
