"""Candidates by the vectors of networks, from a checkpoint to the pairs that the job confirms.

The checkpoints are small, with random weights: they show that the code runs from end to end, and
nothing of how well published weights tell copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.jobs.duplicates.following import DuplicateFinder
from cluster.jobs.duplicates.proposers import (
    CLOSE,
    GROWTH,
    VectorProposer,
    first_training,
    make_proposers,
)
from indexes.duplicates.pairs import pairs_of
from indexes.store.base import Space, Store
from indexes.store.lmdb.store import LmdbStore
from models.extractors.sscd import architecture
from models.registry import make_extractor
from tests.cluster.jobs.duplicates.library import add_file
from tests.drawing import encoded, jpeg, scene
from tests.models.extractors.test_clip import TINY, open_network, write_config

SEEDS = range(5)
COPY, OF = 10, 2


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(LmdbStore(tmp_path / "store")) as store:
        yield store


def image_text(folder: Path) -> dict[str, Any]:
    """Return the options of `clip` with a small checkpoint."""
    import torch
    from safetensors.torch import save_file

    write_config(folder, TINY)
    torch.manual_seed(5)
    network = open_network(folder, load_weights=False)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return {"model": str(folder), "precision": "float32"}


def copy(folder: Path) -> dict[str, Any]:
    """Return the options of `sscd` with random weights."""
    import torch

    torch.manual_seed(1)
    path = folder / "sscd_disc_mixup.torchvision.pt"
    torch.save(architecture().state_dict(), path)
    return {"path": str(path), "size": 64, "precision": "float32"}


@pytest.mark.parametrize("descriptors", [0, 10**5, 10**6, 3 * 10**6, 10**7, 10**8, 10**9])
def test_the_index_is_trained_early_and_for_the_last_time_at_an_eighth_of_its_size(
    descriptors: int,
) -> None:
    last = first_training(descriptors)
    assert 30_000 <= last <= 500_000
    while last * GROWTH < descriptors:
        last *= int(GROWTH)
    assert last >= descriptors / 8 * 0.999
    assert last in (30_000, pytest.approx(descriptors / 8, rel=1e-3))


def close_pairs(store: Store, space: Space, least: float) -> set[tuple[int, int]]:
    """Return the pairs that the stored vectors call close, compared each with each."""
    ids = [image.image_id for image in store.images()]
    rows = store.rows(space, ids)
    vectors = np.stack([np.frombuffer(rows[at], np.float32) for at in ids])
    cosines = vectors @ vectors.T
    return {
        (one, other)
        for at, one in enumerate(ids)
        for of, other in enumerate(ids)
        if one < other and cosines[at, of] >= least
    }


@pytest.mark.parametrize(
    ("name", "method", "options_of"),
    [("image_text", "clip", image_text), ("copy", "sscd", copy)],
)
def test_close_vectors_propose_pairs_that_are_confirmed_by_comparing_previews(
    store: Store,
    tmp_path: Path,
    name: str,
    method: str,
    options_of: Callable[[Path], dict[str, Any]],
) -> None:
    options = options_of(tmp_path)
    extractor = make_extractor(method, options)
    extractor.load()
    space = Space(name, extractor.fingerprint)
    for seed in SEEDS:
        add_file(store, seed, jpeg(seed), {name: extractor})
    smaller = scene(OF).resize((480, 360), Image.Resampling.LANCZOS)
    add_file(store, COPY, encoded(smaller, quality=70), {name: extractor})
    application = {
        "name": name,
        "import_path": "deployments.app:build_retriever",
        "args": {"extractor": method, "options": options},
    }
    (proposer,) = make_proposers({"applications": [application]}, store)
    assert isinstance(proposer, VectorProposer)
    with ThreadPoolExecutor(2) as threads:
        outcome = DuplicateFinder(store, [proposer], threads).run()
    close = close_pairs(store, space, CLOSE[method])
    assert (OF, COPY) in close
    assert outcome.compared == len(close)
    found = {
        (pair.a, pair.b): pair.level
        for image in store.images()
        for pair in pairs_of(store, image.image_id)
    }
    # What vectors alone call close is no more than similar.
    assert found == {ends: "resize" if ends == (OF, COPY) else "similar" for ends in close}
