"""Descriptors of `local` compared: `python benchmarks/local_descriptors.py CORPUS_FOLDER`.

Each picture of pairs/ looks for another of its group among all of pairs/ (and, with --photos n, n
photographs). Printed for each descriptor and kind of group: recall@1. Then CPU time of extraction
by one thread, bytes stored, and hits that are wrong. Weights are found where the service finds
them: TORCH_HOME can say where torch.hub's cache is.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2

from benchmarks.quality import Corpus
from indexes.base import Query
from indexes.local.index import LocalIndex
from models.base import Extractor
from models.errors import AmbienceError
from models.pictures.decoding import decode
from models.registry import make_extractor
from models.types import Features, Pixels


@dataclass
class Outcome:
    right: Counter[str] = field(default_factory=Counter)
    """By kind of group: queries whose best hit is of their group."""
    wrong: int = 0
    """Verified hits that are not of the query's group."""
    milliseconds: float = 0.0
    """CPU time of extracting one picture to be stored."""
    size: float = 0.0
    """Bytes of a stored row."""


def compared(
    corpus: Corpus, extractor: Extractor, numbers: Sequence[int], asking: Sequence[int]
) -> Outcome:
    outcome = Outcome()
    pixels = {one: decode(corpus.paths[one].read_bytes()).view(extractor.view) for one in numbers}
    extractor.extract(pixels[numbers[0]])
    rows, seconds = extracted(extractor, pixels)
    outcome.milliseconds = seconds / len(rows) * 1e3
    outcome.size = sum(len(extractor.to_row(row)) for row in rows.values()) / len(rows)
    options = LocalIndex.Config(train_above=10**9)
    index = LocalIndex(options, lambda ids: {one: rows[one] for one in ids})
    index.apply(rows)
    for number in asking:
        query = Query(extractor.extract_variants(pixels[number], "mirror"))
        hits = index.search(query, index.Params.parse({"k": 20}))
        related = [corpus.related(number, hit.image_id) for hit in hits if hit.image_id != number]
        outcome.right[corpus.kinds[number]] += bool(related and related[0])
        outcome.wrong += related.count(False)
    return outcome


def extracted(extractor: Extractor, pixels: dict[int, Pixels]) -> tuple[dict[int, Features], float]:
    """Features of each picture, and seconds of CPU time for them all."""
    began = time.process_time()
    rows = {number: extractor.extract(picture) for number, picture in pixels.items()}
    return rows, time.process_time() - began


def report(corpus: Corpus, asking: Sequence[int], outcomes: dict[str, Outcome]) -> None:
    total = Counter(corpus.kinds[number] for number in asking)
    print(f"{'recall@1':24}", *(f"{name:>10}" for name in outcomes), "  queries")
    for kind, count in total.items():
        shown = " ".join(f"{one.right[kind] / count:10.2f}" for one in outcomes.values())
        print(f"{kind:24} {shown}   {count}")
    recalls = " ".join(f"{one.right.total() / len(asking):10.3f}" for one in outcomes.values())
    print(f"{'all':24} {recalls}   {len(asking)}")
    print(f"{'wrong verified hits':24}", *(f"{one.wrong:10}" for one in outcomes.values()))
    base = next(iter(outcomes.values())).milliseconds
    times = [one.milliseconds for one in outcomes.values()]
    print(f"{'CPU ms per picture':24}", *(f"{one:10.0f}" for one in times))
    print(f"{'times the first':24}", *(f"{one / base:10.1f}" for one in times))
    print(f"{'bytes per picture':24}", *(f"{one.size:10.0f}" for one in outcomes.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--descriptors", nargs="*", default=["rootsift", "aliked"])
    parser.add_argument("--weights", help="A file of weights in place of the published one.")
    parser.add_argument("--photos", type=int, default=0, help="Photographs among which to search.")
    parser.add_argument("--every", type=int, default=1, help="Ask with every nth picture only.")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    corpus = Corpus.read(args.corpus)
    numbers = [*corpus.groups, *range(min(args.photos, corpus.photos))]
    asking = list(corpus.groups)[:: args.every]
    outcomes = {}
    for name in args.descriptors:
        weights = args.weights if name != "rootsift" else None
        extractor = make_extractor("local", {"descriptor": name, "weights": weights})
        extractor.load()
        outcomes[name] = compared(corpus, extractor, numbers, asking)
        print(f"{name} done", file=sys.stderr, flush=True)
    report(corpus, asking, outcomes)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AmbienceError as exc:
        sys.exit(str(exc))
