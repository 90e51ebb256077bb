"""The command line against the real service."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.cli.tables import print_states
from tests.conftest import AMBIENCE, Service
from tests.drawing import jpeg


def run(service: Service, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(AMBIENCE), *arguments],
        env=service.environment() | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def picture(folder: Path, seed: int) -> str:
    path = folder / f"{seed}.jpg"
    path.write_bytes(jpeg(seed))
    return str(path)


def test_a_picture_is_added_found_and_deleted(service: Service, tmp_path: Path) -> None:
    added = run(service, "add", picture(tmp_path, 1), "--id", "7", "--metadata", '{"album": "a"}')
    assert (added.returncode, added.stdout.strip()) == (0, "Added as image 7.")
    found = run(service, "search", picture(tmp_path, 1), "--json")
    assert found.returncode == 0
    assert json.loads(found.stdout)["hits"][0]["image_id"] == 7
    by_id = run(service, "search", "--id", "7", "--retriever", "local")
    assert by_id.returncode == 0
    assert "inliers" in by_id.stdout
    assert run(service, "delete", "7").stdout.strip() == "Deleted 7."
    gone = run(service, "search", picture(tmp_path, 1))
    assert (gone.returncode, gone.stdout.strip()) == (3, "Nothing found.")


@pytest.mark.soak
def test_an_evaluation_is_reported_applied_and_taken_back(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        assert run(service, "add", picture(folder, number)).returncode == 0
    arguments = ("evaluate", str(folder), "--to", str(tmp_path / "report"), "--json")
    done = run(service, *arguments, "--pictures", "3")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["figures"]["pictures"] == 3
    assert found["figures"]["recall"]["mirrored"]["phash"]["at_1"] == 1
    assert found["figures"]["false_hits"]["mirrored"] == 0
    assert "1.00 / 1.00" in Path(found["report"]).read_text()
    # What was answered is not asked again.
    (answers,) = (tmp_path / "report").glob("answers-*.jsonl")
    before = answers.stat().st_mtime_ns
    again = json.loads(run(service, *arguments, "--pictures", "3", "--apply").stdout)
    assert again["applied"]
    assert again["figures"] == found["figures"]
    assert answers.stat().st_mtime_ns == before
    assert run(service, "evaluate", "--reset").stdout.startswith("Searches use the defaults")


def test_words_that_nothing_searches_for_are_refused_with_the_reason(service: Service) -> None:
    refused = run(service, "search", "--text", "lighthouse")
    assert refused.returncode == 1
    assert "no retriever that searches by words" in refused.stderr


def test_status_shows_every_retriever(service: Service) -> None:
    shown = run(service, "status")
    assert shown.returncode == 0
    for name in ("phash", "color", "local"):
        assert name in shown.stdout
    rows = json.loads(run(service, "status", "--json").stdout)["retrievers"]
    assert {row["state"] for row in rows} == {"ready"}


def test_status_wraps_no_cell_and_gives_the_reason_of_a_next_model_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lacking = "a model [of 7 layers] can't be fetched; " + " ".join(["put its files there."] * 9)
    state = {"state": "ready", "count": 1234567, "bytes": 2**30, "reason": None}
    named = {"name": "a_retriever_of_a_long_name", "index": "pq-inverted-lists", "applied_seq": 9}
    named |= {"replicas": 2, "device": "cpu", "threads": 16}
    row = state | named | {"next": state | {"state": "unavailable", "reason": lacking}}
    starting = state | named | {"name": "starting", "replicas": 0}
    print_states("http://127.0.0.1:1", [starting, row])
    lines = capsys.readouterr().out.splitlines()
    first, own, other, end, reason = lines[-5:]
    assert first.split("│")[-2].strip() == ""  # It runs nowhere yet.
    assert len(own) == len(other) == len(end) > 80
    assert own.split("│")[1:3] == [" a_retriever_of_a_long_name ", " ready       "]
    assert own.split("│")[-2].strip() == "2 × 16 threads"
    assert [cell.strip() for cell in other.split("│")[1:3]] == ["its next model", "unavailable"]
    assert reason == f"a_retriever_of_a_long_name, its next model: {lacking}"


def test_an_error_is_one_sentence_and_a_status(service: Service, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(jpeg(1)[:300])
    done = run(service, "add", str(broken))
    assert done.returncode == 1
    assert done.stderr.startswith("ambience: ")
    assert "Traceback" not in done.stderr
    unknown = run(service, "search", picture(tmp_path, 1), "--retriever", "sound")
    assert unknown.returncode == 1
    assert "phash" in unknown.stderr


def test_without_a_service_it_says_how_to_start_one(service: Service, tmp_path: Path) -> None:
    elsewhere = {"AMBIENCE_DATA": str(tmp_path / "none"), "AMBIENCE_PORT": "9"}
    done = run(service, "search", picture(tmp_path, 1), **elsewhere)
    assert done.returncode == 4
    assert "ambience serve" in done.stderr
    assert run(service, "stop", **elsewhere).returncode == 4


@pytest.mark.parametrize("command", ["serve", "stop", "add", "search", "backfill", "deploy"])
def test_help_teaches_by_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"ambience {command}" in shown.stdout.split("Example", 1)[1]


def test_the_command_itself_shows_its_help() -> None:
    shown = subprocess.run([AMBIENCE, "--help"], capture_output=True, text=True, check=True)
    assert "ambience serve" in shown.stdout
