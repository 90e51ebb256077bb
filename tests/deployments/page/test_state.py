"""The state view."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from deployments.jobs import CANCEL, RunningJob
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


def test_a_running_job_shows_how_far_it_is_and_can_be_cancelled(
    open_page: Opener, served_site: Site
) -> None:
    store = served_site.gateway.store
    job = RunningJob(store, "backfill", "~/Pictures")
    job.begin("read", 200)
    job.update(50)
    page = open_page(f"{served_site.url}/#/state")
    row = page.locator(".jobs li", has_text="~/Pictures")
    expect(row).to_contain_text("50 of 200")
    row.get_by_role("button", name="Cancel backfill").click()
    expect(row).to_contain_text("Ending")
    assert store.record(CANCEL, job.status.job_id) is not None
    job.end("cancelled")
    expect(row.locator(".badge")).to_have_text("cancelled")


def test_the_collection_says_what_it_takes_and_how_it_grows(
    open_page: Opener, served_site: Site
) -> None:
    page = open_page(f"{served_site.url}/#/state")
    summary = page.locator(".facts-row")
    expect(summary).to_contain_text("12pictures")
    expect(summary).to_contain_text(re.compile(r"[\d.]+ MBon disk, \d+ [GT]B free"))
    expect(summary).to_contain_text(re.compile(r"[\d.]+ kB of previews, [\d.]+ k?B of snapshots"))
    expect(page.locator(".growth")).to_contain_text("today+12")
    bars = page.get_by_role("img", name="Pictures added in the last 30 days: 12, at most 12 a day")
    heights = bars.locator("span").evaluate_all("all => all.map(one => one.offsetHeight)")
    assert len(heights) == 30
    assert max(heights) == heights[-1] > 10
    assert sum(heights) == heights[-1]


def test_a_test_search_finds_its_own_image(open_page: Opener, served_site: Site) -> None:
    page = open_page(f"{served_site.url}/#/state")
    page.get_by_role("button", name="Run a test search").click()
    expect(page.get_by_text("found itself among 12 pictures")).to_be_visible()
    page.get_by_role("link", name="See the results").click()
    expect(page).to_have_url(re.compile("like="))
