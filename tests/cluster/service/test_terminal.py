"""The output of a process and its children goes to a log, except what is meant for the user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cluster.service.terminal import output_in


def test_an_error_that_ends_a_start_is_told_and_not_only_logged(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\n"
        "from cluster.service.terminal import output_in\n"
        "with output_in(Path(sys.argv[1])) as terminal:\n"
        "    print('of Python')\n    os.system('echo of a child >&2')\n"
        "    print('for a person', file=terminal.out)\n    raise OSError('the end')\n"
    )
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", program, str(log)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == "for a person\n"
    assert done.stderr.endswith("OSError: the end\n")
    assert sorted(log.read_text().splitlines()) == ["of Python", "of a child"]


def test_the_log_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of an earlier run")
    with output_in(tmp_path / "log"):
        os.write(1, b"of this one")
    assert (tmp_path / "log").read_text() == "of this one"
