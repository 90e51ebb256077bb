"""Which room may import which, and which packages may not be imported until they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ROOMS: dict[str, str] = {
    "ambience.answers": "",
    "ambience.problems": "",
    "ambience.calls": "answers",
    "ambience.client": "answers calls problems",
    "ambience.command": "",
    "models.errors": "",
    "models.machine": "",
    "models.types": "",
    "models.weights": "errors",
    "models.method": "types weights",
    "models.base": "errors method types",
    "models.annotator": "method types",
    "models.preparation": "types",
    "models.compiled": "",
    "models.neural": "base compiled errors machine preparation types weights",
    "models.lightglue": "descriptors errors neural types weights",
    "models.registry": "annotator base errors method",
    "models.pictures": "pictures.files errors machine types",
    "models.pictures.files": "errors",
    "models.descriptors": "errors types weights",
    "models.extractors": "base descriptors errors neural preparation types weights",
    "models.annotators": "annotator errors neural registry types weights",
    "indexes.arrays": "models",
    "indexes.calibration": "",
    "indexes.store": "models",
    "indexes.store.lmdb": "store models",
    "indexes.store.postgres": "store models",
    "indexes.store.memory": "store models",
    "indexes.store.tagged": "store models",
    "indexes.store.url": "store store.lmdb store.memory store.postgres models",
    "indexes.inverted": "arrays models",
    "indexes.base": "arrays calibration inverted models",
    "indexes.hamming": "arrays base calibration models",
    "indexes.histogram": "arrays base calibration models",
    "indexes.vectors": "arrays base calibration inverted models",
    "indexes.local": "arrays base calibration inverted models",
    "indexes.text": "arrays base models",
    "indexes.relation": "base store models",
    "indexes.ranking": "base relation models",
    "indexes.duplicates": "arrays relation store models",
    "indexes.registry": "base models",
    "indexes.replica": "arrays base calibration store models",
    "deployments.keys": "models",
    "deployments.settings": "keys models",
    "deployments.statuses": "models",
    "deployments.loopback": "",
    "deployments.storing": "indexes models",
    "deployments.layout": "indexes",
    "deployments.schemas": "models",
    "deployments.jobs": "settings indexes models",
    "deployments.queries": "schemas models",
    "deployments.tombstones": "indexes models",
    "deployments.wire": "indexes models",
    "deployments.directory": "layout settings statuses wire indexes models",
    "deployments.grammar": "models",
    "deployments.ingress.listing": "queries indexes models",
    "deployments.ingress": (
        "directory grammar ingress.listing queries schemas settings storing tombstones wire "
        "indexes models"
    ),
    "deployments.ingress.batches": "ingress tombstones indexes models",
    "deployments.page": "",
    "deployments.http": (
        "directory ingress ingress.batches ingress.listing queries schemas settings wire indexes "
        "models"
    ),
    "deployments.http.admission": "http keys settings models",
    "deployments.http.copies": "http ingress ingress.listing schemas tombstones indexes models",
    "deployments.http.duplicates": "http ingress ingress.listing schemas indexes models",
    "deployments.http.gallery": "directory http ingress schemas wire indexes models",
    "deployments.http.jobs": "http ingress jobs schemas indexes models",
    "deployments.http.listing": "http ingress queries schemas models",
    "deployments.http.showing": "http ingress ingress.listing settings models",
    "deployments.http.application": (
        "http http.admission http.copies http.duplicates http.gallery http.jobs http.listing "
        "http.showing ingress loopback page settings"
    ),
    "deployments.replicas": "layout loopback settings statuses storing wire indexes models",
    "deployments.app": "directory http http.application layout replicas settings indexes models",
    "cluster.service": "deployments indexes models",
    "cluster.jobs": "service deployments indexes models",
    "cluster.jobs.duplicates": "jobs service deployments indexes models",
    "cluster.jobs.transfer": "jobs service deployments indexes models",
    "cluster.jobs.evaluation": "jobs ambience indexes models",
    "cluster.manifests": "service",
    "cluster.cli.console": "jobs service ambience deployments models",
    "cluster.cli.collection": (
        "cli.console jobs jobs.duplicates jobs.evaluation jobs.transfer service deployments "
        "indexes models"
    ),
    "cluster.cli": (
        "cli.collection cli.console jobs manifests service ambience deployments indexes models"
    ),
}
"""The rooms that each room may import, besides itself.

A room is a folder, or a file beside folders. A plain name is a room of the same top-level folder,
or a whole top-level folder.
"""

FORBIDDEN = {
    "models": {"ray", "fastapi", "faiss", "lmdb", "psycopg", "psycopg_pool"},
    "indexes": {"ray", "fastapi"},
    "ambience": {
        "models",
        "indexes",
        "deployments",
        "cluster",
        "pydantic",
        "numpy",
        "ray",
        "torch",
    },
}
"""Packages that nothing in a top-level folder may import, by folder."""
HEAVY = {"torch", "openvino", "transformers", "open_clip", "kornia", "ray", "fastapi"}
"""Packages that may be imported only when something loads."""
MOST_FILES = 14
"""Maximum number of files in one folder, not counting `__init__.py`."""
TOP = ["ambience", "models", "indexes", "deployments", "cluster"]
SOURCES = [path for top in TOP for path in sorted((ROOT / top).rglob("*.py"))]
MODULES = [path for path in SOURCES if path.name != "__init__.py"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(path: Path) -> Iterator[str]:
    """Yield every name that the file imports anywhere, as `package.module.name`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str | None:
    """Return the innermost room that holds a module or a name in it."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 1, -1))
    return next((prefix for prefix in prefixes if prefix in ROOMS), None)


def may_import(room: str) -> set[str]:
    """Return the rooms and the top-level folders that a room may import."""
    top = room.partition(".")[0]
    return {name if name in TOP else f"{top}.{name}" for name in ROOMS[room].split()}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_file_lives_in_a_listed_room(path: Path) -> None:
    room = room_of(module_of(path))
    assert room is not None
    inside = module_of(path).removeprefix(room).removeprefix(".")
    assert "." not in inside, f"{name_of(path)} lives in a folder that is not listed"


def test_every_listed_room_is_there() -> None:
    there = {module_of(path) for path in SOURCES}
    assert set(ROOMS) <= there


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    room = room_of(module_of(path))
    allowed = may_import(room) if room else set()
    for name in imported(path):
        top = name.partition(".")[0]
        if top in ("tests", "benchmarks"):
            pytest.fail(f"{name_of(path)} imports {name}")
        if top in TOP and room_of(name) != room:
            assert allowed & {top, room_of(name)}, f"{name_of(path)} imports {name}"


def test_the_table_has_no_cycle() -> None:
    rooms = {room: may_import(room) for room in ROOMS}
    for top, before in zip(TOP, [[], *([TOP[:n]] for n in range(1, len(TOP)))], strict=True):
        named = {name for room in rooms if room.startswith(f"{top}.") for name in rooms[room]}
        assert named & set(TOP) <= set(*before), f"{top} comes after {before}"
    inside = {room: {one for one in named if one in ROOMS} for room, named in rooms.items()}
    assert set(TopologicalSorter(inside).static_order()) == set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_imports_a_package_that_its_folder_must_not(path: Path) -> None:
    packages = {name.partition(".")[0] for name in imported(path)}
    assert not packages & FORBIDDEN.get(path.relative_to(ROOT).parts[0], set())


def test_a_folders_init_says_what_lives_there_and_nothing_else() -> None:
    for path in SOURCES:
        if path.name == "__init__.py":
            (only,) = ast.parse(path.read_text()).body
            assert isinstance(only, ast.Expr), f"{name_of(path)} is more than a docstring"
            assert "\n" not in path.read_text().strip(), f"{name_of(path)} is more than a sentence"


def test_no_folder_has_more_files_than_one_looks_through() -> None:
    count = Counter(name_of(path.parent) for path in MODULES)
    assert {folder: files for folder, files in count.items() if files > MOST_FILES} == {}


def test_no_files_name_repeats_its_folders() -> None:
    repeated = [
        name_of(path)
        for path in MODULES
        if path.parent.name.rstrip("s") in path.stem.split("_") and path.parent != ROOT / "models"
    ]
    assert repeated == []


def test_importing_all_of_models_loads_nothing_heavy() -> None:
    modules = [module_of(path) for path in SOURCES if path.is_relative_to(ROOT / "models")]
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
    """Return whether the file binds a Serve deployment: `.bind(…)` of anything but a socket."""
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
