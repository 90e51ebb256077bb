"""Which Ray folders are removed and which stay, with real processes that end or are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster.service.ray_folder import PREFIX, remove_abandoned, short_tmp
from tests.indexes.store.forks import wait_for

HOLD = """
import subprocess, sys
from cluster.service.ray_folder import ray_folder
with ray_folder() as folder:
    if sys.argv[1:]:
        sleep = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        subprocess.Popen(sleep, pass_fds=[folder.handle], stdin=0, stdout=2)
    print(folder.path, flush=True)
    sys.stdin.read()
"""


def holder(temporary: str, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, *arguments],
        env=os.environ | {"TMPDIR": temporary},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str]) -> None:
    """The end of its input ends a process, and the child of a killed one."""
    process.communicate(timeout=20)


def folders(temporary: str | Path) -> list[str]:
    return sorted(path.name for path in Path(temporary).glob(f"{PREFIX}*"))


def test_the_folder_of_a_killed_process_goes_and_a_living_ones_stays(temporary: str) -> None:
    living, kept = holder(temporary)
    killed, left = holder(temporary)
    (left / "session").mkdir()
    (left / "session" / "log").write_text("…")
    killed.kill()
    end(killed)
    assert folders(temporary) == sorted([kept.name, left.name])
    remove_abandoned(Path(temporary))
    assert folders(temporary) == [kept.name]
    end(living)
    assert folders(temporary) == []


def test_a_folder_stays_while_a_child_of_its_killed_owner_still_uses_it(temporary: str) -> None:
    owner, folder = holder(temporary, "with a child")
    owner.kill()
    owner.wait()
    remove_abandoned(Path(temporary))
    assert folder.exists()
    end(owner)

    def gone() -> bool:
        remove_abandoned(Path(temporary))
        return not folder.exists()

    wait_for(gone)


def test_what_is_not_ours_stays(temporary: str) -> None:
    base = Path(temporary)
    for name in ("ambience-tests-abcdefgh", f"{PREFIX}notes", f"{PREFIX}abcdefgh.old"):
        (base / name).mkdir()
    (base / f"{PREFIX}12345678").write_text("a file")
    (base / f"{PREFIX}abcdefgh").symlink_to(base / "ambience-tests-abcdefgh")
    before = sorted(base.iterdir())
    remove_abandoned(base)
    assert sorted(base.iterdir()) == before


def test_many_starts_at_once_take_no_folder_from_each_other(temporary: str) -> None:
    started = [holder(temporary) for _ in range(6)]
    assert folders(temporary) == sorted(path.name for _, path in started)
    for process, _ in started:
        end(process)
    assert folders(temporary) == []


def test_rays_socket_names_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T")
    assert short_tmp() == Path("/tmp")
    monkeypatch.setattr(tempfile, "tempdir", "/" + 15 * "t")
    longest = f"{short_tmp()}/{PREFIX}12345678/r/session_2026-01-01_00-00-00_000000_4194304"
    assert len(f"{longest}/sockets/plasma_store") < 107
