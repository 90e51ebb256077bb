"""Backfills with real Ray Data, without a running service."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from cluster.jobs.backfill import (
    RetrieverSpec,
    Work,
    plan,
    retriever_specs,
    spaces_of,
    stages_of,
)
from cluster.jobs.settings import JobSettings
from cluster.service.applications import decode_limits
from cluster.service.data_folder import job_log
from cluster.service.ray_folder import PREFIX
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.pictures.decoding import decode
from models.types import FileFacts
from tests.cluster.jobs.stages import ONE_CORE, through
from tests.conftest import AMBIENCE, light_config
from tests.deployments import served
from tests.drawing import jpeg
from tests.indexes.pictures import known
from tests.indexes.store.forks import wait_for


def fill(folder: Path, count: int, first: int = 0) -> None:
    """Write small pictures named by their ids."""
    folder.mkdir(exist_ok=True)
    for seed in range(first, first + count):
        (folder / f"{seed}.jpg").write_bytes(jpeg(seed, 160, 120))


def start(pictures: Path, data: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a backfill that writes to pipes."""
    data.mkdir(mode=0o700, exist_ok=True)
    return subprocess.Popen(
        [str(AMBIENCE), "backfill", str(pictures), "--config", str(light_config()), *arguments],
        env=os.environ | {"AMBIENCE_DATA": str(data), "RAY_BACKEND_LOG_LEVEL": "info"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def backfill(pictures: Path, data: Path, *arguments: str) -> dict[str, Any]:
    """Run a backfill to its end; return the JSON it prints and check that it prints no errors."""
    process = start(pictures, data, *arguments, "--json")
    printed, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (0, "")
    outcome: dict[str, Any] = json.loads(printed)
    return outcome


def worked(
    kinds: Sequence[RetrieverSpec], store: Path, todo: Sequence[tuple[str, int]]
) -> list[Work]:
    """Put paths with ids through all stages."""
    return through(stages_of(kinds, JobSettings(f"lmdb:{store}", ONE_CORE)), todo)


def processes_over(data: Path) -> list[psutil.Process]:
    """Return the processes of all runs over this data folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("AMBIENCE_DATA") == str(data):
                found.append(process)
    return found


def test_a_killed_run_goes_on_without_doing_work_twice_and_leaves_nothing(
    tmp_path: Path, temporary: str
) -> None:
    count = 320
    data = tmp_path / "data"
    fill(tmp_path / "pictures", count)
    killed = start(tmp_path / "pictures", data, "--workers", "1")
    store = LmdbStore(data / "store")
    wait_for(lambda: store.count() > 0, 180)
    killed.kill()
    killed.communicate()
    # Its workers end with it, but one may still commit what it had read.
    wait_for(lambda: not processes_over(data), 120)
    first = store.count()
    assert 0 < first < count
    assert len(list(Path(temporary).iterdir())) == 1

    again = start(tmp_path / "pictures", data)
    printed, progress = again.communicate(timeout=240)
    assert again.returncode == 0
    assert printed == f"{count - first} indexed, {first} there already, 0 bad.\n"
    assert len(progress.splitlines()) == 1
    assert progress.startswith("indexing ")
    assert "logging.cc" in job_log(data).read_text()
    assert store.count() == count
    assert len(store.ids_by_source()) == count
    assert store.head() == count  # One log entry per image: nothing was written twice.
    assert list(Path(temporary).iterdir()) == []
    store.close()


def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path, temporary: str) -> None:
    fill(tmp_path / "pictures", 200)
    stopped = start(tmp_path / "pictures", tmp_path / "data")
    wait_for(lambda: any(Path(temporary).glob(f"{PREFIX}*/r/session_*/logs/worker-*")), 60)
    stopped.send_signal(signal.SIGINT)
    stopped.communicate(timeout=60)
    assert stopped.returncode > 0  # A signal would make it negative.
    assert list(Path(temporary).iterdir()) == []


def test_the_plan_leaves_out_only_pictures_that_lack_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 3)
    store = LmdbStore(tmp_path / "store")
    paths = [str(tmp_path / "pictures" / f"{number}.jpg") for number in range(3)]
    spaces = {"phash": Space("phash", "aa"), "color": Space("color", "bb")}
    for number, kinds in enumerate((("phash", "color"), ("phash",))):
        features = {spaces[kind]: b"x" for kind in kinds}
        store.put(
            ImageWrite(
                number,
                "0" * 64,
                1,
                1,
                frozenset(kinds),
                features,
                source=paths[number],
                facts=FileFacts("JPEG", 1),
            )
        )
    made = plan(str(tmp_path / "pictures"), "filename", store, spaces.values())
    assert made.todo == [(paths[1], 1), (paths[2], 2)]
    assert made.already == 1
    store.close()


def test_a_worker_gives_every_kind_its_features_and_names_what_is_bad(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 1)
    kinds = [RetrieverSpec(name, name, {}) for name in ("phash", "color", "local")]
    paths = [str(tmp_path / "pictures" / "0.jpg"), str(tmp_path / "gone.jpg")]
    store = LmdbStore(tmp_path / "store")
    good, bad = worked(kinds, tmp_path / "store", [(path, -1) for path in paths])
    assert good.reason == ""
    assert "can't be read" in bad.reason
    (image,) = store.images()
    assert image.pending == frozenset()
    assert image.wanted == {"phash", "color", "local"}
    assert image.facts is not None
    assert (image.facts.format, image.facts.bytes) == ("JPEG", Path(paths[0]).stat().st_size)
    store.close()


def test_images_of_an_older_version_get_the_facts_of_their_files(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    fill(pictures, 2)
    kinds = [RetrieverSpec("phash", "phash", {})]
    (space,) = spaces_of(kinds)
    located = [(str(pictures / f"{at}.jpg"), at) for at in range(2)]
    worked(kinds, tmp_path / "store", located)
    store = LmdbStore(tmp_path / "store")
    assert plan(str(pictures), "filename", store, [space]).todo == []
    old = known(store, 1)
    row, preview = store.rows(space, [1])[1], store.preview(1)
    store.delete(1)
    store.put(
        ImageWrite(
            1, old.sha256, 640, 480, old.wanted, {space: row}, source=old.source, preview=preview
        )
    )
    assert plan(str(pictures), "filename", store, [space]).todo == [located[1]]
    (work,) = worked(kinds, tmp_path / "store", [located[1]])
    assert work.already
    assert known(store, 1).facts == old.facts
    assert plan(str(pictures), "filename", store, [space]).todo == []
    store.close()


def test_the_limits_of_the_configuration_hold_and_what_is_cut_short_is_noted(
    tmp_path: Path,
) -> None:
    fill(tmp_path, 2)
    whole, cut = tmp_path / "0.jpg", tmp_path / "1.jpg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 4 // 5])
    config = {
        "applications": [
            {
                "name": "ingress",
                "import_path": "deployments.app:build_ingress",
                "args": {"max_upload_bytes": whole.stat().st_size - 1, "max_pixels": 10**6},
            }
        ]
    }
    limits = decode_limits(config)
    assert (limits.max_pixels, limits.max_bytes) == (10**6, whole.stat().st_size - 1)
    kinds = [RetrieverSpec("phash", "phash", {})]
    stages = stages_of(kinds, JobSettings(f"lmdb:{tmp_path / 'store'}", ONE_CORE, limits=limits))
    large, part = through(stages, [(str(whole), -1), (str(cut), -1)])
    assert "the limit is" in large.reason
    assert part.reason == ""
    assert (large.truncated, part.truncated) == (False, True)


def test_a_run_over_a_mixed_folder_indexes_its_pictures_and_says_what_it_left_out(
    tmp_path: Path,
) -> None:
    pictures = tmp_path / "pictures"
    fill(pictures, 2)
    with open(os.path.join(os.fsencode(pictures), b"caf\xe9.jpg"), "wb") as file:
        file.write((pictures / "1.jpg").read_bytes()[:-2])
    (pictures / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(99))
    (pictures / "@eaDir").mkdir()
    answer = backfill(pictures, tmp_path / "data")
    assert answer["indexed"] == 3
    assert answer["bad"] == []
    assert answer["left_out"] == {"video": 1}
    assert answer["ignored"] == 1
    notes = {Path(one["path"]).name: one["note"] for one in answer["notes"]}
    assert notes.keys() == {"film.mp4", "caf%E9.jpg"}
    assert "cut short" in notes["caf%E9.jpg"]
    listed = (tmp_path / "data" / "backfill-bad-files.tsv").read_text()
    assert "film.mp4\tleft out, video" in listed


def test_a_file_that_was_rewritten_in_place_replaces_its_image(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    fill(pictures, 2)
    kinds = [RetrieverSpec("phash", "phash", {})]
    store = LmdbStore(tmp_path / "store")

    def run() -> tuple[list[tuple[str, int]], list[bool]]:
        todo = plan(str(pictures), "filename", store, spaces_of(kinds)).todo
        return todo, [work.already for work in worked(kinds, tmp_path / "store", todo)]

    paths = [str(pictures / f"{image_id}.jpg") for image_id in range(2)]
    assert run() == ([(paths[0], 0), (paths[1], 1)], [False, False])
    assert run() == ([], [])
    later = time.time() + 10
    Path(paths[1]).write_bytes(jpeg(7, 160, 120))
    os.utime(paths[0], (later, later))
    os.utime(paths[1], (later, later))
    before = known(store, 0)
    assert run() == ([(paths[0], 0), (paths[1], 1)], [True, False])
    assert known(store, 0) == before
    assert known(store, 1).sha256 == hashlib.sha256(jpeg(7, 160, 120)).hexdigest()
    store.close()


def test_what_can_not_be_extracted_yet_is_left_pending(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 1)
    builder = "deployments.app:build_retriever"
    options = {"path": str(tmp_path / "matrix.npy")}
    arguments = {
        "phash": {"extractor": "phash"},
        "tint": {"extractor": "tint", "options": options},
        "text": {"extractor": "words"},
    }
    config = {
        "applications": [
            {"name": name, "import_path": builder, "args": args} for name, args in arguments.items()
        ]
    }
    path = str(tmp_path / "pictures" / "0.jpg")
    store = LmdbStore(tmp_path / "store")
    with served.with_test_extractors():
        kinds = retriever_specs(config)
        assert [kind.name for kind in kinds] == ["phash", "tint"]
        assert [space.kind for space in spaces_of(kinds)] == ["phash"]
        assert worked(kinds, tmp_path / "store", [(path, 0)]) == [Work(path)]
        image = store.image(0)
        assert image is not None
        assert (image.wanted, image.pending) == ({"phash", "tint"}, {"tint"})
        done = plan(str(tmp_path / "pictures"), "filename", store, spaces_of(kinds))
        served.write_matrix(tmp_path / "matrix.npy")
        again = plan(str(tmp_path / "pictures"), "filename", store, spaces_of(kinds))
    store.close()
    assert (done.todo, done.already) == ([], 1)
    assert again.todo == [(path, 0)]


def test_networks_have_stages_of_their_own_that_batch_across_pictures(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 6)
    served.write_matrix(tmp_path / "matrix.npy")
    options = {"path": str(tmp_path / "matrix.npy")}
    store = LmdbStore(tmp_path / "store")
    with served.with_test_extractors():
        kinds = [
            RetrieverSpec("phash", "phash", {}),
            RetrieverSpec("one", "tint", options),
            RetrieverSpec("two", "tint", options),
        ]
        stages = stages_of(kinds, JobSettings(f"lmdb:{tmp_path / 'store'}", ONE_CORE))
        assert [stage.name for stage in stages] == [*("reading", "one", "two", "writing")]
        todo = plan(str(tmp_path / "pictures"), "filename", store, spaces_of(kinds)).todo
        works = through(stages, todo)
        assert [work.preview for work in works] == [None] * 6
        for image in store.images():
            assert image.pending == frozenset()
            picture = decode((tmp_path / "pictures" / f"{image.image_id}.jpg").read_bytes())
            for space, kind in spaces_of(kinds).items():
                extractor = kind.make()
                extractor.load()
                row = extractor.to_row(extractor.extract(picture.view(extractor.view)))
                assert store.rows(space, [image.image_id]) == {image.image_id: row}
    store.close()
