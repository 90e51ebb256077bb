"""`ambience backup` and `ambience restore`, beside writers and a running service."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import closing
from pathlib import Path

import pytest

from deployments.jobs import JobCancelled, jobs
from indexes.store.lmdb.backup import STEP, back_up, check, restore
from indexes.store.lmdb.store import LmdbStore
from indexes.store.url import open_store
from models.errors import InvalidInput, StoreUnavailable
from tests.cluster.service.test_supervisor import ambience, snapshots
from tests.conftest import start_service, stop_service, wait_all_ready
from tests.drawing import jpeg
from tests.indexes.pictures import picture


def test_a_backup_beside_a_writer_is_one_moment_of_the_store(tmp_path: Path) -> None:
    with closing(LmdbStore(tmp_path / "store")) as store:
        store.put(picture(0, "0"))
        ended = threading.Event()

        def write() -> None:
            at = 1
            while not ended.is_set():
                store.put_many([picture(at, str(at)), picture(at + 1, str(at + 1))])
                at += 2

        writer = threading.Thread(target=write)
        writer.start()
        state = back_up(tmp_path / "store", tmp_path / "backup")
        ended.set()
        writer.join()
        assert state.images % 2 == 1
        assert state.head == state.images
        restore(tmp_path / "backup", tmp_path / "other")
        with closing(LmdbStore(tmp_path / "other")) as restored:
            assert restored.count() == state.images
            assert restored.images(limit=10_000) == store.images(limit=state.images)


def test_each_restored_backup_is_another_store(tmp_path: Path) -> None:
    with closing(LmdbStore(tmp_path / "store")) as store:
        store.put(picture(1, "1"))
        back_up(tmp_path / "store", tmp_path / "backup")
        uuids = {store.uuid}
    for _ in range(2):
        restore(tmp_path / "backup", tmp_path / "store")
        with closing(LmdbStore(tmp_path / "store")) as restored:
            uuids.add(restored.uuid)
            assert restored.count() == 1
        with closing(LmdbStore(tmp_path / "store")) as again:
            assert again.uuid in uuids
    assert len(uuids) == 3


def test_a_damaged_backup_and_an_occupied_folder_are_refused(tmp_path: Path) -> None:
    with closing(LmdbStore(tmp_path / "store")) as store:
        store.put_many([picture(at, str(at)) for at in range(100)])
    state = back_up(tmp_path / "store", tmp_path / "backup")
    with pytest.raises(InvalidInput, match="not empty"):
        back_up(tmp_path / "store", tmp_path / "backup")
    with pytest.raises(InvalidInput, match="no store"):
        back_up(tmp_path / "none", tmp_path / "other")
    data = (tmp_path / "backup" / "data.mdb").read_bytes()
    for damaged in (data[:5000], data[:5000] + b"?" + data[5001:]):
        (tmp_path / "backup" / "data.mdb").write_bytes(damaged)
        with pytest.raises(StoreUnavailable, match="damaged"):
            check(tmp_path / "backup", state.sha256)
    (tmp_path / "backup" / "data.mdb").write_bytes(data)
    check(tmp_path / "backup", state.sha256)


@pytest.mark.soak
def test_a_running_service_is_backed_up_and_restored_without_deleting_anything(
    tmp_path: Path,
) -> None:
    data, folder = tmp_path / "data", tmp_path / "backup"
    service = start_service(data)
    with service.client() as client:
        for at in range(3):
            client.put(f"/v1/images/{at}", files={"image": jpeg(at)}).raise_for_status()
        done = ambience("backup", str(folder), data=data)
        assert "3 images are backed up" in done.stdout
        # What comes later must not be found after the restore, nor what it replaced be lost.
        client.delete("/v1/images/0").raise_for_status()
        client.put("/v1/images/1", files={"image": jpeg(7)}).raise_for_status()
        snapshots(data)
    refused = ambience("restore", str(folder), "--replace", data=data)
    assert refused.returncode == 1
    assert "in use by the service" in refused.stderr
    stop_service(service)
    assert snapshots(data)
    assert "--replace" in ambience("restore", str(folder), data=data).stderr
    assert (
        "3 images are restored" in ambience("restore", str(folder), "--replace", data=data).stdout
    )
    again = start_service(data)
    try:
        wait_all_ready(again)
        with again.client() as client:
            for at in range(3):
                hits = client.post("/v1/search", files={"image": jpeg(at)}).json()["hits"]
                assert [hit["image_id"] for hit in hits] == [at]
            found = client.post("/v1/search", files={"image": jpeg(7)}).json()["hits"]
            assert found == []
    finally:
        stop_service(again)


def test_a_changed_backup_is_refused(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "backup"
    with closing(open_store(f"lmdb:{data / 'store'}")) as store:
        store.put(picture(1, "1"))
    assert ambience("backup", str(folder), data=data).returncode == 0
    shutil.rmtree(data)
    with closing(open_store(f"lmdb:{folder / 'store'}")) as store:
        store.put(picture(2, "2"))
    refused = ambience("restore", str(folder), data=data)
    assert refused.returncode == 1
    assert "is damaged, or was changed" in refused.stderr
    (folder / "backup.json").write_text(json.dumps({}))
    assert "no finished backup" in ambience("restore", str(folder), data=data).stderr


def test_a_backup_and_its_restore_are_listed_as_jobs(tmp_path: Path) -> None:
    data, folder, url = (
        tmp_path / "data",
        tmp_path / "backup",
        f"lmdb:{tmp_path / 'data' / 'store'}",
    )
    with closing(open_store(url)) as store:
        store.put_many([picture(at, str(at)) for at in range(3)])
        assert ambience("backup", str(folder), data=data).returncode == 0
        (backup,) = jobs(store)
        assert (backup.kind, backup.state, backup.source) == ("backup", "finished", str(folder))
        assert (backup.done, backup.total, backup.report) == (3, 3, {"images": 3})
    assert ambience("restore", str(folder), "--replace", data=data).returncode == 0
    with closing(open_store(url)) as store:
        # The backup itself holds its own job, which was running when it was made.
        (restored,) = jobs(store)
        assert (restored.kind, restored.state) == ("restore", "finished")
        assert store.count() == 3


def test_a_backup_that_is_ended_is_none(tmp_path: Path) -> None:
    with closing(LmdbStore(tmp_path / "store")) as store:
        store.put_many([picture(at, str(at)) for at in range(STEP)])

    def end(_: int) -> None:
        raise JobCancelled("ended")

    with pytest.raises(JobCancelled):
        back_up(tmp_path / "store", tmp_path / "backup" / "store", end)
    refused = ambience("restore", str(tmp_path / "backup"), data=tmp_path / "data")
    assert "no finished backup" in refused.stderr


def test_a_postgresql_store_is_left_to_its_own_tools(tmp_path: Path) -> None:
    done = ambience(
        "backup", str(tmp_path / "b"), data=tmp_path, AMBIENCE_STORE="postgresql://x@/y"
    )
    assert done.returncode == 1
    assert "pg_dump" in done.stderr
