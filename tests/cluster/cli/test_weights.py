"""`ambience weights` against a real HTTP server with the hub's interface, and elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import AMBIENCE
from tests.models.test_weights import COMMIT, Hub, serving

FILES = {"open_clip_config.json": b"{}", "tokenizer.json": b"[]"}
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    with serving(Hub, tmp_path / "published") as url:
        for name, data in (FILES | {WEIGHTS: b"weights" * 1000}).items():
            (tmp_path / "published" / name).write_bytes(data)
        yield url


def config(tmp_path: Path, revision: str = COMMIT, **options: Any) -> Path:
    """Write a config of one model from the hub, one file, one that is off, and one of neither."""
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"mine")
    clip = {"model": "owner/model", "revision": revision, **options}

    def block(name: str, builder: str, **args: Any) -> dict[str, Any]:
        return {"name": name, "import_path": f"deployments.app:{builder}", "args": args}

    applications = [
        block("phash", "build_retriever", extractor="phash"),
        block("image_text", "build_retriever", extractor="clip", options=clip),
        block("copy", "build_retriever", extractor="sscd", options={"path": str(mine)}),
        block("vocabulary", "build_annotator", annotator="vocabulary"),
    ]
    path = tmp_path / "serve_config.yaml"
    path.write_text(yaml.dump({"applications": applications}))
    return path


def weights(
    machine: Path, config: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command on a machine, which is a folder of caches."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name != "HF_HUB_OFFLINE"
    }
    caches = {"HF_HOME": str(machine / "hf"), "TORCH_HOME": str(machine / "torch")}
    command, *rest = arguments
    return subprocess.run(
        [str(AMBIENCE), "weights", command, "--config", str(config), *rest],
        env=inherited | caches | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_is_fetched_is_carried_to_a_machine_without_a_network(
    hub: str, tmp_path: Path
) -> None:
    given, folder = config(tmp_path), tmp_path / "stick"
    before = json.loads(
        weights(tmp_path / "one", given, "list", "--json", HF_HUB_OFFLINE="1").stdout
    )
    assert [(row["application"], row["id"]) for row in before] == [
        ("image_text", "owner/model"),
        ("copy", str(tmp_path / "mine.pt")),
    ]
    assert before[0]["revision"] == COMMIT
    assert (before[0]["path"], before[0]["bytes"], before[0]["files"]) == (None, None, [])
    assert "set AMBIENCE_WEIGHTS=FOLDER here" in before[0]["reason"]
    assert (before[1]["path"], before[1]["bytes"]) == (str(tmp_path / "mine.pt"), 4)

    done = weights(tmp_path / "one", given, "fetch", "--to", str(folder), HF_ENDPOINT=hub)
    assert done.returncode == 0, done.stderr
    assert "owner/model" in done.stdout
    repository = folder / "owner--model" / COMMIT
    assert {path.name: path.read_bytes() for path in repository.iterdir()} == FILES | {
        WEIGHTS: b"weights" * 1000
    }
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    sums = dict(
        reversed(line.split("  "))
        for line in (folder / "SHA256SUMS").read_text().split("\n")
        if line
    )
    assert sums == {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in repository.iterdir()
    }

    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "AMBIENCE_WEIGHTS": str(folder)}
    (row, _) = json.loads(weights(tmp_path / "two", given, "list", "--json", **nowhere).stdout)
    assert (row["path"], row["reason"]) == (str(repository), None)
    assert row["bytes"] == 7004
    assert {file["sha256"] for file in row["files"]} == set(sums.values())
    assert weights(tmp_path / "two", given, "fetch", **nowhere).returncode == 0
    assert not (tmp_path / "two" / "hf" / "hub").exists()


def test_what_can_not_be_fetched_is_named_and_the_status_is_1(hub: str, tmp_path: Path) -> None:
    done = weights(tmp_path, config(tmp_path, "gone"), "fetch", HF_ENDPOINT=hub)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "image_text: the hub knows no revision gone of owner/model; correct the line "
        "`revision: gone` in serve_config.yaml"
    )
    nowhere = weights(tmp_path, config(tmp_path), "fetch", HF_ENDPOINT="http://127.0.0.1:9")
    assert nowhere.returncode == 1
    assert nowhere.stderr.count("\n") == 1
    assert "run `ambience weights fetch --to FOLDER` on a machine with a network" in nowhere.stderr


def test_an_interrupted_copy_is_finished_and_never_passes_for_a_whole_one(
    hub: str, tmp_path: Path
) -> None:
    given, folder = config(tmp_path), tmp_path / "stick"
    repository = folder / "owner--model" / COMMIT
    repository.mkdir(parents=True)
    (repository / "tokenizer.json").write_bytes(b"[")
    offline = {"HF_HUB_OFFLINE": "1", "AMBIENCE_WEIGHTS": str(folder)}
    (row, _) = json.loads(weights(tmp_path / "two", given, "list", "--json", **offline).stdout)
    assert row["path"] is None
    assert weights(tmp_path, given, "fetch", "--to", str(folder), HF_ENDPOINT=hub).returncode == 0
    assert (repository / "tokenizer.json").read_bytes() == b"[]"


def test_a_next_model_is_listed_too(tmp_path: Path) -> None:
    given = yaml.safe_load(config(tmp_path).read_text())
    following = {"extractor": "clip", "options": {"model": "owner/next", "revision": "1" * 40}}
    given["applications"][1]["args"]["next"] = following
    path = tmp_path / "changing.yaml"
    path.write_text(yaml.dump(given))
    rows = json.loads(weights(tmp_path, path, "list", "--json", HF_HUB_OFFLINE="1").stdout)
    assert [row["id"] for row in rows][:2] == ["owner/model", "owner/next"]
