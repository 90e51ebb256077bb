"""Text search on one core: `python -m benchmarks.text_search [--texts 1000000]`.

Texts are of 8 words drawn by Zipf's law (exponent 1) from a made-up vocabulary. A query is three
different words of one of them: as they are, with one typo in each, or spelt by ear (see
`benchmarks.text_quality`). Beside the index, in the same run and interleaved:
`extract`: the vocabulary searched by rapidfuzz.process.extract (OSA, two edits), then the lists;
`FTS5`: SQLite's full-text index of trigrams over the same texts, in memory, the words joined by OR,
its 20 best by BM25 (it finds parts of words; of typos and sounds it knows nothing).
`extract` answers what our fuzzy kind alone does: it shows the price of searching the vocabulary.
Exits with 1 if the median of any kind of query misses the target of 100 ms.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import orjson
import psutil
from rapidfuzz import process
from rapidfuzz.distance import OSA

from benchmarks.text_quality import SPELLINGS, made_up_words
from indexes.base import Query
from indexes.registry import make_index
from models.registry import make_extractor
from models.types import Features

TARGET_MS = 100
WORDS = 8
K = 20
CLOCK = [time.perf_counter]
"""The last one counts."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--vocabulary", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=51, help="of each kind")
    parser.add_argument("--cpu", action="store_true", help="CPU time, for a busy machine")
    given = parser.parse_args()
    if given.cpu:
        CLOCK.append(time.thread_time)
    random = Random(1)
    vocabulary = made_up_words(given.vocabulary, random)
    drawn = zipf_words(given.texts, len(vocabulary))
    ours = Ours(vocabulary, drawn)
    extract = Extract(vocabulary, drawn)
    fts5 = Fts5(vocabulary, drawn)
    print(f"\n{'p50 (p95) in ms of':18} {'index':>15} {'extract':>15} {'FTS5':>15}  target")
    fine = True
    for name, (spell, _) in SPELLINGS.items():
        queries = []
        for _ in range(given.queries):
            some = list(dict.fromkeys(drawn[random.randrange(len(drawn))].tolist()))
            asked = random.sample(some, min(3, len(some)))
            queries.append([spell(vocabulary[word], random) for word in asked])
        fine &= compare(name, queries, [ours.search, extract.search, fts5.search])
    ours.report_updates(random)
    return 0 if fine else 1


def zipf_words(texts: int, words: int) -> npt.NDArray[np.int32]:
    """Words by number (texts, WORDS), the n-th as often as 1 / (n + 1)."""
    shares = 1 / np.arange(1, words + 1)
    edges = np.cumsum(shares / shares.sum())
    drawn = np.random.default_rng(1).random((texts, WORDS))
    return np.minimum(np.searchsorted(edges, drawn), words - 1).astype(np.int32)


class Ours:
    def __init__(self, vocabulary: list[str], drawn: npt.NDArray[np.int32]) -> None:
        self.vocabulary, self.drawn = vocabulary, drawn
        self.extractor = make_extractor("text")
        self.index = make_index("text", {}, lambda ids: {key: self.row(key) for key in ids})
        self.params = self.index.Params.parse({"k": K})
        before, began = resident(), time.perf_counter()
        for first in range(0, len(drawn), 4096):
            keys = range(first, min(first + 4096, len(drawn)))
            self.index.apply({key: self.row(key) for key in keys})
        seconds = time.perf_counter() - began
        print(
            f"{len(self.index):,} texts of {WORDS} words, {len(vocabulary):,} different ones, "
            f"applied in {seconds:.0f} s; {self.index.nbytes / 1e6:.0f} MB by its own account, "
            f"{(resident() - before) / 1e6:.0f} MB more resident",
            flush=True,
        )

    def row(self, key: int) -> Features:
        text = " ".join(self.vocabulary[word] for word in self.drawn[key])
        return np.frombuffer(orjson.dumps({"ocr": {"text": text}}), np.uint8)

    def search(self, words: Sequence[str]) -> object:
        query = Query([self.extractor.extract_text(" ".join(words))])
        return self.index.search(query, self.params)

    def report_updates(self, random: Random) -> None:
        """Single images replaced, one by one."""
        spent = []
        for _ in range(2000):
            change = {
                random.randrange(len(self.drawn)): self.row(random.randrange(len(self.drawn)))
            }
            spent.append(seconds_of(lambda change=change: self.index.apply(change)))
        milli = 1000 * np.array(spent)
        print(f"one text replaced: p50 {np.median(milli):.3f} ms, longest {milli.max():.1f} ms")


class Extract:
    """Three words by process.extract; texts by how many of them they have."""

    def __init__(self, vocabulary: list[str], drawn: npt.NDArray[np.int32]) -> None:
        self.vocabulary = vocabulary
        order = np.argsort(drawn.ravel(), kind="stable")
        self.texts = (order // WORDS).astype(np.int32)
        self.starts = np.searchsorted(drawn.ravel()[order], np.arange(len(vocabulary) + 1))
        self.count = len(drawn)

    def search(self, words: Sequence[str]) -> object:
        have = np.zeros(self.count, np.int8)
        for word in words:
            one = np.zeros(self.count, np.int8)
            for _, _, at in process.extract(
                word, self.vocabulary, scorer=OSA.distance, score_cutoff=2, limit=None
            ):
                one[self.texts[self.starts[at] : self.starts[at + 1]]] = 1
            have += one
        return np.argpartition(have, -K)[-K:]


class Fts5:
    def __init__(self, vocabulary: list[str], drawn: npt.NDArray[np.int32]) -> None:
        self.base = sqlite3.connect(":memory:")
        self.base.execute("create virtual table texts using fts5(text, tokenize='trigram')")
        before = resident()
        self.base.executemany("insert into texts values (?)", rows(vocabulary, drawn))
        self.base.commit()
        print(f"FTS5: {(resident() - before) / 1e6:.0f} MB more resident", flush=True)

    def search(self, words: Sequence[str]) -> object:
        match = " OR ".join(f'"{word}"' for word in words)
        found = "select rowid from texts where texts match ? order by rank limit ?"
        return self.base.execute(found, (match, K)).fetchall()


def rows(vocabulary: list[str], drawn: npt.NDArray[np.int32]) -> Iterator[tuple[str]]:
    for text in drawn:
        yield (" ".join(vocabulary[word] for word in text),)


def compare(
    name: str, queries: Sequence[Sequence[str]], ways: Sequence[Callable[[Sequence[str]], object]]
) -> bool:
    """Interleaved, so that a neighbour's load falls on all."""
    spent = np.array(
        [[seconds_of(lambda way=way, q=query: way(q)) for way in ways] for query in queries]
    )
    milli = 1000 * spent
    shown = " ".join(
        f"{f'{np.median(one):.1f} ({np.percentile(one, 95):.1f})':>15}" for one in milli.T
    )
    fine = bool(np.median(milli[:, 0]) <= TARGET_MS)
    print(f"{name:18} {shown}  {TARGET_MS}{'' if fine else '  MISSED'}", flush=True)
    return fine


def seconds_of(work: Callable[[], object]) -> float:
    start = CLOCK[-1]()
    work()
    return CLOCK[-1]() - start


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    sys.exit(main())
