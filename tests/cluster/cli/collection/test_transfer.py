"""`ambience import` and `ambience export`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.cluster.jobs.transfer.old_folder import contents, old_folder
from tests.cluster.jobs.transfer.test_importing import phash_of
from tests.conftest import AMBIENCE


def ambience(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(AMBIENCE), *arguments],
        env=os.environ | {"AMBIENCE_DATA": str(data)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_import_and_an_export_say_what_they_did(tmp_path: Path) -> None:
    images = {at: (f"{at}.jpg", phash_of(at)) for at in (1, 2)}
    old = old_folder(tmp_path / "old", "phashes.lmdb", images)
    data = tmp_path / "data"
    done = ambience(data, "import", "phash", str(old))
    assert done.stdout == "2 added, 0 extended, 0 there already, 0 left out.\n"
    new = tmp_path / "new"
    written = json.loads(ambience(data, "export", "phash", str(new), "--json").stdout)
    assert written == {"written": 2, "bad": []}
    assert contents(new / "phashes.lmdb") == contents(old / "phashes.lmdb")


def test_a_retriever_with_other_features_than_the_old_ones_is_refused(tmp_path: Path) -> None:
    done = ambience(tmp_path, "import", "text", str(tmp_path))
    assert done.returncode == 1
    assert "no features like those of 'text'; this config has phash, color" in done.stderr


def test_local_features_need_their_database_and_nothing_else_has_one(tmp_path: Path) -> None:
    for arguments in (("local",), ("phash", "--points", "postgresql://localhost/points")):
        name, *options = arguments
        done = ambience(tmp_path, "import", name, str(tmp_path), *options)
        assert done.returncode == 2
        assert "--points is the PostgreSQL database" in " ".join(done.stderr.split())


def test_a_collection_moves_by_parquet(tmp_path: Path) -> None:
    images = {at: (f"{at}.jpg", phash_of(at)) for at in (1, 2)}
    old = old_folder(tmp_path / "old", "phashes.lmdb", images)
    ambience(tmp_path / "data", "import", "phash", str(old))
    file = str(tmp_path / "all.parquet")
    done = ambience(tmp_path / "data", "export", "--parquet", file)
    assert done.stdout == f"2 written to {file}, 0 left out.\n"
    told = json.loads(ambience(tmp_path / "other", "import", "--parquet", file, "--json").stdout)
    assert told == {"added": 2, "extended": 0, "already": 0, "bad": []}
    again = ambience(tmp_path / "data", "export", "--parquet", file)
    assert (again.returncode, "is there already" in again.stderr) == (1, True)


def test_a_move_names_either_a_retriever_or_parquet(tmp_path: Path) -> None:
    both = ("phash", str(tmp_path), "--parquet", str(tmp_path))
    for arguments in (("import",), ("export", "phash"), ("import", *both)):
        done = ambience(tmp_path / "data", *arguments)
        assert done.returncode == 2
        assert "either NAME and FOLDER, or" in " ".join(done.stderr.split())
