"""Comparing two pictures: both in one frame, in five ways."""

from __future__ import annotations

import re

import pytest
from PIL import ImageDraw
from playwright.sync_api import Locator, Page, expect

from tests.deployments.page.conftest import CROP, MIRRORED, Opener
from tests.deployments.page.drive import choose, pinched, tile
from tests.deployments.page.site import Site
from tests.deployments.pictures import picture
from tests.drawing import encoded, scene

Box = dict[str, float]


@pytest.fixture
def compared(page: Page) -> Page:
    """The comparison of scene 1 with its mirror image, open."""
    choose(page, picture(1))
    tile(page, MIRRORED).get_by_role("button").click()
    expect(page.get_by_role("dialog", name="Compare")).to_be_visible()
    expect(page.get_by_role("heading", level=2).last).to_contain_text("mirrored")
    expect(page.locator(".layer:not(.unknown)")).to_have_count(2)
    return page


def box_of(layer: Locator) -> Box:
    box = layer.bounding_box()
    assert box is not None
    return dict(box)


def relative(layer: Locator) -> tuple[float, ...]:
    """Where a layer lies in its pane: left, top, width and height in pixels."""
    box, pane = box_of(layer), box_of(layer.locator("xpath=ancestor::*[@class='pane']"))
    return (box["x"] - pane["x"], box["y"] - pane["y"], box["width"], box["height"])


def assert_same_place(layers: Locator, pixels: float = 4) -> None:
    one, other = relative(layers.nth(0)), relative(layers.nth(1))
    assert one == pytest.approx(other, abs=pixels)


def test_a_mirror_image_is_turned_so_that_both_lie_over_each_other(compared: Page) -> None:
    layers = compared.locator(".layer")
    assert_same_place(layers)
    across = layers.nth(1).evaluate("one => new DOMMatrix(getComputedStyle(one).transform).m11")
    assert across == pytest.approx(-1, abs=0.02)
    compared.get_by_label("Aligned").uncheck()
    assert layers.nth(1).evaluate("one => new DOMMatrix(getComputedStyle(one).transform).m11") == 1


def test_a_crop_lies_where_it_was_cut_out(page: Page) -> None:
    choose(page, picture(1))
    tile(page, CROP).get_by_role("button").click()
    page.keyboard.press("2")
    query, crop = page.locator(".pane .layer").nth(1), page.locator(".pane .layer").nth(0)
    expect(crop).to_have_attribute("data-id", str(CROP))
    whole, part = box_of(query), box_of(crop)
    scale = whole["width"] / 640
    expected = (100 * scale, 60 * scale, 400 * scale, 360 * scale)
    seen = (part["x"] - whole["x"], part["y"] - whole["y"], part["width"], part["height"])
    assert seen == pytest.approx(expected, abs=5)


def test_the_other_picture_shows_while_the_key_is_held(compared: Page) -> None:
    compared.keyboard.press("2")
    top = compared.locator(".top-layer")
    expect(top).to_be_visible()
    compared.keyboard.down(" ")
    expect(top).to_be_hidden()
    compared.keyboard.up(" ")
    expect(top).to_be_visible()


def test_the_curtain_is_drawn_by_the_keyboard(compared: Page) -> None:
    compared.keyboard.press("3")
    slider = compared.get_by_label("Place of the curtain")
    before = compared.locator(".top-layer").evaluate("one => one.style.clipPath")
    slider.focus()
    compared.keyboard.press("End")
    assert compared.locator(".top-layer").evaluate("one => one.style.clipPath") != before


def test_what_was_changed_is_boxed_in_the_difference(page: Page) -> None:
    changed = scene(2).copy()
    ImageDraw.Draw(changed).rectangle([380, 60, 560, 260], fill=(250, 20, 20))
    choose(page, encoded(changed))
    tile(page, 2).get_by_role("button").click()
    page.keyboard.press("4")
    box = box_of(page.locator(".changed"))
    frame = box_of(page.locator(".frame"))
    scale = frame["width"] / 640
    middle = (box["x"] - frame["x"] + box["width"] / 2, box["y"] - frame["y"] + box["height"] / 2)
    assert middle == pytest.approx((470 * scale, 160 * scale), abs=25 * scale)
    expect(page.locator(".stage-note")).to_have_text("1 changed region")


def test_matched_points_are_joined(compared: Page) -> None:
    compared.keyboard.press("5")
    expect(compared.locator(".stage-note")).to_contain_text("matched points")
    drawn = compared.locator("canvas.lines").evaluate(
        "one => one.getContext('2d').getImageData(0, 0, one.width, one.height)"
        ".data.some(value => value > 0)"
    )
    assert drawn


def test_both_are_zoomed_together_and_the_zoom_stays_for_the_next_pair(compared: Page) -> None:
    fitted = relative(compared.locator(".layer").first)
    compared.mouse.move(300, 400)
    compared.mouse.wheel(0, -600)
    compared.wait_for_function(
        f"document.querySelector('.layer').getBoundingClientRect().width > {1.5 * fitted[2]}"
    )
    assert_same_place(compared.locator(".layer"))
    scale = compared.locator(".frame").first.evaluate("one => one.style.transform")
    heading = compared.get_by_role("heading", level=2).last
    before = heading.text_content()
    compared.keyboard.press("ArrowRight")
    expect(heading).not_to_have_text(before or "")
    expect(compared.locator(".layer:not(.unknown)")).to_have_count(2)
    zoomed = compared.locator(".frame").first.evaluate("one => one.style.transform")
    assert scale.partition("scale")[2] == zoomed.partition("scale")[2]


def test_a_pinch_zooms_both_and_the_zoom_stays_for_the_next_pair(
    open_page: Opener, served_site: Site
) -> None:
    page = open_page(served_site.url, has_touch=True)
    choose(page, picture(1))
    tile(page, MIRRORED).get_by_role("button").click()
    layers = page.locator(".layer:not(.unknown)")
    expect(layers).to_have_count(2)
    fitted = relative(layers.first)
    pane = box_of(page.locator(".pane").first)
    pinched(page, pane["x"] + pane["width"] / 2, pane["y"] + pane["height"] / 2, by=2)
    expect(page.locator(".frame").first).to_have_attribute("style", re.compile("scale"))
    assert relative(layers.first)[2] == pytest.approx(2 * fitted[2], rel=0.02)
    assert_same_place(layers)
    heading = page.get_by_role("heading", level=2).last
    before = heading.text_content()
    page.get_by_role("button", name="Next").tap()
    expect(heading).not_to_have_text(before or "")
    expect(layers).to_have_count(2)
    assert relative(layers.first)[2] == pytest.approx(2 * fitted[2], rel=0.02)


def test_pictures_that_have_nothing_in_common_have_no_changed_regions(page: Page) -> None:
    choose(page, picture(1))
    page.locator("summary", has_text="Unlikely").click()
    tile(page, 5).get_by_role("button").click()
    page.keyboard.press("4")
    expect(page.locator(".stage-note")).to_have_text(
        "Nothing aligns: both are fitted to one frame."
    )


def test_back_and_escape_close_it_and_leave_the_results(compared: Page) -> None:
    compared.go_back()
    expect(compared.get_by_role("dialog", name="Compare")).to_be_hidden()
    expect(tile(compared, MIRRORED).get_by_role("button")).to_be_focused()
    compared.keyboard.press("c")
    expect(compared.get_by_role("dialog", name="Compare")).to_be_visible()
    compared.keyboard.press("Escape")
    expect(compared.get_by_role("dialog", name="Compare")).to_be_hidden()
    expect(tile(compared, MIRRORED)).to_be_visible()
