"""Reading and finding text: `python -m benchmarks.text_quality FOLDER`, which has text.tsv.

Its columns `file`, `lang`, `truth_is` (complete, or what is missing) and `transcript` (lines
separated by a backslash and n) are used. Every picture is decoded and read as the service does.

Character error rate: edits over characters of the transcript, both NFKC, case-folded and without
white space, over the complete transcripts of each language.

Recall: three different words of at least four letters, drawn from a complete transcript (all of
them where there are fewer), look for the picture among all pictures and made-up texts: as they are;
with one typo in each (a letter left out, put in, replaced, or two exchanged, never the first); and
spelt by ear (ph becomes f, f ph, hard c or ck k, x ks, qu kw, a consonant is doubled or halved, and
an inner vowel becomes another of a, o, u or of e, i). Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rapidfuzz.distance import Levenshtein

from indexes.base import Query
from indexes.registry import make_index
from models.errors import AmbienceError
from models.pictures.decoding import decode
from models.registry import make_annotator, make_extractor
from models.types import Features

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CLASSES = ("aou", "ei")
DOUBLED = "bdflmnprst"
QUERY_WORDS = 3
DRAWS = 20
"""Queries of each picture and kind."""
FIRST_MADE_UP = 1_000_000
"""Ids of made-up texts."""


def as_it_is(word: str, _: Random) -> str:
    return word


def typo(word: str, random: Random) -> str:
    """One letter left out, put in, replaced, or two exchanged; the first letter stays."""
    place = random.randrange(1, len(word))
    letter = random.choice(LETTERS.replace(word[place], ""))
    swap = [at for at in range(1, len(word) - 1) if word[at] != word[at + 1]]
    kind = random.choice(["out", "in", "other"] + ["exchange"] * bool(swap))
    if kind == "out":
        return word[:place] + word[place + 1 :]
    if kind == "in":
        return word[:place] + letter + word[place:]
    if kind == "other":
        return word[:place] + letter + word[place + 1 :]
    at = random.choice(swap)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def by_ear(word: str, random: Random) -> str:
    """All that the module's docstring says, where the word has it."""
    heard = re.sub(r"ph|f+", lambda same: "f" if same[0] == "ph" else "ph", word)
    heard = re.sub(r"ck|c(?![eiyhk])", "k", heard)
    heard = heard.replace("x", "ks").replace("qu", "kw")
    twice = re.search(r"([bdflmnprst])\1", heard)
    once = [at for at in range(1, len(heard)) if heard[at] in DOUBLED and heard[at - 1] in "aeiou"]
    if twice:
        heard = heard[: twice.start()] + heard[twice.start() + 1 :]
    elif once:
        at = random.choice(once)
        heard = heard[:at] + heard[at] + heard[at:]
    inner = [at for at in range(1, len(heard)) if heard[at] in "aeiou"]
    if inner:
        at = random.choice(inner)
        group = next(group for group in CLASSES if heard[at] in group)
        heard = heard[:at] + random.choice(group.replace(heard[at], "")) + heard[at + 1 :]
    return heard


SPELLINGS: Mapping[str, tuple[Callable[[str, Random], str], float]] = {
    "clean": (as_it_is, 0.95),
    "one typo in each": (typo, 0.90),
    "spelt by ear": (by_ear, 0.70),
}
"""And the targets of recall@5 on complete transcripts in Latin letters."""


def made_up_words(count: int, random: Random) -> list[str]:
    """Different words of two to four syllables, as no language has them."""
    heads = ["b", "br", "c", "ch", "d", "f", "g", "gr", "k", "l", "m", "n", "p", "ph", "pl", "qu"]
    heads += ["r", "s", "sh", "st", "t", "tr", "v", "w", "z", ""]
    tails = ["", "", "n", "r", "s", "l", "m", "ck", "x", "nd", "st"]
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = (
            random.choice(heads) + random.choice("aeiou") + random.choice(tails)
            for _ in range(random.choice((2, 2, 3, 3, 4)))
        )
        words["".join(syllables)] = None
    return list(words)


@dataclass(frozen=True)
class Read:
    """One picture: what stands on it, and what was read."""

    file: str
    language: str
    complete: bool
    transcript: str
    text: str

    @property
    def errors(self) -> int:
        return Levenshtein.distance(_characters(self.text), _characters(self.transcript))

    @property
    def characters(self) -> int:
        return len(_characters(self.transcript))

    @property
    def words(self) -> list[str]:
        """Different words of at least four letters."""
        folded = unicodedata.normalize("NFKC", self.transcript).casefold()
        return list(dict.fromkeys(re.findall(r"[^\W\d_]{4,}", folded)))

    @property
    def latin(self) -> bool:
        return all(ord(letter) < 0x250 for word in self.words for letter in word)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--made-up", type=int, default=10_000, help="texts of 8 words beside them")
    parser.add_argument("--verbose", action="store_true", help="show what is not found")
    given = parser.parse_args()
    pictures = list(read_all(given.folder))
    report_errors(pictures)
    return 0 if report_recall(pictures, given.made_up, given.verbose) else 1


def read_all(folder: Path) -> Iterator[Read]:
    ocr = make_annotator("ocr")
    ocr.load()
    with (folder / "text.tsv").open(newline="") as table:
        for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE):
            picture = decode((folder / row["file"]).read_bytes())
            transcript = row["transcript"].replace("\\n", "\n")
            complete = row["truth_is"] == "complete"
            text = ocr.annotate(picture.view(ocr.view)).text
            yield Read(row["file"], row["lang"], complete, transcript, text)


def report_errors(pictures: Sequence[Read]) -> None:
    print(f"{'picture':45} lang  truth     characters  error rate")
    groups: dict[str, list[Read]] = defaultdict(list)
    for read in pictures:
        rate = read.errors / read.characters
        truth = "complete" if read.complete else "partial"
        print(f"{read.file:45} {read.language:5} {truth:9} {read.characters:10}  {rate:.3f}")
        if read.complete:
            groups[read.language].append(read)
    for language, reads in groups.items():
        total = sum(read.characters for read in reads)
        errors = sum(read.errors for read in reads)
        print(
            f"{language}: {errors} errors in {total} characters of {len(reads)} pictures, ", end=""
        )
        print(f"error rate {errors / total:.3f}")


def report_recall(pictures: Sequence[Read], made_up: int, verbose: bool) -> bool:
    random = Random(1)
    words = made_up_words(made_up // 2 + 10, random)
    texts = {number: read.text for number, read in enumerate(pictures)}
    for number in range(made_up):
        texts[FIRST_MADE_UP + number] = " ".join(random.choices(words, k=8))
    find = finder(texts)
    fine = True
    asked = [at for at, read in enumerate(pictures) if read.complete and read.latin and read.words]
    print(f"\n{'recall@5, ' + str(len(texts)) + ' texts':26} pictures queries  recall  target")
    for name, (spell, target) in SPELLINGS.items():
        found = []
        for at in asked:
            said = pictures[at].words
            for _ in range(DRAWS):
                drawn = random.sample(said, min(QUERY_WORDS, len(said)))
                query = " ".join(spell(word, random) for word in drawn)
                found.append(at in find(query))
                if verbose and not found[-1]:
                    print(f"  {pictures[at].file}: {drawn} as {query!r}")
        recall = sum(found) / len(found)
        fine &= recall >= target
        missed = "" if recall >= target else "  MISSED"
        print(f"{name:26} {len(asked):8} {len(found):7}  {recall:.3f}   {target:.2f}{missed}")
    return fine


def finder(texts: Mapping[int, str]) -> Callable[[str], list[int]]:
    """The five best ids of a query, by the index that the service uses."""
    extractor = make_extractor("text")
    rows: dict[int, Features] = {}
    for key, text in texts.items():
        row = json.dumps({"ocr": {"text": text}}, ensure_ascii=False).encode()
        rows[key] = np.frombuffer(row, np.uint8)
    index = make_index(extractor.index, {}, lambda ids: {key: rows[key] for key in ids})
    index.apply(rows)
    params = index.Params.parse({"k": 5})
    return lambda query: [
        hit.image_id for hit in index.search(Query([extractor.extract_text(query)]), params)
    ]


def _characters(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AmbienceError as exc:
        sys.exit(str(exc))
