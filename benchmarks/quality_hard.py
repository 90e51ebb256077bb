"""Is it the same picture? `python benchmarks/quality_hard.py CORPUS_FOLDER`, with photos/ in it.

Photographs and drawn pictures are stored beside others that share an element with them: a screen's
frame, a watermark, a sticker, a form, a character. Copies, edits and parts of them are searched
for, and so are strangers, of which no stored picture may count as verified. Prints a line for each
class, and exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from PIL import Image, ImageOps

from benchmarks.hard_changes import (
    COPIES,
    DECORATIONS,
    PARTS,
    burst,
    caption,
    night,
    photo,
    stored_panorama,
    variant,
)
from benchmarks.hard_drawings import DRAWINGS
from benchmarks.hard_search import Found, Search


@dataclass(frozen=True)
class Stored:
    number: int
    name: str
    origin: str
    """Pictures with one origin may be verified against each other."""
    data: bytes


@dataclass(frozen=True)
class Case:
    name: str
    """Class of the case."""
    data: bytes
    origin: str
    """The origin of the wanted pictures; of a stranger, its own."""
    expected: tuple[str, ...]
    """Relations that are right; empty for a stranger."""
    wanted: int | None = None
    duplicate: bool | None = None
    """Whether the import check must name the wanted one; None if either is fine."""


def jpeg(image: Image.Image, quality: int = 88) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality)
    return file.getvalue()


@dataclass
class Cases:
    """The stored pictures and the queries, made from photographs and styles."""

    photos: Sequence[Image.Image]
    styles: Sequence[int]
    each: int
    """Queries of each class."""
    stored: list[Stored] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)

    def keep(self, name: str, origin: str, image: Image.Image) -> int:
        number = len(self.stored)
        self.stored.append(Stored(number, name, origin, jpeg(image)))
        return number

    def ask(
        self,
        name: str,
        image: Image.Image,
        origin: str,
        expected: tuple[str, ...] = (),
        wanted: int | None = None,
        duplicate: bool | None = None,
        quality: int = 85,
    ) -> None:
        data = jpeg(image, quality)
        self.cases.append(Case(name, data, origin, expected, wanted, duplicate))

    def make(self) -> None:
        self._photographs()
        self._decorated()
        self._drawn()

    def _some(self, count: int, salt: str) -> list[int]:
        return Random(salt).sample(range(len(self.photos)), min(count, len(self.photos)))

    def _photographs(self) -> None:
        shots = [
            (number, photo(image)) if number % 3 else (number, image)
            for number, image in enumerate(self.photos)
        ]
        places = {number: self.keep("photo", f"photo {number}", image) for number, image in shots}
        half = len(self.photos) // 2
        for name, change in {**COPIES, **PARTS}.items():
            if name == "panorama":
                continue
            for number in self._some(self.each, name):
                random = Random(f"{name} {number}")
                other = self.photos[(number + half) % len(self.photos)]
                if name == "collage":
                    other = self.unseen[number % len(self.unseen)]
                made = change(self.photos[number], random, other)
                same = name in COPIES
                self.ask(
                    name,
                    made,
                    f"photo {number}",
                    ("same",) if same else ("part", "same") if name == "screen" else ("part",),
                    places[number],
                    (same and name not in ("negative", "thumbnail")) or None,
                    20 if name == "quality 20" else 85,
                )
        for number in self._some(self.each, "night"):
            dark = night(self.photos[number])
            place = self.keep("night", f"photo {number}", dark)
            self.ask("night", dark, f"photo {number}", ("same",), place, True, 60)
        for number in self._some(self.each, "burst"):
            moved = burst(self.photos[number], Random(number), self.photos[number])
            self.ask("burst", moved, f"photo {number}", ("part", "edited", "same"), places[number])
        for number in self._some(self.each, "panorama"):
            made = PARTS["panorama"](self.photos[number], Random(0), self.photos[number])
            image = self.photos[number]
            self.keep("panorama", f"photo {number}", stored_panorama(image))
            self.ask("panorama", made, f"photo {number}", ("part",), places[number])

    def _decorated(self) -> None:
        """Pictures in one decoration: their own photographs are wanted, strangers are not."""
        for name, decorate in DECORATIONS.items():
            for style in self.styles:
                chosen = self._some(9, f"{name} {style}")
                for number in chosen[:6]:
                    made = decorate(self.photos[number], style, f"{number}")
                    self.keep(name, f"photo {number}", made)
                for number in chosen[6:]:
                    # Its own photograph is stored undecorated: a part or an edit.
                    made = decorate(self.photos[number], style, "query")
                    right = ("part",) if name == "frame" else ("edited", "same", "part")
                    self.ask(
                        name,
                        made,
                        f"photo {number}",
                        right,
                        number,
                        None if name in ("tiled", "single") else False,
                    )
                again = decorate(self.photos[chosen[0]], style, f"{chosen[0]}")
                number = next(
                    one.number
                    for one in reversed(self.stored)
                    if one.name == name and one.origin == f"photo {chosen[0]}"
                )
                self.ask(f"{name} again", again, f"photo {chosen[0]}", ("same",), number, True, 60)
        for style in self.styles:
            for number in self._some(2, f"meme {style}"):
                self.keep("meme", f"photo {number}", caption(self.photos[number], style, "one"))
                made = caption(self.photos[number], style, "two")
                self.ask(
                    "another caption",
                    made,
                    f"photo {number}",
                    ("edited", "part", "same"),
                    None,
                    False,
                )
        for style in self.styles:
            for name, decorate in DECORATIONS.items():
                for number in self._some(2, f"stranger {name} {style}"):
                    # Mirrored and cropped twice, so that no stored photograph is in it.
                    scene = (
                        DRAWINGS["comic"](100 + style, f"{number}")
                        if style % 2
                        else self._strange(number)
                    )
                    made = decorate(scene, style, f"strange {number}")
                    self.ask(f"{name} stranger", made, f"strange {number}", duplicate=False)

    def _strange(self, number: int) -> Image.Image:
        return self.unseen[number % len(self.unseen)]

    unseen: Sequence[Image.Image] = ()

    def _drawn(self) -> None:
        for name, draw in DRAWINGS.items():
            for style in self.styles:
                for content in range(6):
                    image = draw(style, str(content))
                    place = self.keep(name, f"{name} {style} {content}", image)
                    if content == 0:
                        self.ask(
                            f"{name} copy",
                            image,
                            f"{name} {style} {content}",
                            ("same",),
                            place,
                            True,
                            55,
                        )
                        if min(image.size) > 250 and name not in ("flat", "gradient"):
                            half = image.resize(
                                (image.width * 2 // 3, image.height * 2 // 3),
                                Image.Resampling.LANCZOS,
                            )
                            self.ask(
                                f"{name} small",
                                half,
                                f"{name} {style} {content}",
                                ("same",),
                                place,
                                True,
                                80,
                            )
                        if name in ("character", "comic", "icon", "invoice"):
                            made = variant(image, Random(f"{name} {style}"), image)
                            self.ask(
                                "variant",
                                made,
                                f"{name} {style} {content}",
                                ("edited", "part"),
                                None,
                                False,
                            )
                for content in ("x", "y"):
                    self.ask(
                        f"{name} stranger",
                        draw(style, content),
                        f"{name} {style} {content}",
                        duplicate=False,
                    )
        for number, image in enumerate(self.unseen):
            self.ask("photo stranger", image, f"unseen {number}", duplicate=False)


@dataclass
class Line:
    """Counts of one class."""

    queries: int = 0
    wanted: int = 0
    first: int = 0
    right: int = 0
    false: int = 0
    false_hits: int = 0
    copies: int = 0
    named: int = 0
    strangers: int = 0
    refused: int = 0

    def count(self, case: Case, found: Found, origins: Mapping[int, str]) -> None:
        self.queries += 1
        stray = [at for at in found.verified if origins[at] != case.origin]
        self.false += bool(stray)
        self.false_hits += len(stray)
        if case.expected:
            self.wanted += 1
            top = found.order[0] if found.order else None
            self.first += top is not None and origins[top] == case.origin
            of = case.wanted if case.wanted is not None else top
            self.right += of is not None and found.relations.get(of) in case.expected
        if case.duplicate is True:
            self.copies += 1
            self.named += any(origins[at] == case.origin for at in found.duplicates)
        elif case.duplicate is False:
            self.strangers += 1
            self.refused += bool(found.duplicates)


def report(lines: Mapping[str, Line]) -> bool:
    print(
        f"{'class':24} {'n':>4}",
        *(f"{name:>6}" for name in ("first", "class", "false", "hits", "named", "refused")),
    )
    fine = True
    for name, line in [*lines.items(), ("all", _total(lines))]:
        cells = [
            _share(line.first, line.wanted),
            _share(line.right, line.wanted),
            _share(line.false, line.queries),
            f"{line.false_hits / max(1, line.queries):6.2f}",
            _share(line.named, line.copies),
            _share(line.refused, line.strangers),
        ]
        least = {"crop 10 %": 0.92, "crop 5 %": 0.75}.get(name, 0.95)
        missed = (
            line.first < least * line.wanted
            or line.false > 0.02 * line.queries
            or line.named < 0.97 * line.copies
            or line.refused > 0.005 * line.strangers
            or line.right < 0.95 * line.wanted
        )
        fine &= not missed
        print(f"{name:24} {line.queries:4}", *cells, " MISSED" if missed else "")
    return fine


def _total(lines: Mapping[str, Line]) -> Line:
    total = Line()
    for line in lines.values():
        for name in vars(line):
            setattr(total, name, getattr(total, name) + getattr(line, name))
    return total


def _share(some: int, total: int) -> str:
    return f"{some / total:6.2f}" if total else "     -"


def calibration_error(sure: Sequence[tuple[float, bool]]) -> float:
    """Expected calibration error over ten bins of confidence (Naeini et al. 2015)."""
    bins: defaultdict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, true in sure:
        bins[min(9, int(confidence * 10))].append((confidence, true))
    gaps = (abs(np.mean(rows, axis=0) @ [1, -1]) * len(rows) for rows in bins.values())
    return float(sum(gaps) / max(1, len(sure)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--photos", type=int, default=60)
    parser.add_argument("--each", type=int, default=15, help="Queries a class of photographs.")
    parser.add_argument("--styles", type=int, default=8, help="Styles of each kind of drawing.")
    parser.add_argument(
        "--held-out", action="store_true", help="The odd styles and other photographs."
    )
    parser.add_argument("--classes", nargs="*", help="Only classes whose names begin so.")
    parser.add_argument("--dump", type=Path, help="Write what was found as JSON lines.")
    args = parser.parse_args()
    began = time.perf_counter()
    paths = sorted(
        path
        for path in (args.corpus / "photos").iterdir()
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    paths = paths[int(args.held_out) :: 2]
    Random(7).shuffle(paths)
    shots = [_opened(path) for path in paths[: args.photos + 15]]
    first = 100 if args.held_out else 0
    cases = Cases(shots[: args.photos], range(first, first + args.styles), args.each)
    cases.unseen = shots[args.photos :]
    cases.make()
    origins = {one.number: one.origin for one in cases.stored}
    search = Search({one.number: one.data for one in cases.stored})
    print(
        f"{len(cases.stored)} stored, {len(cases.cases)} queries,",
        f"{time.perf_counter() - began:.0f} s",
        flush=True,
    )
    lines: defaultdict[str, Line] = defaultdict(Line)
    sure: list[tuple[float, bool]] = []
    spent: list[float] = []
    dump = args.dump.open("w") if args.dump else None
    for case in cases.cases:
        if args.classes and not any(case.name.startswith(one) for one in args.classes):
            continue
        found = search.find(case.data)
        lines[case.name].count(case, found, origins)
        sure += [
            (sureness, origins[at] == case.origin) for at, sureness in found.confidence.items()
        ]
        spent.append(found.seconds)
        if dump is not None:
            dump.write(json.dumps(found.told(case.name, case.origin, origins)) + "\n")
    fine = report(lines)
    print(f"expected calibration error {calibration_error(sure):.3f} of {len(sure)} hits")
    print(
        f"CPU of the relations of a search: p50 {1000 * np.median(spent):.1f} ms,",
        f"p90 {1000 * np.quantile(spent, 0.9):.1f} ms",
    )
    print(f"{time.perf_counter() - began:.0f} s")
    return 0 if fine else 1


def _opened(path: Path) -> Image.Image:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    return ImageOps.contain(image, (1600, 1600))


if __name__ == "__main__":
    sys.exit(main())
