"""Deciding on duplicates in a browser: `python -m benchmarks.page --groups 100000`.

A store is filled with that many groups of two images and served in this process; a headless
Chromium presses keys. Times count from a key to the next two pictures on the screen, with pauses
as of a person, and without.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.deployments.page.conftest import BROWSER
from tests.deployments.page.site import plant_duplicates, site
from tests.drawing import encoded, scene

PAUSE_MS, SETTLED_MS = 700, 3000
DECIDE = """async key => {
    const layers = () => [...document.querySelectorAll("#view-duplicates .layer")];
    const shown = () => layers().map(one => one.dataset.id).join();
    const before = shown(), began = performance.now();
    document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    while (shown() === before || !layers().every(one => one.complete && one.naturalWidth))
        await new Promise(resolve => setTimeout(resolve, 1));
    return performance.now() - began;
}"""


def decide(page: Page, decisions: int, pause: float) -> None:
    """Decide, every third time by a deletion, and print the times."""
    times = []
    for number in range(decisions):
        times.append(page.evaluate(DECIDE, "d" if number % 3 else "ArrowLeft"))
        page.wait_for_timeout(pause)
    slowest = statistics.quantiles(times, n=20)[-1]
    print(f"pause {pause} ms: median {statistics.median(times):.0f} ms, 95 % {slowest:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--decisions", type=int, default=60)
    given = parser.parse_args()
    folder = tempfile.TemporaryDirectory()
    os.environ["AMBIENCE_DATA"] = folder.name
    jpegs = [encoded(scene(seed).resize((160, 120)), quality=60) for seed in range(40)]
    with folder, site(Path(folder.name), "phash") as made:
        plant_duplicates(made.gateway.store, given.groups, jpegs)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
            page, began = browser.new_page(), time.perf_counter()
            page.goto(f"{made.url}/#/duplicates")
            page.locator("#view-duplicates .differences").wait_for()
            print(f"first group after {time.perf_counter() - began:.1f} s")
            page.wait_for_timeout(SETTLED_MS)
            for pause in (PAUSE_MS, 0):
                decide(page, given.decisions, pause)
            browser.close()


if __name__ == "__main__":
    main()
