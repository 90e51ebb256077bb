"""The state view."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.deployments.page.conftest import Opener
from tests.deployments.page.site import Site


def test_every_retriever_is_listed_with_its_state_size_and_what_it_runs_on(
    open_page: Opener, served_site: Site
) -> None:
    page = open_page(f"{served_site.url}/#/state")
    row = page.get_by_role("row", name=re.compile("^phash"))
    expect(row).to_contain_text("Ready")
    expect(row).to_contain_text("12")
    expect(row).to_contain_text("thread")
    expect(page.locator(".facts-row")).to_contain_text("4 of 5")


def test_an_unavailable_retriever_says_why_and_what_to_do(
    open_page: Opener, served_site: Site
) -> None:
    page = open_page(f"{served_site.url}/#/search?like=1")
    quiet = page.locator("#quiet")
    expect(quiet).to_contain_text("Searched without global.")
    quiet.get_by_role("link").click()
    row = page.get_by_role("row", name=re.compile("^global"))
    expect(row).to_contain_text("Unavailable")
    expect(row).to_contain_text("there is no file none.npy of weights")
    expect(row).to_contain_text("ambience weights fetch")


def test_a_test_search_finds_its_own_image(open_page: Opener, served_site: Site) -> None:
    page = open_page(f"{served_site.url}/#/state")
    page.get_by_role("button", name="Run a test search").click()
    expect(page.get_by_text("found itself among 12 pictures")).to_be_visible()
    page.get_by_role("link", name="See the results").click()
    expect(page).to_have_url(re.compile("like="))
