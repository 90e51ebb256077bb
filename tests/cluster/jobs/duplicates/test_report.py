"""The report shows groups and marks what differs, names what to delete, and deletes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from cluster.jobs.duplicates.report import write_contact_sheet, write_report
from indexes.duplicates.levels import LEVELS
from indexes.store.base import Store
from indexes.store.memory.store import MemoryStore
from models.types import FileFacts
from tests.drawing import jpeg
from tests.indexes.duplicates.collection import add, add_pairs, pair


@pytest.fixture
def store() -> Iterator[Store]:
    store = MemoryStore()
    facts = FileFacts("JPEG", 2**20)
    for at in range(7):
        add(store, at, "a" if at < 2 else "", preview=jpeg(at), facts=facts)
    store.put_many([])
    add(store, 7, "<script>", preview=None, upload_name="<b>&.jpg", facts=facts)
    regions = (((100, 200, 300, 400), (1, 2, 3, 4)),)
    add_pairs(
        store,
        pair(store, 0, 1, "bytes"),
        pair(store, 2, 3, "edited", regions=regions, confidence=0.4),
        pair(store, 3, 4, "edited"),
        pair(store, 5, 7, "crop"),
    )
    yield store
    store.close()


def test_the_report_is_one_file_with_the_pictures_and_what_differs(
    store: Store, tmp_path: Path
) -> None:
    written = write_report(store, tmp_path / "report", ["bytes"])
    page = written.html.read_text()
    assert page.count("data:image/jpeg;base64,") == 5
    assert not re.search(r"(src|href)=\"?(http|/)", page)
    assert '<rect x="100" y="200" width="300" height="400"/>' not in page
    assert '<rect x="1" y="2" width="3" height="4"/>' in page
    assert '<svg viewBox="0 0 3997 2997"' in page
    assert page.count("class=best") == 3
    assert "&lt;b&gt;&amp;.jpg" in page
    assert "no preview" in page
    assert "<script" not in page
    assert store.count() == 8


def test_what_the_page_leaves_out_is_said_and_is_in_the_json(store: Store, tmp_path: Path) -> None:
    written = write_report(store, tmp_path, ["bytes"], shown=1)
    assert written.left_out == 2
    assert "2 groups are not shown" in written.html.read_text()
    said = orjson.loads(written.json.read_bytes())
    assert [one["level"] for one in said["groups"]] == ["bytes", "crop", "edited"]
    assert said["levels"]["edited"] == {"groups": 1, "images": 2, "bytes": 2**20}
    assert said["groups"][2]["best"] == 2


def test_ids_to_delete_are_all_but_the_best_of_the_levels_that_were_named(
    store: Store, tmp_path: Path
) -> None:
    assert write_report(store, tmp_path, ["bytes"]).ids.read_text() == "1\n"
    assert write_report(store, tmp_path, LEVELS).ids.read_text() == "1\n7\n3\n"
    assert write_report(store, tmp_path, []).ids.read_text() == ""


def test_nothing_is_deleted_with_its_best_copy(store: Store, tmp_path: Path) -> None:
    add(store, 8, preview=jpeg(8))
    add_pairs(store, pair(store, 2, 3, "reencode"), pair(store, 3, 8, "crop"))
    written = write_report(store, tmp_path, LEVELS)
    doomed = {int(at) for at in written.ids.read_text().split()}
    assert 3 in doomed
    assert 8 not in doomed


def test_a_contact_sheet_shows_pairs_at_random_and_the_least_sure(
    store: Store, tmp_path: Path
) -> None:
    assert write_contact_sheet(store, tmp_path / "sheet.html", "edited") == 2
    page = (tmp_path / "sheet.html").read_text()
    assert "The least sure: 1" in page
    assert "confidence 0.40" in page
    for at in range(100, 300, 2):
        add(store, at)
        add(store, at + 1)
        add_pairs(store, pair(store, at, at + 1, "resize", confidence=at / 1000))
    assert write_contact_sheet(store, tmp_path / "sheet.html", "resize") == 70
    page = (tmp_path / "sheet.html").read_text()
    assert "100 pairs are resize" in page
    assert page.index("confidence 0.10") < page.index("At random: 50")
    other = tmp_path / "other.html"
    write_contact_sheet(store, other, "resize", seed=1)
    assert other.read_text() != page
