"""The entry point of `ambience`, and what an installation of the client alone imports."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALONE = """
import sys
from importlib.abc import MetaPathFinder
allowed = sys.stdlib_module_names | set({allowed!r})
class Only(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Only())
"""
"""Python code after which no packages but these can be imported."""
OF_HTTPX = ["httpx", "httpcore", "h11", "anyio", "idna", "certifi", "sniffio", "typing_extensions"]


def run(code: str) -> subprocess.CompletedProcess[str]:
    alone = ALONE.format(allowed=["ambience", "cluster", *OF_HTTPX])
    return subprocess.run(
        [sys.executable, "-c", alone + code], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_client_needs_httpx_alone() -> None:
    done = run("from ambience.client import AsyncClient, Client; Client().close()")
    assert done.returncode == 0, done.stderr
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["httpx"]


def test_the_command_says_what_to_install_where_the_client_is_alone() -> None:
    done = run("from ambience.command import main; main()")
    assert done.returncode == 1
    assert "pip install 'ambience[serve]'" in done.stderr
    assert "Traceback" not in done.stderr
