"""The unit file for systemd."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

UNIT = ROOT / "cluster" / "manifests" / "ambience.service"
pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd on this machine"
)


def here(folder: Path) -> Path:
    """Write the unit for this machine: its program, and a user that there is."""
    text = UNIT.read_text().replace("/opt/ambience/.venv/bin/ambience", sys.executable)
    path = folder / "ambience.service"
    path.write_text(text.replace("User=ambience", "User=daemon"))
    return path


def test_systemd_takes_every_line_of_the_unit(tmp_path: Path) -> None:
    verify = ["systemd-analyze", "verify", "--man=no", str(here(tmp_path))]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_the_unit_well_confined(tmp_path: Path) -> None:
    analyze = ["systemd-analyze", "security", "--offline=true", "--json=short"]
    done = subprocess.run(
        [*analyze, "--threshold=30", str(here(tmp_path))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    bad = [row["name"] for row in json.loads(done.stdout) if float(row["exposure"] or 0) >= 0.3]
    assert done.returncode == 0, bad
