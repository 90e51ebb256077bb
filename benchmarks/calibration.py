"""Confidence on real photographs: `python -m benchmarks.calibration CORPUS_FOLDER`.

Half of the photographs are the collection, the others strangers to it. At the default confidence
copies of the collection's photographs must be found, and a stranger must find nothing. The mean of
several splits. The columns show what other values of `min_confidence` would do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageOps

from benchmarks import loading
from benchmarks.quality import CHANGES, Corpus
from deployments.ingress.defaults import FusedDefaults
from indexes.base import Index, Query
from indexes.ranking.fusion import FusedHit, RankedList, above_confidence, fuse
from indexes.registry import make_index
from indexes.relation.proposals import Proposals, QuerySide, relations
from indexes.store.base import Preview
from models.base import Extractor
from models.pictures.decoding import Picture, decode
from models.registry import make_extractor
from models.types import Features

NAMES = ("phash", "color", "local")
"""Retrievers without downloaded weights."""
COPIES = ("quality 30", "half size", "brightness 1.4", "half of it", "mirror")
DEFAULT = FusedDefaults().min_confidence
LEVELS = (0.0, 0.2, DEFAULT, 0.8, 0.95)
SAMPLE = 512
STRANGERS = "strangers"
TARGET_COPIES, TARGET_STRANGERS = 0.97, 0.9


class Collection:
    """Indexes over some pictures, each with its own background."""

    def __init__(
        self, extractors: Mapping[str, Extractor], pictures: Mapping[int, Picture]
    ) -> None:
        self.extractors = extractors
        self.previews = {
            at: Preview(one.width, one.height, one.preview_jpeg()) for at, one in pictures.items()
        }
        self.indexes: dict[str, Index] = {}
        for name, extractor in extractors.items():
            rows = {at: extractor.extract(it.view(extractor.view)) for at, it in pictures.items()}
            self.indexes[name] = _filled(extractor.index, rows)

    def search(self, picture: Picture) -> list[FusedHit]:
        proposals, lists = Proposals(), []
        for name, extractor in self.extractors.items():
            index = self.indexes[name]
            query = Query(extractor.extract_variants(picture.view(extractor.view), "mirror"))
            hits = index.answer(query, index.Params.parse(index.fused))
            lists.append(RankedList(name, hits, verifying=index.verifying))
            if index.verifying:
                proposals.add(hits)
        return fuse(lists, relations=relations(QuerySide.of(picture), proposals, self.previews))


def _filled(kind: str, rows: dict[int, Features]) -> Index:
    index = make_index(kind, {}, lambda ids: {at: rows[at] for at in ids if at in rows})
    index.apply(rows)
    image_ids = index.image_ids()[:SAMPLE]
    if len(image_ids):
        sample = np.stack([rows[int(at)] for at in image_ids])
        index.background = index.background_of(sample)
    return index


def measure(corpus: Corpus, seed: int, every: int) -> dict[str, list[float]]:
    """By kind of query: at each of LEVELS the share found first, or for strangers finding none."""
    numbers = list(range(corpus.photos))
    Random(seed).shuffle(numbers)
    inside, outside = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    pictures = {at: decode(corpus.paths[at].read_bytes()) for at in numbers}
    extractors = {name: make_extractor(name) for name in NAMES}
    collection = Collection(extractors, {at: pictures[at] for at in inside})
    answers: dict[str, list[list[bool]]] = {}
    for at in inside[::every]:
        for name in COPIES:
            hits = collection.search(decode(_copy(corpus.paths[at], name, at)))
            answers.setdefault(name, []).append([_is_first(hits, at, one) for one in LEVELS])
    for at in outside[::every]:
        hits = collection.search(pictures[at])
        answers.setdefault(STRANGERS, []).append(
            [not above_confidence(hits, one) for one in LEVELS]
        )
    return {name: np.mean(rows, axis=0).tolist() for name, rows in answers.items()}


def _copy(path: Path, name: str, seed: int) -> bytes:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    change = CHANGES[name]
    return loading.as_jpeg(change.make(image, Random(seed), image), change.quality)


def _is_first(hits: Sequence[FusedHit], image_id: int, level: float) -> bool:
    kept = above_confidence(hits, level)
    return bool(kept) and kept[0].image_id == image_id


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with photos/ and pairs/")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="take every nth picture as a query")
    given = parser.parse_args()
    corpus = Corpus.read(given.folder)
    splits = [measure(corpus, seed, given.every) for seed in range(given.splits)]
    rows = []
    for name in (*COPIES, STRANGERS):
        shares = np.mean([split[name] for split in splits], axis=0)
        what = "find nothing" if name == STRANGERS else "found first"
        rows.append([f"{name}: {what}", *(f"{share:.3f}" for share in shares)])
    loading.print_table(["query", *(f"confidence ≥ {level:g}" for level in LEVELS)], rows)
    default = LEVELS.index(DEFAULT) + 1
    copies, strangers = [float(row[default]) for row in rows[:-1]], float(rows[-1][default])
    return 0 if min(copies) >= TARGET_COPIES and strangers >= TARGET_STRANGERS else 1


if __name__ == "__main__":
    sys.exit(main())
