"""What proposes copies of pictures without edges, with retrievers that run in this process."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from deployments.ingress.adding import AddOptions
from deployments.ingress.banning import delete_and_remember
from deployments.ingress.copies import find_copies
from deployments.ingress.fused import fused_search
from deployments.ingress.gateway import Gateway
from deployments.ingress.relating import NEAREST_COLORS
from deployments.ingress.report import Report
from deployments.queries import SearchQuery
from tests.drawing import encoded, scene

pytestmark = pytest.mark.anyio

STORED, ASKED = (97, 80, 126), (95, 81, 128)
"""One colour before and after a re-encode: red and blue are in other cells of the histogram."""


async def filled(gateway: Gateway) -> None:
    """Store a plain picture, 7, and more pictures than colour proposes that share the cell of the
    query."""
    files = {7: encoded(Image.new("RGB", (320, 240), STORED), "PNG")}
    for seed in range(NEAREST_COLORS + 2):
        image = scene(seed, 160, 120)
        image.paste(ASKED, (0, 0, 160, 40))
        files[100 + seed] = encoded(image, "PNG")
    for image_id, data in files.items():
        await gateway.writer.add(image_id, data, Report(), AddOptions())


def asked() -> bytes:
    noise = np.random.default_rng(1).integers(0, 2, (240, 320, 1), np.uint8)
    return encoded(Image.fromarray(np.array(ASKED, np.uint8) + noise), "PNG")


async def test_a_plain_picture_is_found_when_its_colour_moved_over_the_edge_of_a_cell(
    copying: Gateway,
) -> None:
    await filled(copying)
    page = await fused_search(copying, SearchQuery(), [asked()], Report())
    (first, *_) = page.hits
    assert (first.image_id, first.verified, first.relation and first.relation.kind) == (
        7,
        True,
        "same",
    )
    copies = await find_copies(copying, asked(), Report(), time.monotonic() + 20)
    assert copies is not None
    assert [copy.hit.image_id for copy in copies] == [7]
    # Among as many remembered pictures that share the cell, too.
    for image in copying.store.images():
        await delete_and_remember(copying, image.image_id, "")
    assert await find_copies(copying, asked(), Report(), time.monotonic() + 20) is None
