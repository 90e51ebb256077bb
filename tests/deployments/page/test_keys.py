"""A service that wants an API key."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.deployments.page.conftest import Opener
from tests.deployments.page.drive import choose, tile
from tests.deployments.page.site import Site
from tests.deployments.pictures import mirrored


def test_a_key_is_asked_for_until_it_is_right_and_sent_for_thumbnails_too(
    open_page: Opener, locked_site: Site
) -> None:
    page = open_page(locked_site.url)
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("Key", exact=True).fill("wrong")
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_contain_text("That key was not accepted")
    dialog.get_by_label("Key", exact=True).fill("secret")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(tile(page, 1).locator("img")).to_have_attribute("src", re.compile("^blob:"))
    page.wait_for_function("document.querySelector('.tile img').naturalWidth > 0")
    page.reload()
    choose(page, mirrored(1))
    expect(tile(page, 1)).to_contain_text("mirrored")


def test_without_a_key_the_page_says_that_one_is_needed(
    open_page: Opener, locked_site: Site
) -> None:
    page = open_page(locked_site.url)
    page.get_by_role("button", name="Not now").click()
    expect(page.get_by_role("alert")).to_contain_text("An API key is needed")
