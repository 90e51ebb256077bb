"""LightGlue on unsure candidates of `local`: `python benchmarks/local_verifier.py CORPUS_FOLDER`.

Each picture of pairs/ looks for another of its group among all of pairs/ (and, with --photos n, n
photographs), without LightGlue and with it. Printed for each: recall@1 by kind of group, wrong
verified hits, CPU time of a search by one thread. Then what the rounding of stored descriptors to
uint8 changes, for pairs of one group: their cosine to exact ones, and the matches that the network
makes of both.

Without the published weights (see --weights), --random says what rounding changes in the outputs
of a network with random weights. That tells nothing about recall.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2
import numpy as np

from benchmarks.quality import Corpus
from indexes.base import Query
from indexes.local.index import LocalIndex
from models.descriptors.keypoints import Sift
from models.descriptors.rootsift import rootsift
from models.descriptors.selection import Floats, Selection
from models.errors import AmbienceError
from models.extractors.local import LOCAL_DTYPE, Local, LocalOptions
from models.lightglue import CONSTANTS, LightGlue, LightGlueOptions, network_input, shared
from models.pictures.decoding import decode
from models.types import Features, Pixels

EXACT = np.dtype(
    [*((name, "f4") for name in ("x", "y", "scale", "angle")), ("descriptor", "f4", 128)]
)
"""Features with descriptors that are not rounded."""


def recalls(
    corpus: Corpus,
    rows: dict[int, Features],
    pixels: dict[int, Pixels],
    asking: Sequence[int],
    lightglue: LightGlueOptions | None,
) -> tuple[Counter[str], int, float]:
    """Right first hits by kind of group, wrong verified hits, and CPU milliseconds of a search."""
    extractor = Local(LocalOptions())
    options = LocalIndex.Config(train_above=10**9, lightglue=lightglue)
    index = LocalIndex(options, lambda ids: {one: rows[one] for one in ids})
    index.apply(rows)
    right: Counter[str] = Counter()
    wrong, took = 0, []
    for number in asking:
        query = Query(extractor.extract_variants(pixels[number], "mirror"))
        began = time.process_time()
        hits = index.search(query, index.Params.parse({"k": 20}))
        took.append(time.process_time() - began)
        related = [corpus.related(number, hit.image_id) for hit in hits if hit.image_id != number]
        right[corpus.kinds[number]] += bool(related and related[0])
        wrong += related.count(False)
    return right, wrong, median(took) * 1e3


def described(pixels: Pixels) -> tuple[Features, Features]:
    """Features of a stored picture, rounded and exact, by descriptors that equal these but for the
    rounding."""
    options = LocalOptions()
    selection = Selection(options.max_keypoints, options.near)
    sift = Sift(pixels, (options.min_side, options.max_side), selection)
    plain: Floats = sift.describe()
    root = np.sqrt(plain / np.maximum(plain.sum(axis=1, keepdims=True), 1e-9))
    made = []
    for dtype, descriptors in ((LOCAL_DTYPE, rootsift(plain)), (EXACT, root)):
        features = np.empty(len(plain), dtype)
        features["x"], features["y"] = sift.keypoints.points.T
        features["scale"], features["angle"] = sift.keypoints.scale, sift.keypoints.angle
        features["descriptor"] = descriptors
        made.append(features)
    return made[0], made[1]


def rounding(matcher: LightGlue, pictures: Sequence[tuple[Pixels, Pixels]]) -> None:
    """Print how inputs and outputs of the network differ between exact and rounded descriptors."""
    cosines, gaps, spreads, matches, same = [], [], [], [], []
    for pair in pictures:
        rounded, exact = zip(*(described(pixels) for pixels in pair), strict=True)
        for one, other in zip(rounded, exact, strict=True):
            given = (network_input(features)["descriptors"] for features in (one, other))
            cosines.append(np.multiply(*given).sum(axis=1))
        found = [{*map(tuple, matcher.match(*sides).tolist())} for sides in (rounded, exact)]
        matches.append(len(found[1]))
        same.append(len(found[0] & found[1]) / max(1, len(found[0] | found[1])))
        outputs = [log_probabilities(matcher, *sides) for sides in (rounded, exact)]
        gaps.append(float((outputs[0] - outputs[1]).abs().max()))
        spreads.append(float(outputs[1].std()))
    every = np.concatenate(cosines)
    print(f"{len(pictures)} pairs; cosine of rounded to exact descriptors:", end=" ")
    print(f"least {every.min():.5f}, median {np.median(every):.5f}")
    print(f"log probabilities of matches: greatest change {max(gaps):.4f}", end=", ")
    print(f"median of a pair's greatest {median(gaps):.4f}, spread {median(spreads):.4f}")
    if any(matches):
        print(f"matches: median {median(matches)}; share that both have {np.mean(same):.3f}")


def log_probabilities(matcher: LightGlue, query: Features, image: Features) -> Any:
    """Log probabilities (n, m) of all matches after all layers, none left out."""
    import torch

    network = matcher._network
    before = network.conf.depth_confidence, network.conf.width_confidence
    network.conf.depth_confidence = network.conf.width_confidence = -1
    with torch.inference_mode():
        given = {"image0": matcher._input(query), "image1": matcher._input(image)}
        found = network(given)["log_assignment"][0, :-1, :-1]
    network.conf.depth_confidence, network.conf.width_confidence = before
    return found


def random_weights(folder: Path) -> str:
    """Write random weights in the published layout."""
    import torch
    from kornia.feature import LightGlue as Network

    torch.manual_seed(0)
    none: Any = None
    state = Network(none, input_dim=128, add_scale_ori=True).state_dict()
    path = folder / "random.pth"
    torch.save({name: one for name, one in state.items() if name not in CONSTANTS}, path)
    return str(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--weights", help="A file of weights in place of the published one.")
    parser.add_argument("--random", action="store_true", help="Measure rounding on random weights.")
    parser.add_argument("--photos", type=int, default=0, help="Photographs among which to search.")
    parser.add_argument("--every", type=int, default=1, help="Ask with every nth picture only.")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    corpus = Corpus.read(args.corpus)
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(Path(folder)) if args.random else args.weights
        options = LightGlueOptions(weights=weights, device="cpu")
        matcher = shared(options)
        matcher.load()
    numbers = [*corpus.groups, *range(min(args.photos, corpus.photos))]
    asking = list(corpus.groups)[:: args.every]
    pixels = {one: decode(corpus.paths[one].read_bytes()).view("gray") for one in numbers}
    pairs = [
        (pixels[one], pixels[other])
        for one, other in pairwise(asking)
        if corpus.related(one, other)
    ]
    rounding(matcher, pairs)
    if args.random:
        return 0
    extractor = Local(LocalOptions())
    rows = {one: extractor.extract(pixels[one]) for one in numbers}
    total = Counter(corpus.kinds[number] for number in asking)
    for name, used in (("without", None), ("with", options)):
        right, wrong, took = recalls(corpus, rows, pixels, asking, used)
        print(f"{name}: {wrong} wrong verified hits, {took:.0f} CPU ms per search")
        for kind, count in total.items():
            print(f"  recall@1 {kind:24} {right[kind] / count:.2f} of {count}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AmbienceError as exc:
        sys.exit(str(exc))
