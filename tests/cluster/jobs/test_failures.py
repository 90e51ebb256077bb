"""Errors in the workers of a job end the command with one sentence."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster.jobs.failures import Failure, UnexpectedFailure, expected_error, keep_traceback
from cluster.service.data_folder import job_log
from models.errors import AmbienceError, StoreUnavailable
from tests.conftest import AMBIENCE, ROOT
from tests.drawing import jpeg

STARTUP = ROOT / "tests" / "deployments" / "startup"
"""Adds the tests' extractors to those that a process finds."""


def failed_backfill(folder: Path, **options: Any) -> str:
    """Backfill a few pictures with the extractor `failing`; check that it ends with status 1 and
    return what it wrote to standard error."""
    (folder / "pictures").mkdir()
    (folder / "data").mkdir(mode=0o700)
    for number in range(40):
        (folder / "pictures" / f"{number}.jpg").write_bytes(jpeg(number, 160, 120))
    arguments = {"extractor": "failing", "options": options}
    builder = "deployments.app:build_retriever"
    application = {"name": "failing", "import_path": builder, "args": arguments}
    config = folder / "config.yaml"
    config.write_text(json.dumps({"applications": [application]}))
    paths = os.pathsep.join([str(STARTUP), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [str(AMBIENCE), "backfill", "pictures", "--config", str(config), "--json"],
        cwd=folder,
        env=os.environ | {"AMBIENCE_DATA": str(folder / "data"), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    return done.stderr


@pytest.mark.soak
def test_an_error_of_ours_in_a_worker_ends_a_backfill_with_its_sentence(
    tmp_path: Path, temporary: str
) -> None:
    assert failed_backfill(tmp_path, error="store") == (
        "ambience: the store is gone: bring it back\n"
    )
    assert list(Path(temporary).iterdir()) == []


@pytest.mark.soak
def test_a_disk_that_is_full_for_a_starting_worker_ends_a_backfill_with_a_sentence(
    tmp_path: Path,
) -> None:
    assert failed_backfill(tmp_path, error="disk", while_loading=True) == (
        "ambience: /photos/part: the disk is full; free space and run it again\n"
    )


def test_any_other_error_in_a_worker_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    log = job_log(tmp_path / "data")
    assert failed_backfill(tmp_path, error="bug") == (
        f"ambience: unexpected KeyError: 'a bug'; the traceback is in {log}\n"
    )
    assert "in _extract" in log.read_text()


def test_an_error_is_found_in_what_ray_wraps_it_in() -> None:
    import ray

    cause = StoreUnavailable("gone")
    wrapped = ray.exceptions.RayTaskError("f", "a long traceback", cause).as_instanceof_cause()
    assert isinstance(wrapped, StoreUnavailable)
    assert expected_error(wrapped) is cause
    outer = ValueError("outer")
    outer.__cause__ = wrapped
    assert expected_error(outer) is cause
    assert expected_error(ValueError("a bug")) is None
    assert expected_error(PermissionError(13, "denied")) is None


def test_a_known_error_stays_itself_and_others_carry_their_traceback() -> None:
    known = Failure.of(StoreUnavailable("gone")).error
    assert isinstance(known, AmbienceError)
    try:
        raise KeyError("a bug")
    except KeyError as exc:
        other = Failure.of(exc).error
    assert isinstance(other, UnexpectedFailure)
    assert other.summary == "KeyError: 'a bug'"
    assert "test_failures.py" in other.report


def test_without_a_log_the_traceback_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").write_text("no folder")
    sentence = keep_traceback(KeyError("a bug"), tmp_path / "data")
    assert sentence.startswith("unexpected KeyError: 'a bug'; ")
    assert sentence.endswith("can't be written")
    assert "KeyError: 'a bug'" in capsys.readouterr().err
