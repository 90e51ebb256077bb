"""No view violates what axe-core checks, in light and dark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.deployments.page.conftest import MIRRORED, Opener
from tests.deployments.page.drive import choose, tile
from tests.deployments.page.site import Site
from tests.deployments.pictures import picture

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def browsing(page: Page) -> None:
    expect(page.locator("#found .tile a").first).to_be_visible()


def results(page: Page) -> None:
    choose(page, picture(1))
    expect(tile(page, MIRRORED)).to_be_visible()
    for name in ("Numbers", "Advanced"):
        page.get_by_role("button", name=name).click()
    page.locator("summary", has_text="Unlikely").click()
    expect(page.locator("#timings li").first).to_be_visible()


def filtered(page: Page) -> None:
    page.goto(f"{page.url}#/search?words=lantern&tags=0&larger=yes")
    page.get_by_role("button", name="Filters").click()
    expect(page.locator("#found .notice, #found .tile").first).to_be_visible()


def comparison(page: Page) -> None:
    results(page)
    tile(page, MIRRORED).get_by_role("button").click()
    expect(page.locator(".layer:not(.unknown)")).to_have_count(2)


def adding(page: Page) -> None:
    page.get_by_role("button", name="Add pictures").click()


def keys(page: Page) -> None:
    page.get_by_role("button", name="Keys").click()


def state(page: Page) -> None:
    page.get_by_role("link", name="State").click()
    page.get_by_role("button", name="Run a test search").click()
    expect(page.get_by_text("found itself")).to_be_visible()


def check(page: Page) -> None:
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("view", [browsing, results, filtered, comparison, adding, keys, state])
def test_axe_finds_no_violation(
    open_page: Opener, served_site: Site, view: Callable[[Page], None]
) -> None:
    page = open_page(served_site.url)
    view(page)
    check(page)


def test_axe_finds_no_violation_where_duplicates_are_decided(
    duplicates: tuple[Page, Site],
) -> None:
    page, _ = duplicates
    expect(page.locator(".merge")).to_contain_text("takes over")
    for panel in ("Rules", "History"):
        page.get_by_role("button", name=panel).click()
        expect(page.locator(".panel-body")).not_to_contain_text("Reading")
        check(page)
