"""Deciding on duplicates, and taking a decision back."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.deployments.page.conftest import CROP, MIRRORED, SMALL, Opener
from tests.deployments.page.site import Site, plant_duplicates, site
from tests.deployments.pictures import picture


def stored(made: Site) -> set[int]:
    with made.client() as client:
        return {row["image_id"] for row in client.get("/v1/images").json()["images"]}


def test_groups_come_strict_first_with_what_differs_and_why_one_is_better(
    duplicates: tuple[Page, Site],
) -> None:
    page, _ = duplicates
    heading = page.locator(".group-head h2")
    expect(heading).to_have_text("Another size")
    table = page.locator(".differences")
    expect(table.locator("th", has_text="Better")).to_contain_text("most pixels: 640×480")
    expect(table.get_by_role("row", name="Size")).to_contain_text("640 × 480")
    expect(table.get_by_role("row", name="Format")).to_have_count(0)
    expect(page.locator(".merge")).to_contain_text("Keep left: it takes over the tag boat.")
    page.keyboard.press("l")
    expect(heading).to_have_text("Turned or mirrored")
    page.get_by_role("link", name="Crops").click()
    expect(heading).to_have_text("Crops")
    expect(page).to_have_url(re.compile("level=crop"))


def test_a_decision_deletes_shows_the_next_group_and_can_be_undone(
    duplicates: tuple[Page, Site],
) -> None:
    page, made = duplicates
    heading = page.locator(".group-head h2")
    expect(heading).to_have_text("Another size")
    with page.expect_response("**/v1/duplicates/decisions"):
        page.keyboard.press("ArrowLeft")
    expect(heading).to_have_text("Turned or mirrored")
    assert stored(made) == {1, MIRRORED, CROP}
    with page.expect_response("**/v1/duplicates/decisions/*"):
        page.keyboard.press("u")
    expect(heading).to_have_text("Another size")
    assert stored(made) == {1, SMALL, MIRRORED, CROP}


def test_an_earlier_decision_is_undone_from_the_history(duplicates: tuple[Page, Site]) -> None:
    page, made = duplicates
    for text in ("Keep right", "Different"):
        with page.expect_response("**/v1/duplicates/decisions"):
            page.get_by_role("button", name=text).click()
    assert stored(made) == {SMALL, MIRRORED, CROP}
    page.get_by_role("button", name="History").click()
    kept = page.locator(".history li", has_text="Deleted #1, kept").locator("img")
    expect(kept).to_have_attribute("data-id", str(SMALL))
    page.get_by_role("button", name=re.compile("Undo: Deleted #1, kept")).click()
    expect(page.get_by_text("undone")).to_be_visible()
    expect(page.locator(".group-head h2")).to_have_text("Another size")
    assert stored(made) == {1, SMALL, MIRRORED, CROP}


def test_a_click_on_a_picture_deletes_nothing(duplicates: tuple[Page, Site]) -> None:
    page, made = duplicates
    layer = page.locator(".layer").first
    expect(layer).to_be_visible()
    layer.click()
    layer.dblclick()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    assert stored(made) == {1, SMALL, MIRRORED, CROP}


def test_a_decision_that_fails_brings_the_group_back(duplicates: tuple[Page, Site]) -> None:
    page, made = duplicates
    heading = page.locator(".group-head h2")
    expect(heading).to_have_text("Another size")
    page.route("**/v1/duplicates/decisions", lambda route: route.abort())
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("Not decided: The service does not answer.")).to_be_visible()
    expect(heading).to_have_text("Another size")
    assert stored(made) == {1, SMALL, MIRRORED, CROP}


def test_when_all_is_decided_the_page_says_so(duplicates: tuple[Page, Site]) -> None:
    page, _ = duplicates
    for heading in ("Another size", "Turned or mirrored", "Crops"):
        expect(page.locator(".group-head h2")).to_have_text(heading)
        with page.expect_response("**/v1/duplicates/decisions"):
            page.keyboard.press("b")
    expect(page.locator(".notice")).to_contain_text("Nothing is left to decide.")


def test_the_order_of_what_is_better_is_changed(duplicates: tuple[Page, Site]) -> None:
    page, made = duplicates
    page.get_by_role("button", name="Rules").click()
    with page.expect_response("**/v1/duplicates/rules/best"):
        page.get_by_role("button", name="pixels down").click()
    with made.client() as client:
        assert client.get("/v1/duplicates/rules").json()["best"][1] == "pixels"
    expect(page.get_by_role("region", name="Automatic levels")).to_contain_text(
        "would decide 1 group"
    )


def test_a_collection_that_was_not_searched_for_duplicates_names_the_command(
    open_page: Opener, served_site: Site
) -> None:
    page = open_page(f"{served_site.url}/#/duplicates")
    expect(page.locator(".notice")).to_contain_text("ambience duplicates")


def test_many_groups_come_page_by_page_and_the_next_three_are_ready_before_they_are_shown(
    open_page: Opener, tmp_path: Path
) -> None:
    groups, pages = 30, 3
    with site(tmp_path, "phash") as made:
        plant_duplicates(made.gateway.store, groups, [picture(at) for at in range(7)])
        page = open_page("about:blank")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(made.url)))
        page.goto(f"{made.url}/#/duplicates")
        heading, count = page.locator(".group-head"), page.locator(".duplicates-levels .count")
        expect(heading).to_contain_text("30 groups to decide")
        expect(page.locator(".layer:not(.unknown)")).to_have_count(2)
        page.wait_for_load_state("networkidle")
        previews = {path for path in asked if path.endswith("/thumbnail")}
        assert previews == {f"/v1/images/{at}/thumbnail" for at in range(8)}
        assert asked.count("/v1/compare") == 4
        assert sum(path.startswith("/v1/duplicates?") for path in asked) == 1
        for number in range(groups):
            layer = page.locator(".layer").first
            expect(layer).to_have_attribute("data-id", str(2 * number))
            page.keyboard.press("b")
            if number + 1 < groups:
                expect(count.first).to_have_text(str(groups - 1 - number))
        expect(page.locator("#view-duplicates .notice")).to_contain_text("Nothing is left")
        assert sum(path.startswith("/v1/duplicates?") for path in asked) == pages


def test_a_decision_shows_the_next_group_at_once(open_page: Opener, tmp_path: Path) -> None:
    with site(tmp_path, "phash") as made:
        plant_duplicates(made.gateway.store, 6, [picture(at) for at in range(7)])
        page = open_page(f"{made.url}/#/duplicates")
        expect(page.locator(".layer:not(.unknown)")).to_have_count(2)
        page.wait_for_load_state("networkidle")
        page.route("**/v1/duplicates/decisions", lambda _: None)
        for following in (2, 4, 6):
            page.keyboard.press("b")
            # Nothing is answered: what is shown was there before.
            shown = page.locator(".layer:not(.unknown)")
            expect(shown).to_have_count(2)
            expect(shown.first).to_have_attribute("data-id", str(following))
            expect(shown.first).to_have_js_property("complete", True)
            assert shown.first.evaluate("one => one.naturalWidth") > 0
        page.unroute_all(behavior="ignoreErrors")
