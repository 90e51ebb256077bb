"""`ambience store copy` between two stores on disk."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from pathlib import Path

from deployments.jobs import jobs
from indexes.store.url import open_store
from tests.conftest import AMBIENCE
from tests.indexes.pictures import picture


def copy(source: str, target: str, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = [str(AMBIENCE), "store", "copy", source, target, *options]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


def test_a_copy_says_what_it_wrote_and_that_both_hold_the_same(tmp_path: Path) -> None:
    source, target = f"lmdb:{tmp_path / 'a'}", f"lmdb:{tmp_path / 'b'}"
    with closing(open_store(source)) as store:
        store.put_many([picture(at, str(at)) for at in range(300)])
        first = json.loads(copy(source, target, "--json").stdout)
        assert (first["images"], first["written"], first["complete"]) == (300, 300, True)
        store.delete(7)
    again = copy(source, target)
    assert again.returncode == 0
    assert "299 images: 0 written, 1 removed; both hold the same" in again.stdout


def test_a_copy_is_a_job_of_the_store_that_it_copies(tmp_path: Path) -> None:
    source, target = f"lmdb:{tmp_path / 'a'}", f"lmdb:{tmp_path / 'b'}"
    with closing(open_store(source)) as one, closing(open_store(target)) as other:
        one.put_many([picture(at, str(at)) for at in range(3)])
        assert json.loads(copy(source, target, "--json").stdout)["complete"]
        (job,) = jobs(one)
        assert (job.kind, job.state, job.done, job.total) == ("store copy", "finished", 3, 3)
        assert jobs(other) == []


def test_a_store_that_there_is_not_is_one_sentence(tmp_path: Path) -> None:
    done = copy("sqlite:x", f"lmdb:{tmp_path / 'b'}")
    assert done.returncode == 1
    assert done.stderr.startswith("ambience: no store sqlite:")
