"""Compiles all kernels of the local index, or loads them from the cache, before the first query."""

from __future__ import annotations

import numpy as np

from indexes.local.descriptors import FlatSearch, descriptor_ids, unit
from indexes.local.slots import SlotTable, quantise_geometry
from indexes.local.verification import KeypointArrays, agreeing, follows, match, similarity
from indexes.local.voting import NearestDescriptors, candidates_of
from models.extractors.local import LOCAL_DTYPE


def warm_up() -> None:
    blank = np.zeros(4, LOCAL_DTYPE)
    table, search = SlotTable(), FlatSearch()
    search.add(descriptor_ids(table.add(0, blank), len(blank)), unit(blank["descriptor"]))
    search.search(unit(blank["descriptor"]), 1, table.image_ids)
    geometry = quantise_geometry(blank)
    ids = np.zeros((len(blank), 1), np.int64)
    distances, keypoints = ids.astype(np.float32), ids.astype(np.uint8)
    candidates_of(0, NearestDescriptors(distances, ids, keypoints, geometry[:, None], geometry), 1)
    matches = agreeing(match(KeypointArrays.of(blank), [KeypointArrays.of(blank)], 1.0, 4.0)[0])
    follows(matches, np.eye(3))
    similarity(matches)
