"""The documentation against the code: links resolve, and the reference is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

import deployments.http.application  # noqa: F401
from cluster.cli.main import app
from deployments.http.problems import TYPES, explanations
from deployments.settings import AnnotatorArgs, IngressArgs, RetrieverArgs
from models.registry import annotator_names, extractor_names

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = ROOT / "docs" / "reference"
LINK = re.compile(r"\]\((?!https?://)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = [page.parent / target for target in LINK.findall(page.read_text())]
    assert [str(target) for target in targets if not target.exists()] == []


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    named = {(index.parent / target).resolve() for target in LINK.findall(index.read_text())}
    assert named == {page for page in PAGES if page.parent != ROOT} - {index}


def test_every_key_of_the_configuration_is_described() -> None:
    text = (REFERENCE / "configuration.md").read_text()
    keys = {
        name for args in (IngressArgs, RetrieverArgs, AnnotatorArgs) for name in args.model_fields
    }
    # `ambience deploy` sets `beside` by itself.
    assert {key for key in keys - {"beside"} if f"`{key}`" not in text} == set()
    methods = {*extractor_names(), *annotator_names()}
    assert {method for method in methods if f"`{method}`" not in text} == set()


def test_every_command_is_described() -> None:
    text = (REFERENCE / "cli.md").read_text()
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert {
        name for name in commands if f"`{name} " not in text and f"`{name}`" not in text
    } == set()


def test_every_type_of_problem_is_described_in_the_words_that_the_service_answers() -> None:
    text = (REFERENCE / "problems.md").read_text()
    sections = re.findall(r"^## (\S+)\n\n(.+)$", text, re.M)
    known = {kind: said for kind, (_, said) in explanations().items()}
    assert {TYPES + name: said for name, said in sections} == known


def test_every_metric_is_described() -> None:
    text = (REFERENCE / "metrics.md").read_text()
    sources = [path.read_text() for path in (ROOT / "deployments").rglob("metrics.py")]
    metrics = {name for source in sources for name in re.findall(r'"(ambience_\w+)"', source)}
    assert len(metrics) > 5
    assert {metric for metric in metrics if f"`{metric}`" not in text} == set()


def test_every_route_of_v1_is_described() -> None:
    text = (REFERENCE / "http.md").read_text()
    sources = [
        (ROOT / "deployments" / "http" / name).read_text() for name in ("v1.py", "editing.py")
    ]
    found = {route for source in sources for route in re.findall(r'^    "(/[^"]+)",', source, re.M)}
    routes = {"/v1" + route.replace("{image_id}", "{id}") for route in found}
    assert len(routes) > 5
    assert {route for route in routes if route not in text} == set()
