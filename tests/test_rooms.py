"""Who may import whom, and what may not be imported until it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["models", "indexes", "deployments", "cluster"]
"""Each may import itself and those before it."""
FORBIDDEN = {
    "models": {"ray", "fastapi", "faiss", "lmdb", "psycopg", "psycopg_pool"},
    "indexes": {"ray", "fastapi"},
}
HEAVY = {"torch", "transformers", "open_clip", "kornia", "ray", "fastapi"}
"""Imported, if at all, when something loads."""
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[str]:
    """Top-level packages that the file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports relatively"
            yield str(node.module).partition(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_room_imports_only_itself_and_those_before_it(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    later = set(ROOMS[ROOMS.index(room) + 1 :])
    assert not set(imported(path)) & (later | {"tests", "benchmarks"})


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.relative_to(ROOT).parts[0] in FORBIDDEN], ids=name_of
)
def test_a_room_stays_free_of_what_is_not_its_business(path: Path) -> None:
    assert not set(imported(path)) & FORBIDDEN[path.relative_to(ROOT).parts[0]]


def test_importing_all_of_models_loads_nothing_heavy() -> None:
    modules = [
        name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in SOURCES
        if path.is_relative_to(ROOT / "models")
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted({HEAVY!r} & sys.modules.keys()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == ""


def binds(path: Path) -> bool:
    """Whether the file binds a Serve deployment: `.bind(…)` of anything but a socket."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr != "bind":
            continue
        owner = node.func.value
        name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
        if name.lstrip("_") not in ("socket", "probe"):
            return True
    return False


def test_only_one_file_binds_deployments() -> None:
    assert [name_of(path) for path in SOURCES if binds(path)] == ["deployments/app.py"]


def committed() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_needs_the_folder_beside_the_checkout() -> None:
    needles = ("../" + "shared", "/work/" + "shared")
    found = [
        name_of(path)
        for path in committed()
        if any(needle in path.read_text(errors="ignore") for needle in needles)
    ]
    assert found == []


def test_no_source_file_is_longer_than_400_lines() -> None:
    long = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}
