"""The search page, as served and in a real browser where the machine has one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, Route, expect, sync_playwright

from deployments.page.routes import PAGE
from tests.conftest import Service
from tests.deployments.pictures import mirrored
from tests.drawing import encoded, scene

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
POLICY = "Content Security Policy"
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


def test_the_page_is_served_at_the_root(shared_service_client: httpx.Client) -> None:
    answer = shared_service_client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.content == PAGE.read_bytes()


def test_the_page_loads_nothing_from_elsewhere() -> None:
    text = PAGE.read_text()
    assert "http://" not in text
    assert "https://" not in text


@pytest.fixture
def page(shared_service: Service) -> Iterator[Page]:
    """The open page; an error in its script, or what its policy refuses, fails the test."""
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if POLICY in said.text else None)
        page.goto(shared_service.url)
        yield page
        browser.close()
    assert errors == []


def choose(page: Page, file: bytes) -> None:
    picture = FilePayload(name="picture.jpg", mimeType="image/jpeg", buffer=file)
    page.locator("#file").set_input_files(picture)


def held_back(page: Page, pattern: str) -> list[Route]:
    """Hold back the page's requests that match the pattern; return them as they arrive."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(pattern, hold)
    return held


@needs_browser
def test_a_chosen_picture_shows_what_is_like_it_and_why(
    library: httpx.Client,  # noqa: ARG001
    page: Page,
) -> None:
    expect(page.get_by_role("status")).to_have_text("10 pictures are indexed.")
    expect(page.locator("#retrievers input:checked")).to_have_count(3)
    choose(page, mirrored(4))
    first = page.locator("#hits li").first
    expect(first.locator("b")).to_have_text("4")
    expect(first).to_contain_text("99 % sure")
    expect(first).to_contain_text("the same picture, mirrored")
    expect(first).to_contain_text("inliers, mirrored")
    expect(page.locator("#hits li")).to_have_count(1)
    page.locator("#unlikely").check()
    expect(page.locator("#hits li")).to_have_count(10)
    first.get_by_role("button", name="more like this").click()
    expect(page.locator("#hits li").first).to_contain_text("distance 0")


@needs_browser
def test_a_picture_that_is_not_there_finds_nothing_and_says_so(
    library: httpx.Client,  # noqa: ARG001
    page: Page,
) -> None:
    expect(page.locator("#retrievers input:checked")).to_have_count(3)
    choose(page, encoded(scene(77)))
    expect(page.get_by_role("status")).to_contain_text("Nothing that is likely the same.")
    expect(page.locator("#hits li")).to_have_count(0)


@needs_browser
def test_a_file_that_is_no_picture_is_told_so(page: Page) -> None:
    choose(page, b"no picture")
    expect(page.locator("#note.error")).to_contain_text("no picture of an accepted format")


@needs_browser
def test_a_picture_chosen_before_the_retrievers_are_listed_is_searched_once_they_are(
    library: httpx.Client,  # noqa: ARG001
    page: Page,
) -> None:
    held = held_back(page, "**/v1/retrievers")
    page.reload()
    choose(page, mirrored(4))
    expect(page.get_by_role("status")).to_be_empty()
    held.pop().continue_()
    expect(page.locator("#hits li").first.locator("b")).to_have_text("4")


@needs_browser
def test_a_failed_list_of_retrievers_is_told_and_asked_for_again_by_the_next_search(
    library: httpx.Client,  # noqa: ARG001
    page: Page,
) -> None:
    page.route("**/v1/retrievers", lambda route: route.abort())
    page.reload()
    expect(page.locator("#note.error")).to_contain_text("Failed to fetch")
    page.unroute("**/v1/retrievers")
    choose(page, mirrored(4))
    expect(page.locator("#hits li").first.locator("b")).to_have_text("4")


@needs_browser
def test_only_the_answer_of_the_latest_search_is_shown(
    library: httpx.Client,  # noqa: ARG001
    page: Page,
) -> None:
    expect(page.locator("#retrievers input:checked")).to_have_count(3)
    held = held_back(page, "**/v1/search")
    with page.expect_request("**/v1/search"):
        choose(page, mirrored(4))
    with page.expect_request("**/v1/search"):
        page.locator("#unlikely").check()
    for route in reversed(held):
        with page.expect_response("**/v1/search"):
            route.continue_()
    expect(page.locator("#hits li")).to_have_count(10)
