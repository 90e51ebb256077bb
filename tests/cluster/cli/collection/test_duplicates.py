"""`ambience duplicates`: the report, deleting with consent, and following."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from indexes.duplicates.catalogue import groups_page
from indexes.store.lmdb.store import LmdbStore
from tests.cluster.jobs.duplicates.library import add_file
from tests.conftest import AMBIENCE, light_config
from tests.drawing import encoded, jpeg, scene

SECONDS = 240


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a picture, its copy of fewer bytes, and another picture twice."""
    with closing(LmdbStore(tmp_path / "store")) as store:
        add_file(store, 1, jpeg(1))
        add_file(store, 2, encoded(scene(1), quality=50))
        add_file(store, 3, jpeg(3))
        add_file(store, 4, jpeg(3))
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [str(AMBIENCE), "duplicates", *arguments, "--config", str(light_config())]


def ambience(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=os.environ | {"AMBIENCE_DATA": str(data)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def printed(data: Path, *arguments: str) -> Any:
    done = ambience(data, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ids(data: Path) -> list[int]:
    with closing(LmdbStore(data / "store")) as store:
        return [image.image_id for image in store.images()]


def test_a_run_reports_and_deletes_nothing(data: Path) -> None:
    done = ambience(data)
    assert done.returncode == 0, done.stderr
    assert "4 images, 4 of them new: " in done.stdout
    assert "reencode" in done.stdout
    report = data / "duplicates"
    assert (report / "ids_to_delete.txt").read_text() == "4\n"
    assert (report / "duplicates.html").read_text().count("data:image/jpeg") == 4
    assert len(json.loads((report / "duplicates.json").read_bytes())["groups"]) == 2
    again = printed(data, "--level", "reencode", "--report", str(data / "other"))
    assert (again["new"], again["compared"]) == (0, 0)
    assert again["levels"]["bytes"]["groups"] == 1
    assert (data / "other" / "ids_to_delete.txt").read_text() == "2\n"
    assert ids(data) == [1, 2, 3, 4]


def test_deleting_needs_consent(data: Path) -> None:
    refused = ambience(data, "--apply")
    assert refused.returncode == 1
    assert "--yes" in refused.stderr
    assert ids(data) == [1, 2, 3, 4]
    applied = printed(data, "--apply", "--yes")
    assert applied["applied"]["deleted"] == [4]
    assert ids(data) == [1, 2, 3]
    wrong = ambience(data, "--level", "ugly")
    assert wrong.returncode == 1
    assert "no level 'ugly'" in wrong.stderr


@pytest.mark.soak
def test_a_contact_sheet_is_written(data: Path) -> None:
    ambience(data)
    tried = printed(data, "--try", "reencode")
    assert tried["pairs"] == 2
    assert "1 pairs are reencode" in Path(tried["contact_sheet"]).read_text()


@pytest.mark.soak
def test_what_comes_is_followed_until_an_interrupt(data: Path) -> None:
    with (
        subprocess.Popen(
            command("--follow"),
            env=os.environ | {"AMBIENCE_DATA": str(data)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        closing(LmdbStore(data / "store")) as store,
    ):
        until = time.monotonic() + SECONDS
        while len(groups_page(store, None, "", 9)[0]) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        add_file(store, 7, encoded(scene(3).resize((320, 240))))
        while len(groups_page(store, None, "", 9)[0]) < 3 and time.monotonic() < until:
            time.sleep(0.2)
        levels = [one.group.level for one in groups_page(store, None, "", 9)[0]]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert levels == ["bytes", "reencode", "resize"]
