"""Adding pictures by dropping them."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.deployments.page.conftest import Opener
from tests.deployments.page.drive import dropped, tiles
from tests.deployments.page.site import Site
from tests.deployments.pictures import picture, resized


def test_an_empty_collection_invites_and_takes_what_is_dropped(
    open_page: Opener, empty_site: Site
) -> None:
    page = open_page(empty_site.url)
    expect(page.locator(".invite")).to_contain_text("Drop pictures")
    dropped(page, ("sea.jpg", picture(1)))
    dialog = page.get_by_role("dialog", name="Add pictures")
    expect(dialog.locator("li")).to_contain_text("sea.jpg")
    expect(dialog.locator("li")).to_contain_text("added as")
    dropped(page, ("copy.jpg", resized(1)), ("bad.jpg", b"no picture"), ("hill.jpg", picture(2)))
    expect(dialog.get_by_role("status")).to_have_text(
        "4 of 4 pictures, 2 added, 1 there already, 1 failed"
    )
    expect(dialog.locator("li.known")).to_contain_text("there already, as sea.jpg")
    expect(dialog.locator("li.bad")).to_contain_text("no picture of an accepted format")
    dialog.get_by_role("button", name="Done").click()
    expect(tiles(page)).to_have_count(2)
    with empty_site.client() as client:
        rows = client.get("/v1/images").json()["images"]
    assert sorted(row["upload_name"] for row in rows) == ["hill.jpg", "sea.jpg"]
