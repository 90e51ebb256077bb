"""One served page and one browser for all tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.deployments.page.site import RETRIEVERS, WITHOUT_WEIGHTS, Site, find_duplicates, site
from tests.deployments.pictures import mirrored, picture, put, resized
from tests.drawing import encoded, scene

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PATIENCE_MS = 60_000
POLICY = "Content Security Policy"
SCENES = range(1, 9)
MIRRORED, SMALL, CROP, WORDED = 11, 12, 13, 14

Opener = Callable[..., Page]


@pytest.fixture(scope="package")
def served_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A page over scenes 1 to 8, and what became of scene 1: mirrored, halved and cropped. Image 14
    has the words RED LANTERN in it. One retriever lacks its weights."""
    folder = tmp_path_factory.mktemp("page")
    with site(folder, *RETRIEVERS, WITHOUT_WEIGHTS) as made, made.client() as client:
        for number in SCENES:
            put(client, number, picture(number), f'{{"tags": ["{number % 2}"]}}')
        put(client, MIRRORED, mirrored(1))
        put(client, SMALL, resized(1))
        put(client, CROP, encoded(scene(1).crop((100, 60, 500, 420))))
        put(client, WORDED, picture(30))
        said = {"annotations": {"ocr": {"text": "RED LANTERN"}}}
        client.patch(f"/v1/images/{WORDED}", json=said).raise_for_status()
        # The first search of a fresh checkout compiles.
        client.post("/v1/search", json={"image_ids": [1]}, timeout=300).raise_for_status()
        yield made


@pytest.fixture(scope="package")
def empty_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A page over an empty collection, with phash only."""
    with site(tmp_path_factory.mktemp("empty"), "phash") as made:
        yield made


@pytest.fixture(scope="package")
def locked_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A page whose service wants the key `secret`; it holds scene 1."""
    folder = tmp_path_factory.mktemp("locked")
    with (
        site(folder, "phash", keys=("secret",)) as made,
        made.client(**{"X-API-Key": "secret"}) as client,
    ):
        put(client, 1, picture(1))
        yield made


@pytest.fixture(scope="package")
def browser(served_site: Site) -> Iterator[Browser]:  # noqa: ARG001
    """A headless Chromium. It starts after the site, because it keeps an event loop running."""
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Opener]:
    """A function that opens pages; an error in their scripts, or what their policy refuses, fails
    the test."""
    errors: list[str] = []
    opened: list[Page] = []

    def start(url: str, **options: object) -> Page:
        page = browser.new_context(reduced_motion="reduce", **options).new_page()  # type: ignore[arg-type]
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if POLICY in said.text else None)
        page.goto(url)
        opened.append(page)
        return page

    yield start
    for page in opened:
        page.context.close()
    assert errors == []


@pytest.fixture
def page(open_page: Opener, served_site: Site) -> Page:
    """The page over the scenes, just opened."""
    return open_page(served_site.url)


@pytest.fixture
def duplicates(
    open_page: Opener, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Page, Site]]:
    """The duplicates view over scene 1, half of it, its mirror image and a crop, as the job has
    found them."""
    with (
        site(tmp_path_factory.mktemp("duplicates"), "phash", "local") as made,
        made.client() as client,
    ):
        put(client, 1, picture(1), '{"tags": ["sea"]}')
        put(client, SMALL, resized(1), '{"tags": ["boat"]}')
        put(client, MIRRORED, mirrored(1))
        put(client, CROP, encoded(scene(1).crop((100, 60, 500, 420))))
        find_duplicates(made)
        yield open_page(f"{made.url}/#/duplicates"), made
