"""Changing a model: comparison, switch, removal of the old model, and refused deploys."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.jobs.backfill import plan, retriever_specs, spaces_of, stages_of
from cluster.jobs.model_change import StoredReader, compare, completion, drop, specs_of, switch
from cluster.jobs.settings import JobSettings
from cluster.service.applications import check_spaces
from cluster.service.data_folder import CannotStart
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.errors import Conflict, InvalidInput, RetrieverUnavailable, UnknownName
from models.pictures.decoding import decode
from models.registry import make_extractor
from tests.cluster.jobs.stages import ONE_CORE, through
from tests.conftest import AMBIENCE, light_config
from tests.deployments import served
from tests.drawing import jpeg

COUNT = 30
OWN, NEXT = {"mark": 0}, {"mark": 400}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AMBIENCE_DATA", str(tmp_path))
    with served.with_test_extractors():
        yield


def config(own: dict[str, Any] = OWN, following: dict[str, Any] | None = NEXT) -> dict[str, Any]:
    args: dict[str, Any] = {"extractor": "stamp", "options": own}
    if following is not None:
        args["next"] = {"extractor": "stamp", "options": following}
    builder = "deployments.app:build_retriever"
    return {"applications": [{"name": "stamp", "import_path": builder, "args": args}]}


def space(options: dict[str, Any]) -> Space:
    return Space("stamp", make_extractor("stamp", options).fingerprint)


def state(options: dict[str, Any], **said: Any) -> dict[str, Any]:
    """Return the retriever's state as reported by a service that can switch to this model."""
    other = {"fingerprint": space(options).fingerprint, "state": "ready"} | said
    return {"fingerprint": "of the model in use", "next": other}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    """Images 0 to 29: all have features of the own model, those below 20 also of the next one."""
    store = LmdbStore(tmp_path / "store")
    for number in range(COUNT):
        pixels = decode(jpeg(number, 64, 48)).preview
        features = {
            space(options): make_extractor("stamp", options).extract(pixels).tobytes()
            for options in (OWN, NEXT)[: 2 if number < 20 else 1]
        }
        write = ImageWrite(number, f"{number:064}", 64, 48, frozenset({"stamp"}), features)
        store.put(write)
    yield store
    store.close()


@pytest.fixture
def whole(store: LmdbStore) -> LmdbStore:
    """The same store, in which all images have features of both models."""
    for number in range(20, COUNT):
        image = store.image(number)
        assert image is not None
        made = make_extractor("stamp", NEXT).extract(decode(jpeg(number, 64, 48)).preview)
        store.complete(number, image.generation, {space(NEXT): made.tobytes()})
    return store


def test_a_comparison_is_exact_over_what_both_models_know(store: LmdbStore) -> None:
    done = compare(config(), "stamp", sample=12)
    assert (done.pictures, done.sample) == (20, 12)
    vectors = {}
    for options in (OWN, NEXT):
        made = make_extractor("stamp", options)
        held = store.rows(space(options), range(COUNT))
        vectors[options["mark"]] = {at: made.from_row(row) for at, row in held.items()}
    for one in done.changed:
        lists = []
        for of_model in vectors.values():
            gaps = {at: 1 - float(row @ of_model[one.image_id]) for at, row in of_model.items()}
            nearest = sorted(gaps, key=lambda at: gaps[at])
            lists.append([at for at in nearest if at != one.image_id][:10])
        assert {*one.own} == {*lists[0]}
        assert {*one.next} == {*lists[1]}
        assert one.overlap == len({*lists[0]} & {*lists[1]}) / 10
        assert done.names[one.image_id] == f"{one.image_id}.online"
        assert done.names.keys() >= {*one.own, *one.next}
    overlaps = [one.overlap for one in done.changed]
    assert overlaps == sorted(overlaps)
    assert 0 < overlaps[0] < 1
    assert compare(config(), "stamp", sample=12) == done


def test_the_same_model_twice_differs_in_nothing(whole: LmdbStore) -> None:
    assert whole.count() == COUNT
    done = compare(config(OWN, OWN), "stamp", sample=200)
    assert (done.sample, done.overlap) == (COUNT, 1.0)


def test_a_switch_is_refused_while_pictures_lack_features_unless_forced(store: LmdbStore) -> None:
    with pytest.raises(Conflict, match="10 pictures have no features"):
        switch(config(), "stamp", back=False, force=False, state=None)
    assert store.active() == {}
    done = switch(config(), "stamp", back=False, force=True, state=None)
    assert (done.fingerprint, done.lacking) == (space(NEXT).fingerprint, 10)
    assert store.active() == {"stamp": space(NEXT).fingerprint}


def test_a_switch_goes_there_and_back(whole: LmdbStore) -> None:
    own, following = space(OWN).fingerprint, space(NEXT).fingerprint
    with pytest.raises(Conflict, match="already"):
        switch(config(), "stamp", back=True, force=False, state=None)
    assert switch(config(), "stamp", False, False, state(NEXT)).fingerprint == following
    with pytest.raises(Conflict, match="already"):
        switch(config(), "stamp", False, False, state(NEXT))
    assert whole.active() == {"stamp": following}
    previous = {"previous": state(OWN)["next"]}
    assert switch(config(), "stamp", True, False, previous).fingerprint == own
    assert whole.active() == {"stamp": own}


def test_a_switch_waits_for_every_replica(whole: LmdbStore) -> None:
    for force in (False, True):
        loading = state(NEXT, state="loading", reason="ready in 1 of 2 replicas")
        with pytest.raises(Conflict, match="1 of 2 replicas"):
            switch(config(), "stamp", False, force, loading)
        for without in ({}, state(OWN)):
            with pytest.raises(Conflict, match="ambience deploy"):
                switch(config(), "stamp", False, force, without)
    assert whole.active() == {}


def test_what_has_no_next_model_or_is_unknown_is_named(tmp_path: Path, store: LmdbStore) -> None:
    assert store.count() == COUNT
    with pytest.raises(InvalidInput, match="`next` in the arguments of stamp"):
        switch(config(OWN, None), "stamp", False, False, None)
    with pytest.raises(UnknownName, match=r"no retriever 'tint'; there are stamp"):
        compare(config(), "tint", 5)
    weightless = config()
    weightless["applications"][0]["args"]["next"] = {
        "extractor": "shade",
        "options": {"path": str(tmp_path / "matrix.npy")},
    }
    with pytest.raises(RetrieverUnavailable, match=r"matrix\.npy"):
        switch(weightless, "stamp", False, False, None)


def test_old_features_are_dropped_once_neither_config_nor_service_has_them(
    whole: LmdbStore,
) -> None:
    switch(config(), "stamp", False, False, None)
    with pytest.raises(Conflict, match="have both models"):
        drop(config(), "stamp", None)
    with pytest.raises(Conflict, match="use a model that its arguments don't have"):
        drop(config(OWN, None), "stamp", None)
    kept = config(NEXT, None)
    still = {"fingerprint": space(NEXT).fingerprint, "previous": state(OWN)["next"]}
    with pytest.raises(Conflict, match="ambience deploy"):
        drop(kept, "stamp", still)
    assert whole.spaces() == sorted([space(OWN), space(NEXT)])
    assert drop(kept, "stamp", {"fingerprint": space(NEXT).fingerprint}) == COUNT
    assert whole.spaces() == [space(NEXT)]
    with pytest.raises(Conflict, match="no features of stamp but"):
        drop(kept, "stamp", None)


def test_a_deploy_is_accepted_at_each_step_and_refused_beside_them(whole: LmdbStore) -> None:
    other = {"mark": 9}
    for accepted in (config(OWN, None), config(), config(OWN, other)):
        check_spaces(accepted, reindex=False)
    with pytest.raises(CannotStart, match="`next`"):
        check_spaces(config(other, None), reindex=False)
    switch(config(), "stamp", False, False, None)
    for accepted in (config(), config(NEXT, None), config(NEXT, OWN), config(NEXT, other)):
        check_spaces(accepted, reindex=False)
    with pytest.raises(CannotStart, match="a model that its arguments don't have"):
        check_spaces(config(OWN, None), reindex=False)
    check_spaces(config(OWN, None), reindex=True)
    assert whole.active() == {}


def test_a_backfill_makes_what_the_next_model_lacks_and_no_more(tmp_path: Path) -> None:
    folder, where = tmp_path / "pictures", f"lmdb:{tmp_path / 'store'}"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(jpeg(number, 64, 48))
    store = LmdbStore(tmp_path / "store")

    def backfill(applications: dict[str, Any]) -> int:
        kinds = retriever_specs(applications)
        made = plan(str(folder), "filename", store, spaces_of(kinds))
        works = through(stages_of(kinds, JobSettings(where, ONE_CORE)), made.todo)
        assert not any(work.reason for work in works)
        return len(made.todo)

    assert backfill(config(OWN, None)) == 4
    before = store.head()
    assert backfill(config()) == 4
    assert store.rows(space(NEXT), range(4)).keys() == {*range(4)}
    assert store.head() == before + 4
    assert store.changes(space(OWN), before) is not None
    assert store.changes(space(OWN), before).rows == {}  # type: ignore[union-attr]
    assert backfill(config()) == 0
    store.close()


def completed(tmp_path: Path, store: LmdbStore, applications: dict[str, Any]) -> dict[int, str]:
    """Complete all images; the reason by the id of each that was planned."""
    kinds = specs_of(applications, "stamp")
    planned = completion(store, kinds)
    settings = JobSettings(f"lmdb:{tmp_path / 'store'}", ONE_CORE)
    works = through(stages_of(kinds, settings, StoredReader), planned.todo)
    return {at: work.reason for (_, at), work in zip(planned.todo, works, strict=True)}


def place(store: LmdbStore, at: int, data: bytes, **kept: Any) -> None:
    """Store an image without features."""
    sha256 = hashlib.sha256(data).hexdigest()
    store.put(ImageWrite(at, sha256, 64, 48, frozenset({"stamp"}), {}, **kept))


def test_a_completion_takes_the_upload_the_file_or_the_preview(tmp_path: Path) -> None:
    pictures = [jpeg(number, 64, 48) for number in range(6)]
    for number in (1, 4):
        (tmp_path / f"{number}.jpg").write_bytes(pictures[number])
    store = LmdbStore(tmp_path / "store")
    place(store, 0, pictures[0], original=pictures[0])
    place(store, 1, pictures[1], source=str(tmp_path / "1.jpg"))
    place(store, 2, pictures[2], preview=decode(pictures[2]).preview_jpeg())
    place(store, 3, pictures[3])
    place(store, 4, pictures[5], source=str(tmp_path / "4.jpg"))
    place(store, 5, pictures[5], source=str(tmp_path / "gone.jpg"))
    reasons = completed(tmp_path, store, config())
    assert [reasons[at] for at in range(3)] == [""] * 3
    assert "no longer kept" in reasons[3]
    assert "is another picture now" in reasons[4]
    assert "No such file" in reasons[5]
    for options in (OWN, NEXT):
        made = make_extractor("stamp", options)
        held = store.rows(space(options), range(6))
        assert held.keys() == {0, 1, 2}
        for at, row in held.items():
            assert made.from_row(row) == pytest.approx(
                made.extract(decode(pictures[at]).preview), abs=0.01
            )
    assert completed(tmp_path, store, config()).keys() == {3, 4, 5}
    store.close()


def test_a_completion_makes_what_a_preview_is_enough_for_and_says_what_is_left(
    tmp_path: Path,
) -> None:
    store = LmdbStore(tmp_path / "store")
    place(store, 0, b"", preview=decode(jpeg(0, 64, 48)).preview_jpeg())
    of_whole = config()
    of_whole["applications"][0]["args"]["next"] = {"extractor": "stamp_here"}
    assert "no longer kept" in completed(tmp_path, store, of_whole)[0]
    assert store.rows(space(OWN), [0]).keys() == {0}
    store.close()


def test_a_completion_writes_nothing_to_an_image_that_was_replaced(tmp_path: Path) -> None:
    data, other = jpeg(0, 64, 48), jpeg(1, 64, 48)
    store = LmdbStore(tmp_path / "store")
    place(store, 0, data, original=data)
    kinds = specs_of(config(OWN, None), "stamp")
    first, writer = stages_of(
        kinds, JobSettings(f"lmdb:{tmp_path / 'store'}", ONE_CORE), StoredReader
    )
    pieces: Any = first.worker(*first.arguments)([completion(store, kinds).todo])
    store.delete(0)
    place(store, 0, other, original=other)
    writer.worker(*writer.arguments)(pieces)
    assert store.rows(space(OWN), [0]) == {}
    store.close()


def test_a_completion_without_weights_or_of_an_unknown_retriever_says_so(
    tmp_path: Path, store: LmdbStore
) -> None:
    with pytest.raises(UnknownName, match=r"'tint'.*stamp"):
        specs_of(config(), "tint")
    weightless = config()
    options = {"path": str(tmp_path / "matrix.npy")}
    weightless["applications"][0]["args"] = {"extractor": "shade", "options": options}
    with pytest.raises(RetrieverUnavailable, match=r"matrix\.npy"):
        completion(store, specs_of(weightless, "stamp"))


def test_the_command_completes_stored_images_and_resumes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    store = LmdbStore(data / "store")
    for number in range(3):
        picture = jpeg(number, 160, 120)
        sha256 = hashlib.sha256(picture).hexdigest()
        write = ImageWrite(number, sha256, 160, 120, frozenset({"phash"}), {}, original=picture)
        store.put(write)

    def complete() -> dict[str, Any]:
        command = ["model", "complete", "phash", "--config", str(light_config()), "--json"]
        done = subprocess.run(
            [str(AMBIENCE), *command],
            check=False,
            env=os.environ | {"AMBIENCE_DATA": str(data)},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert (done.returncode, done.stderr) == (0, "")
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    assert complete() == {"completed": 3, "already": 0, "bad": []}
    assert complete() == {"completed": 0, "already": 3, "bad": []}
    assert not any(image.pending for image in store.images(-1, 10))
    store.close()
