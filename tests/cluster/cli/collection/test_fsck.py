"""`ambience fsck` with real Ray Data."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from cluster.cli.collection.fsck import _summary
from cluster.jobs.fsck import Report
from tests.conftest import AMBIENCE, light_config
from tests.drawing import jpeg


def ambience(data: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(AMBIENCE), command, *arguments, "--config", str(light_config())],
        env=os.environ | {"AMBIENCE_DATA": str(data)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_what_is_wrong_is_told_with_status_1_and_healed_on_demand(tmp_path: Path) -> None:
    pictures, data = tmp_path / "pictures", tmp_path / "data"
    pictures.mkdir()
    for seed in range(3):
        (pictures / f"{seed}.jpg").write_bytes(jpeg(seed, 160, 120))
    told = ambience(data, "fsck", str(pictures))
    assert told.returncode == 1
    assert "0 images: 3 not indexed; `--heal` puts right what can be" in told.stdout
    lines = (data / "fsck-findings.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["not indexed"] * 3
    healed = ambience(data, "fsck", str(pictures), "--heal", "--json")
    assert healed.returncode == 0, healed.stderr
    report = json.loads(healed.stdout)
    assert (report["images"], report["counts"], report["left"]) == (3, {"not indexed": 3}, 0)


def test_a_whole_collection_is_told_in_one_sentence() -> None:
    told = _summary(Report(3, 3, [], healed=False), Path("findings.tsv"))
    assert told == "3 files and 3 images: all is well."
