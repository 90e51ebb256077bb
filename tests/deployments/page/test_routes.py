"""The page's files as they are served."""

from __future__ import annotations

import re
import tomllib

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployments.page import routes
from deployments.page.routes import PAGE, STATIC
from tests.conftest import ROOT

LIMIT = 200_000
LINK = re.compile(r'(?:href|src)="(static/[^"]+)"')


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.include_router(routes.router)
    return TestClient(app)


def test_the_page_is_served_under_a_policy_that_allows_its_own_files_only(
    client: TestClient,
) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


def test_every_file_that_the_page_links_is_there_and_may_be_kept(client: TestClient) -> None:
    links = LINK.findall(client.get("/").text)
    assert len(links) > 10
    for link in links:
        answer = client.get(link)
        assert answer.status_code == 200, link
        assert "immutable" in answer.headers["cache-control"]
        kind = {"js": "javascript", "css": "css", "svg": "svg"}[link.rpartition(".")[2]]
        assert kind in answer.headers["content-type"]


def test_every_module_is_preloaded(client: TestClient) -> None:
    linked = client.get("/").text
    modules = [path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*.js")]
    assert [name for name in modules if f'/{name}"' not in linked] == []


def test_unchanged_files_are_not_sent_again(client: TestClient) -> None:
    link = LINK.findall(client.get("/").text)[0]
    for path in ("/", link):
        tag = client.get(path).headers["etag"]
        again = client.get(path, headers={"If-None-Match": tag})
        assert again.status_code == 304
        assert again.content == b""


def test_a_file_of_another_version_is_not_kept(client: TestClient) -> None:
    answer = client.get("/static/old/main.js")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["none.js", "index.html", "../routes.py", "%2e%2e/routes.py"])
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/static/x/{name}").status_code == 404


def test_the_page_loads_nothing_from_elsewhere_and_has_no_script_or_style_of_its_own() -> None:
    for path in STATIC.rglob("*.*"):
        outside = re.findall(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text())
        assert outside == [], path
    text = PAGE.read_text()
    assert re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", text) == []


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.rglob("*") if path.is_file()) < LIMIT


def test_an_installed_wheel_has_every_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["deployments.page"]
    files = [path.relative_to(STATIC.parent) for path in STATIC.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if not any(map(path.match, patterns))] == []
