"""`ambience annotate`: what is missing, where pictures come from, and what is written."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from cluster.jobs.annotate import (
    AnnotatorSpec,
    annotator_specs,
    images_lacking,
    resolve_fingerprints,
    stages_of,
    write_files,
)
from cluster.jobs.settings import JobSettings
from indexes.store.annotations import annotations_of
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.pictures.decoding import decode
from models.types import View
from tests.annotators.brightness import Brightness, BrightnessOptions, StoredBrightness
from tests.cluster.jobs.stages import ONE_CORE, through
from tests.conftest import AMBIENCE, python_path_with_annotators
from tests.drawing import jpeg

PHASH = Space("phash", "f")


class Whole(Brightness):
    view: ClassVar[View] = "full"


class Broken(Brightness):
    def load(self) -> None:
        raise ImportError("No module named 'torch'")


class OnGpu(Brightness):
    uses_gpu = True
    batch = 2


class BrokenOnGpu(Broken):
    uses_gpu = True


class LocalAnnotatorSpec(AnnotatorSpec):
    """Specification that makes one of the tests' annotators directly."""

    def make(self) -> Brightness:
        kinds = {
            "brightness": Brightness,
            "whole": Whole,
            "broken": Broken,
            "gpu": OnGpu,
            "broken-gpu": BrokenOnGpu,
            "bits": StoredBrightness,
        }
        return kinds[self.annotator](BrightnessOptions())


CAPTION = LocalAnnotatorSpec("caption", "brightness", {})
OCR = LocalAnnotatorSpec("ocr", "whole", {})
BROKEN = LocalAnnotatorSpec("broken", "broken", {})
BITS = LocalAnnotatorSpec("vocabulary", "bits", {})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    store = LmdbStore(tmp_path / "store")
    yield store
    store.close()


def add(store: LmdbStore, image_id: int, **changed: Any) -> None:
    """Store an image that has a preview but no longer its upload."""
    fields: dict[str, Any] = {
        "sha256": hashlib.sha256(jpeg(image_id)).hexdigest(),
        "wanted": frozenset({"phash"}),
        "features": {PHASH: b"x"},
        "preview": decode(jpeg(image_id)).preview_jpeg(),
    }
    store.put(ImageWrite(image_id, width=640, height=480, **{**fields, **changed}))


def ran(tmp_path: Path, *specs: AnnotatorSpec, ids: list[int]) -> dict[int, str]:
    """Annotate the images and return, by id, the reasons of those that were not annotated."""
    works = through(stages_of(specs, JobSettings(f"lmdb:{tmp_path / 'store'}", ONE_CORE)), ids)
    return {work.image_id: "; ".join(work.reasons) for work in works if work.reasons}


def test_the_annotators_of_a_config_are_those_built_as_such() -> None:
    blocks = [
        {"name": "phash", "import_path": "deployments.app:build_retriever", "args": {}},
        {
            "name": "words",
            "import_path": "deployments.app:build_annotator",
            "args": {"annotator": "caption", "options": {"a": 1}},
        },
    ]
    assert annotator_specs({"applications": blocks}) == [
        AnnotatorSpec("words", "caption", {"a": 1})
    ]


def test_a_picture_is_annotated_from_its_preview_and_then_lacks_nothing(
    store: LmdbStore, tmp_path: Path
) -> None:
    for image_id in (1, 2, 3):
        add(store, image_id)
    fingerprints, unavailable = resolve_fingerprints([CAPTION])
    assert unavailable == {}
    assert list(images_lacking(store, fingerprints)) == [1, 2, 3]
    assert ran(tmp_path, CAPTION, ids=[1, 2]) == {}
    assert list(images_lacking(store, fingerprints)) == [3]
    seen = decode(decode(jpeg(1)).preview_jpeg()).preview
    expected = Brightness(BrightnessOptions()).annotate(seen).row()
    mark = {"fingerprint": fingerprints["caption"], "by": "machine"}
    assert annotations_of(store, [1]) == {1: {"caption": expected | mark}}


def test_one_that_needs_the_whole_picture_takes_the_upload_or_the_file(
    store: LmdbStore, tmp_path: Path
) -> None:
    file, other = tmp_path / "2.jpg", tmp_path / "3.jpg"
    file.write_bytes(jpeg(2))
    other.write_bytes(jpeg(99))
    add(store, 1, wanted=frozenset({"phash", "annotate:ocr"}), original=jpeg(1))
    add(store, 2, source=str(file))
    add(store, 3, source=str(other))
    add(store, 4, source=str(tmp_path / "gone.jpg"))
    add(store, 5)
    reasons = ran(tmp_path, CAPTION, OCR, ids=[1, 2, 3, 4, 5])
    said = annotations_of(store, [1, 2, 3, 4, 5])
    assert {image_id for image_id in said if "ocr" in said[image_id]} == {1, 2}
    assert {image_id for image_id in said if "caption" in said[image_id]} == {1, 2, 3, 4, 5}
    assert reasons.keys() == {3, 4, 5}
    assert all(reason.startswith("ocr: ") for reason in reasons.values())
    assert "another picture" in reasons[3]
    assert "no longer kept" in reasons[5]


def test_an_annotator_of_stored_features_names_images_without_them(
    store: LmdbStore, tmp_path: Path
) -> None:
    add(store, 1, preview=None)
    add(store, 2, preview=None, features={}, wanted=frozenset({"phash"}))
    assert ran(tmp_path, BITS, ids=[1, 2]) == {2: "vocabulary: no features of phash yet"}
    said = annotations_of(store, [1, 2])
    assert said.keys() == {1}
    assert said[1]["vocabulary"]["tags"] == ["4 bits"]


def test_one_that_can_not_be_loaded_does_not_stop_the_others(
    store: LmdbStore, tmp_path: Path
) -> None:
    for image_id in range(6):  # More than one batch of the model.
        add(store, image_id)
    reasons = ran(tmp_path, CAPTION, BROKEN, ids=list(range(6)))
    assert set(reasons.values()) == {"broken: No module named 'torch'"}
    said = annotations_of(store, range(6))
    assert [set(said[image_id]) for image_id in range(6)] == [{"caption"}] * 6


def test_what_another_model_said_is_renewed_and_what_a_person_said_is_not(
    store: LmdbStore, tmp_path: Path
) -> None:
    for image_id in (1, 2, 3):
        add(store, image_id)
    store.annotate(1, 1, {"caption": {"text": "old", "fingerprint": "old"}}, "machine")
    store.annotate(2, 2, {"caption": {"text": "Rex"}}, "person")
    store.annotate(3, 3, {"caption": None}, "person")
    assert list(images_lacking(store, resolve_fingerprints([CAPTION])[0])) == [1]
    ran(tmp_path, CAPTION, ids=[1, 2, 3])
    said = annotations_of(store, [1, 2, 3])
    assert said[1]["caption"]["text"] != "old"
    assert said[2] == {"caption": {"text": "Rex", "by": "person"}}
    assert 3 not in said


def test_annotators_of_a_gpu_have_stages_of_their_own(store: LmdbStore, tmp_path: Path) -> None:
    for image_id in range(5):
        add(store, image_id)
    gpu = LocalAnnotatorSpec("mood", "gpu", {})
    broken = LocalAnnotatorSpec("worse", "broken-gpu", {})
    stages = stages_of([CAPTION, gpu, broken], JobSettings(f"lmdb:{tmp_path / 'store'}", ONE_CORE))
    assert [stage.name for stage in stages] == ["reading", "mood", "worse"]
    reasons = ran(tmp_path, CAPTION, gpu, broken, ids=[*range(5), 77])
    assert reasons == dict.fromkeys(range(5), "worse: No module named 'torch'")
    said = annotations_of(store, range(5))
    for image_id in range(5):
        assert said[image_id].keys() == {"caption", "mood"}
        assert said[image_id]["caption"]["tags"] == said[image_id]["mood"]["tags"]


def test_the_gallerys_files_hold_tags_and_captions(store: LmdbStore, tmp_path: Path) -> None:
    for image_id in (1, 2, 3):
        add(store, image_id)
    said = {
        "places365": {"tags": ["beach", "sea"]},
        "caption": {"text": "größer"},
        "zoo": {"tags": ["sea", "seal"]},
    }
    store.annotate(1, 1, said, "machine")
    store.annotate(2, 2, {"caption": {"text": "Rex"}, "ocr": {"text": "STOP"}}, "person")
    folder = tmp_path / "gallery"
    assert write_files(store, folder) == {
        str(folder / "id_tags.txt"): 1,
        str(folder / "id_caption.txt"): 2,
    }
    tags = json.loads((folder / "id_tags.txt").read_text())
    assert tags == [{"id": 1, "tags": ["beach", "sea", "seal"]}]
    captions = json.loads((folder / "id_caption.txt").read_text())
    assert captions == [{"id": 1, "caption": "größer"}, {"id": 2, "caption": "Rex"}]
    assert sorted(path.name for path in folder.iterdir()) == ["id_caption.txt", "id_tags.txt"]


def command(data: Path, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "AMBIENCE_DATA": str(data),
        "PYTHONPATH": python_path_with_annotators(),
    }
    return subprocess.run(
        [str(AMBIENCE), "annotate", "--config", str(config), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_command_annotates_a_collection_and_writes_the_files(tmp_path: Path) -> None:
    def block(name: str, **options: str) -> dict[str, Any]:
        args = {"annotator": "brightness", "options": options}
        return {"name": name, "import_path": "deployments.app:build_annotator", "args": args}

    config = tmp_path / "config.yaml"
    late = block("late", words=str(tmp_path / "words"))
    config.write_text(yaml.dump({"applications": [block("caption"), late]}))
    (tmp_path / "data").mkdir(mode=0o700)
    store = LmdbStore(tmp_path / "data" / "store")
    for image_id in range(20):
        add(store, image_id)
    add(store, 20, preview=None)
    (tmp_path / "gallery" / "import").mkdir(parents=True)
    done = command(tmp_path / "data", config, "--json", "--write", str(tmp_path / "gallery"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["annotated"], said["already"]) == (20, 0)
    assert [one["image_id"] for one in said["bad"]] == [20]
    assert said["unavailable"].keys() == {"late"}
    importers = tmp_path / "gallery" / "import"
    assert said["written"] == {
        str(importers / "id_tags.txt"): 20,
        str(importers / "id_caption.txt"): 20,
    }
    assert len(annotations_of(store, range(21))) == 20
    head = store.delete(20)
    again = command(tmp_path / "data", config)
    assert again.returncode == 0
    assert "0 annotated, 20 there already, 0 bad." in again.stdout
    assert "late is left out: there is no file" in again.stderr
    assert store.head() == head
    none = command(tmp_path / "data", config, "--only", "late")
    assert none.returncode == 1
    unknown = command(tmp_path / "data", config, "--only", "smell")
    assert unknown.returncode == 1
    assert unknown.stderr.strip().endswith("there are caption, late")
    store.close()
