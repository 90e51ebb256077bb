from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import ClassVar

from deployments.replicas.completion import AnnotationCompleter, FeatureCompleter
from indexes.store.annotations import annotations_of
from indexes.store.base import ANNOTATE, ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.pictures.decoding import DecodeLimits, decode
from models.registry import make_extractor
from models.types import View
from tests.annotators.brightness import Brightness, BrightnessOptions, StoredBrightness
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


def test_what_the_ingress_accepted_under_higher_limits_is_completed(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    beyond = DecodeLimits().max_bytes + 1
    store.put(pending(1, jpeg(1) + bytes(beyond)))
    assert FeatureCompleter("phash", store, PHASH).complete_one()
    assert store.rows(SPACE, [1]).keys() == {1}
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


class WholeBrightness(Brightness):
    """An annotator that needs more than the preview."""

    view: ClassVar[View] = "full"


def to_annotate(image_id: int, preview: bytes | None, original: bytes | None) -> ImageWrite:
    wanted = frozenset({ANNOTATE + "mood"})
    return ImageWrite(image_id, "a" * 64, 640, 480, wanted, {}, preview=preview, original=original)


def test_a_picture_is_annotated_from_its_preview_under_the_applications_name(
    tmp_path: Path,
) -> None:
    store = LmdbStore(tmp_path)
    store.put(to_annotate(7, decode(jpeg(7)).preview_jpeg(), None))
    brightness = Brightness(BrightnessOptions())
    completer = AnnotationCompleter("mood", store, brightness, Lock())
    assert completer.complete_one()
    assert not completer.complete_one()
    said = annotations_of(store, [7])[7]["mood"]
    of_preview = decode(decode(jpeg(7)).preview_jpeg()).preview
    assert said == {
        **brightness.annotate(of_preview).row(),
        "fingerprint": brightness.fingerprint,
        "by": "machine",
    }
    image = store.image(7)
    assert image is not None
    assert image.pending == frozenset()
    store.close()


def test_an_annotator_that_needs_the_original_skips_images_with_only_a_preview(
    tmp_path: Path,
) -> None:
    store = LmdbStore(tmp_path)
    store.put(to_annotate(1, decode(jpeg(1)).preview_jpeg(), None))
    store.put(to_annotate(2, decode(jpeg(2)).preview_jpeg(), jpeg(2)))
    completer = AnnotationCompleter("mood", store, WholeBrightness(BrightnessOptions()), Lock())
    while completer.complete_one():
        pass
    said = annotations_of(store, [1, 2])
    assert said.keys() == {2}
    assert said[2]["mood"]["tags"][1] == f"{decode(jpeg(2)).full.shape[1]} wide"
    store.close()


def test_what_a_person_wrote_meanwhile_stands(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    receipt = store.put(to_annotate(1, decode(jpeg(1)).preview_jpeg(), None))
    store.annotate(1, receipt.generation, {"mood": {"text": "merry"}}, "person")
    assert not AnnotationCompleter(
        "mood", store, Brightness(BrightnessOptions()), Lock()
    ).complete_one()
    assert annotations_of(store, [1]) == {1: {"mood": {"text": "merry", "by": "person"}}}
    store.close()


def test_one_that_reads_stored_features_waits_for_them_and_needs_no_picture(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.put(to_annotate(1, None, None))
    completer = AnnotationCompleter("mood", store, StoredBrightness(BrightnessOptions()), Lock())
    assert not completer.complete_one()
    features = {Space("phash", "f"): b"\x07"}
    store.put(ImageWrite(1, "a" * 64, 640, 480, frozenset({"phash"}), features))
    assert completer.complete_one()
    assert annotations_of(store, [1])[1]["mood"]["tags"] == ["3 bits"]
    assert not completer.complete_one()
    store.close()
