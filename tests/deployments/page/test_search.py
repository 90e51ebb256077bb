"""Searching in a real browser: by picture, by words, by region, and back again."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.deployments.page.conftest import CROP, MIRRORED, SMALL, WORDED, Opener
from tests.deployments.page.drive import choose, dropped, pasted, tile, tiles
from tests.deployments.page.site import Site, plant_duplicates, site
from tests.deployments.pictures import mirrored, picture, put
from tests.drawing import encoded, scene


def tiff(image: Image.Image) -> bytes:
    """The picture in a format that Chromium does not show."""
    file = io.BytesIO()
    image.save(file, "TIFF")
    return file.getvalue()


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    both = Image.new("RGB", (left.width + right.width, left.height))
    both.paste(left)
    both.paste(right, (left.width, 0))
    return both


def held_back(page: Page, pattern: str) -> list[Route]:
    """Hold back the page's requests that match the pattern; return them as they arrive."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(pattern, hold)
    return held


def test_the_bar_is_there_before_any_answer_of_the_service(
    open_page: Opener, served_site: Site
) -> None:
    page = open_page("about:blank")
    held_back(page, "**/v1/**")
    page.goto(served_site.url)
    expect(page.get_by_role("searchbox")).to_be_visible()
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(
        ["Search", "Duplicates", "State"]
    )


def test_a_chosen_picture_gets_a_verdict_and_bands_of_results_that_say_why(page: Page) -> None:
    choose(page, picture(1))
    expect(page.get_by_role("heading", level=2)).to_contain_text("3 copies; 1 crop")
    expect(page.get_by_role("heading", level=3).first).to_have_text("Copies")
    expect(tile(page, MIRRORED)).to_contain_text("mirrored")
    expect(tile(page, CROP)).to_contain_text(re.compile(r"crop 4\d %"))
    assert tile(page, 5).is_visible() is False
    page.locator("summary", has_text="Unlikely").click()
    expect(tile(page, 5)).to_be_visible()


def test_a_crop_of_the_mirror_image_says_both(page: Page) -> None:
    choose(page, mirrored(1))
    expect(tile(page, CROP)).to_contain_text(re.compile(r"crop 4\d %"))
    expect(tile(page, CROP)).to_contain_text("mirrored")


def test_a_dropped_picture_is_searched_by(page: Page) -> None:
    dropped(page, ("mine.jpg", mirrored(4)))
    expect(tile(page, 4)).to_contain_text("mirrored")
    expect(page.get_by_role("heading", level=2)).to_contain_text("1 copy, mirrored")


def test_a_pasted_picture_is_searched_by_also_while_words_are_typed(page: Page) -> None:
    page.get_by_role("searchbox").focus()
    pasted(page, "image.png", mirrored(4))
    expect(tile(page, 4)).to_contain_text("mirrored")
    expect(page.locator("#asked")).to_contain_text("image.png")


def test_a_picture_that_the_browser_can_not_draw_is_shown_measured_and_compared(page: Page) -> None:
    choose(page, tiff(scene(6).resize((1280, 960))), "scan.tif")
    expect(page.get_by_role("heading", level=2)).to_have_text("1 copy, half size")
    asked = page.locator("#asked img")
    expect(asked).to_be_visible()
    assert asked.evaluate("one => one.naturalWidth") == 512
    tile(page, 6).get_by_role("button").click()
    expect(page.locator(".layer:not(.unknown)")).to_have_count(2)
    widths = page.locator(".layer").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert widths == [512, 512]


def test_a_part_of_a_picture_that_the_browser_can_not_draw_is_in_pixels_of_the_whole(
    page: Page,
) -> None:
    choose(page, tiff(beside(scene(5), scene(6))), "scan.tif")
    expect(page.locator("#asked img")).to_be_visible()
    expect(tiles(page).first).to_be_visible()
    page.get_by_role("button", name="Search a part").click()
    for _ in range(15):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("region=0.5"))
    expect(tiles(page).first).to_have_attribute("data-id", "6")


def test_numbers_stand_behind_a_key(page: Page) -> None:
    choose(page, picture(1))
    numbers = tile(page, MIRRORED).locator(".numbers")
    expect(numbers).to_be_hidden()
    page.keyboard.press("n")
    expect(numbers).to_contain_text("inliers")


def test_words_find_the_text_in_an_image_and_say_which(page: Page) -> None:
    page.get_by_role("searchbox").fill("lantern")
    page.keyboard.press("Enter")
    expect(tile(page, WORDED)).to_contain_text("text lantern", ignore_case=True)
    expect(page).to_have_url(re.compile("words=lantern"))


def test_a_click_on_a_result_searches_from_it_and_back_and_forward_work(page: Page) -> None:
    page.get_by_role("searchbox").fill("lantern")
    page.keyboard.press("Enter")
    tile(page, WORDED).locator("a").click()
    expect(page).to_have_url(re.compile(f"like={WORDED}"))
    expect(page.locator("#asked")).to_contain_text(f"Like image {WORDED}")
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("lantern")
    expect(tile(page, WORDED)).to_contain_text("text lantern", ignore_case=True)
    page.go_forward()
    expect(page.locator("#asked")).to_contain_text(f"Like image {WORDED}")


def test_an_uploaded_picture_comes_back_with_the_back_button_but_is_not_in_the_link(
    page: Page,
) -> None:
    choose(page, picture(1))
    expect(tile(page, MIRRORED)).to_be_visible()
    assert "upload" not in page.url
    tile(page, SMALL).locator("a").click()
    expect(page.locator("#asked")).to_contain_text(f"Like image {SMALL}")
    page.go_back()
    expect(page.locator("#asked")).to_contain_text("picture.jpg")
    expect(tile(page, MIRRORED)).to_contain_text("mirrored")


def test_a_link_opens_the_search_that_it_names(open_page: Opener, served_site: Site) -> None:
    page = open_page(f"{served_site.url}/#/search?like=1&tags=0")
    expect(page.locator("#asked")).to_contain_text("Like image 1")
    expect(page.get_by_role("button", name="tag 0")).to_be_visible()
    page.get_by_role("button", name="tag 0").click()
    expect(tile(page, MIRRORED)).to_contain_text("mirrored")


def test_a_link_names_the_part_and_the_weights(open_page: Opener, served_site: Site) -> None:
    link = f"{served_site.url}/#/search?like=1&region=0.2,0.2,0.6,0.6&weights=color:0,local:2"
    with (page := open_page("about:blank")).expect_response("**/v1/search") as answer:
        page.goto(link)
    assert answer.value.headers["x-ambience-answered"] == "local,phash"
    expect(page.locator(".region")).to_be_visible()
    expect(tile(page, 1)).to_contain_text("of it")
    page.get_by_role("button", name="Advanced").click()
    expect(page.get_by_label("Weight of local")).to_have_value("2")


def test_results_by_date_stand_under_their_days(page: Page) -> None:
    choose(page, picture(1))
    expect(tile(page, MIRRORED)).to_be_visible()
    page.get_by_label("Order").select_option("newest")
    expect(page).to_have_url(re.compile("sort=newest"))
    headings = page.get_by_role("heading", level=3)
    expect(headings).to_have_text(re.compile(r"^\w+, \w+ \d+, 20\d\d$"))
    shown = [CROP, SMALL, MIRRORED, 1]
    expect(tiles(page)).to_have_count(len(shown))
    assert [int(one.get_attribute("data-id") or 0) for one in tiles(page).all()] == shown


def test_each_day_has_a_heading_of_its_own_the_newest_first(page: Page, served_site: Site) -> None:
    days = {41: "2019:05:01 10:00:00", 42: "2021:08:30 23:59:59", 43: "2019:05:01 08:00:00"}
    with served_site.client() as client:
        for image_id, taken in days.items():
            exif = Image.Exif()
            exif.get_ifd(0x8769)[0x9003] = taken
            put(client, image_id, encoded(scene(9), quality=60 + image_id % 4 * 8, exif=exif))
        try:
            choose(page, picture(9))
            page.get_by_label("Order").select_option("newest")
            headings = page.get_by_role("heading", level=3)
            expect(headings).to_have_text(["Monday, August 30, 2021", "Wednesday, May 1, 2019"])
            shown = [int(one.get_attribute("data-id") or 0) for one in tiles(page).all()]
            assert shown == [42, 41, 43]
        finally:
            for image_id in days:
                client.delete(f"/v1/images/{image_id}").raise_for_status()


def test_identical_files_are_one_tile_with_a_count_that_opens(
    page: Page, served_site: Site
) -> None:
    twins = (21, 22)
    with served_site.client() as client:
        for twin in twins:
            put(client, twin, picture(2))
        try:
            choose(page, picture(2))
            expect(page.get_by_role("heading", level=2)).to_contain_text("3 copies")
            expect(tiles(page).filter(visible=True)).to_have_count(1)
            page.get_by_role("button", name="Show 2 more").click()
            expect(tiles(page).filter(visible=True)).to_have_count(3)
        finally:
            for twin in twins:
                client.delete(f"/v1/images/{twin}")


def test_words_marks_and_filters_narrow_a_search_down(page: Page) -> None:
    page.get_by_role("searchbox").fill("~1 #0")
    page.keyboard.press("Enter")
    page.locator("summary", has_text="Unlikely").click()
    expect(tile(page, 2)).to_be_visible()
    assert tile(page, 3).count() == 0
    page.get_by_role("searchbox").fill("~")
    page.keyboard.press("Enter")
    page.get_by_role("searchbox").fill('"never closed')
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("quote")


def test_a_box_drawn_on_the_picture_searches_that_part(page: Page) -> None:
    both = scene(3).copy()
    both.paste(scene(6).resize((320, 240)), (320, 240))
    choose(page, encoded(both))
    expect(page.locator(".asked-frame img")).to_be_visible()
    box = page.locator(".asked-frame").bounding_box()
    assert box is not None
    with page.expect_response("**/v1/search"):
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] - 1, steps=4)
        page.mouse.up()
    expect(page).to_have_url(re.compile("region=0.5"))
    expect(tiles(page).first).to_have_attribute("data-id", "6")
    page.get_by_role("button", name="Search the whole picture").click()
    expect(page.locator(".region")).to_be_hidden()


def test_a_part_of_a_stored_image_is_marked_and_searched_by_the_keyboard(
    open_page: Opener, served_site: Site
) -> None:
    page = open_page(f"{served_site.url}/#/search?like=1")
    page.get_by_role("button", name="Search a part").click()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("region=0.23"))
    expect(tile(page, 1)).to_contain_text("of it")


def test_arrow_keys_move_among_the_results(page: Page) -> None:
    choose(page, picture(1))
    expect(tile(page, CROP)).to_be_visible()
    page.get_by_role("searchbox").focus()
    page.keyboard.press("ArrowDown")
    first = page.evaluate("document.activeElement.closest('.tile').dataset.id")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.closest('.tile').dataset.id")
    assert first != second
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"like={second}$"))


def test_nothing_found_is_an_answer_that_says_what_was_compared(page: Page) -> None:
    choose(page, encoded(scene(77)))
    expect(page.get_by_role("heading", level=2)).to_have_text(
        "Nothing found that is likely the same."
    )
    expect(page.locator(".notice")).to_contain_text("Compared with 12 images by")
    page.get_by_role("button", name="See what is nearest").click()
    expect(tiles(page).first).to_be_visible()


def test_a_file_that_is_no_picture_is_told_so_in_words(page: Page) -> None:
    choose(page, b"no picture")
    expect(page.get_by_role("alert")).to_contain_text("no picture of an accepted format")


def test_a_service_that_does_not_answer_is_told_so_and_asked_again(page: Page) -> None:
    page.route("**/v1/search", lambda route: route.abort())
    choose(page, picture(1))
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again").click()
    expect(tile(page, MIRRORED)).to_be_visible()


def test_a_search_gives_way_to_the_next_one(page: Page) -> None:
    held = held_back(page, "**/v1/search")
    with page.expect_request("**/v1/search"):
        choose(page, picture(1))
    with page.expect_event("requestfailed"):
        choose(page, picture(5))
    while len(held) < 2:
        page.wait_for_timeout(10)
    held[1].continue_()
    expect(tile(page, 5)).to_contain_text("the same picture")
    expect(page.locator("#asked img")).to_have_count(1)


def test_a_retriever_that_is_turned_off_is_not_asked(page: Page) -> None:
    choose(page, picture(1))
    expect(tile(page, MIRRORED)).to_be_visible()
    page.get_by_role("button", name="Advanced").click()
    with page.expect_response("**/v1/search") as answer:
        page.get_by_label("Weight of color").fill("0")
    assert answer.value.headers["x-ambience-answered"] == "local,phash"
    expect(page.locator("#timings")).to_contain_text("ms")


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(open_page: Opener, served_site: Site, width: int) -> None:
    page = open_page(served_site.url, viewport={"width": width, "height": 800})
    choose(page, picture(1))
    expect(tile(page, MIRRORED)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("Duplicates", "State"):
        page.get_by_role("link", name=name).click()
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_a_page_of_results_that_is_on_its_way_is_not_asked_for_again(
    open_page: Opener, served_site: Site
) -> None:
    page, held = open_page("about:blank"), list[Route]()

    def first_of_few(route: Route) -> None:
        wish = json.loads(route.request.post_data or "")
        if "cursor" in wish:
            held.append(route)
        else:
            route.continue_(post_data=json.dumps(wish | {"k": 7}))

    page.route("**/v1/search", first_of_few)
    page.goto(f"{served_site.url}/#/search?like=1")
    expect(tile(page, MIRRORED)).to_be_visible()
    while not held:
        page.wait_for_timeout(10)
    page.locator("summary", has_text="Unlikely").click()
    expect(page.locator("details.unlikely .tile").first).to_be_visible()
    page.wait_for_timeout(300)
    assert len(held) == 1
    held[0].continue_()
    expect(tile(page, 5)).to_be_visible()
    assert len(held) == 1


def test_a_large_collection_loads_as_one_scrolls_and_back_leads_to_the_same_place(
    open_page: Opener, tmp_path: Path
) -> None:
    with site(tmp_path, "phash") as made:
        plant_duplicates(made.gateway.store, 150, [picture(at) for at in range(3)])
        page = open_page(made.url, viewport={"width": 900, "height": 600})
        expect(page.get_by_role("heading", level=2)).to_have_text("300 pictures")
        expect(tiles(page).nth(59)).to_be_attached()
        assert tiles(page).count() < 300
        for shown in range(120, 301, 60):
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
            expect(tiles(page).nth(shown - 1)).to_be_attached()
        expect(tiles(page)).to_have_count(300)
        place = page.evaluate("scrollY")
        page.get_by_role("link", name="State").click()
        expect(page.get_by_role("heading", name="Retrievers")).to_be_visible()
        page.go_back()
        expect(tiles(page).first).to_be_attached()
        for _ in range(600):
            if abs(page.evaluate("scrollY") - place) < 50:
                return
            page.wait_for_timeout(50)
        pytest.fail("the place is lost")
