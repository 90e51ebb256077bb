"""The report of duplicates: one HTML file with the pictures side by side, JSON, and ids to delete;
and contact sheets, by which a rule is tried."""

from __future__ import annotations

import base64
import html
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson

from cluster.jobs.duplicates.applying import all_groups, to_delete
from indexes.duplicates.catalogue import StoredGroup, counts, groups_page
from indexes.duplicates.facts import Facts, facts_of
from indexes.duplicates.levels import LEVELS, MEANINGS, Level
from indexes.duplicates.pairs import Pair
from indexes.store.base import Store

SHOWN_SIDE = 320
"""Long side, in pixels, of the pictures in a report."""
SHOWN_GROUPS = 200
"""Groups in the HTML; the JSON has all."""
RANDOM_PAIRS, UNSURE_PAIRS = 50, 20
"""Pairs of a contact sheet: drawn at random, and those of least confidence."""
STYLE = """
body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:1200px;padding:0 1em;
color:#222;background:#fff}
table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right}
td:first-child,th:first-child,td:last-child,th:last-child{text-align:left}
article{border-top:1px solid #ccc;padding:.8em 0}
.row{display:flex;flex-wrap:wrap;gap:1em}
figure{margin:0;width:320px}figure.best{outline:3px solid #2a7;outline-offset:3px}
.frame{position:relative;line-height:0}.frame img{width:100%}
.frame svg{position:absolute;inset:0;width:100%;height:100%}
rect{fill:none;stroke:#e22;stroke-width:2;vector-effect:non-scaling-stroke}
figcaption{overflow-wrap:anywhere}small{color:#555}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}small{color:#aaa}}
"""


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a report."""

    html: Path
    json: Path
    ids: Path
    to_delete: int
    left_out: int
    """Groups that the HTML does not show."""


def write_report(
    store: Store, folder: Path, levels: Collection[Level], shown: int = SHOWN_GROUPS
) -> Written:
    """Write all three files; `ids_to_delete.txt` names all but the best of groups of `levels`."""
    folder.mkdir(parents=True, exist_ok=True)
    doomed = [at for found in to_delete(store, levels) for at in found.group.images[1:]]
    written = Written(
        folder / "duplicates.html",
        folder / "duplicates.json",
        folder / "ids_to_delete.txt",
        len(doomed),
        max(0, sum(one.groups for one in counts(store).values()) - shown),
    )
    written.ids.write_text("".join(f"{at}\n" for at in doomed))
    _write_json(store, written.json)
    page, _ = groups_page(store, None, "", shown) if shown else ([], None)
    parts = [_overview(store, levels, written)]
    level = ""
    for found in page:
        if found.group.level != level:
            level = found.group.level
            parts.append(f"<h2>{level}: {html.escape(MEANINGS[level])}</h2>")
        parts.append(_group(store, found))
    written.html.write_text(_document("Duplicates", parts))
    return written


def write_contact_sheet(store: Store, path: Path, level: Level, seed: int = 0) -> int:
    """Write a sheet with pairs of a level, drawn at random and the least sure. Returns their
    number."""
    chances = random.Random(seed)
    drawn: list[Pair] = []
    unsure: list[Pair] = []
    total = 0
    for found in all_groups(store, level):
        for pair in found.group.pairs:
            total += 1
            if len(drawn) < RANDOM_PAIRS:
                drawn.append(pair)
            elif (at := chances.randrange(total)) < RANDOM_PAIRS:
                drawn[at] = pair
            unsure = sorted([*unsure, pair], key=lambda one: one.confidence)[:UNSURE_PAIRS]
    parts = [
        f"<p>{total} pairs are {level}: {html.escape(MEANINGS[level])}. A decision on a pair that "
        "is wrong here keeps the level from becoming automatic.</p>"
    ]
    for title, pairs in (("The least sure", unsure), ("At random", drawn)):
        parts.append(f"<h2>{title}: {len(pairs)}</h2>")
        parts += [_pair(store, pair) for pair in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_document(f"Pairs of level {level}", parts))
    return len(unsure) + len(drawn)


def _write_json(store: Store, path: Path) -> None:
    """Write all groups, a line each, so that any number of them fits."""
    with path.open("wb") as file:
        file.write(b'{"levels":' + orjson.dumps(_levels(store)) + b',"groups":[')
        separator = b"\n"
        for level in LEVELS:
            for found in all_groups(store, level):
                file.write(separator + orjson.dumps(_json(found)))
                separator = b",\n"
        file.write(b"\n]}\n")


def _levels(store: Store) -> dict[str, dict[str, int]]:
    return {level: one._asdict() for level, one in counts(store).items()}


def _json(found: StoredGroup) -> dict[str, Any]:
    group = found.group
    return {
        "group_id": found.group_id,
        "level": group.level,
        "best": group.images[0],
        "images": group.images,
        "bytes": group.size,
        "reasons": {str(at): why for at, why in (group.reasons or {}).items()},
        "pairs": [pair.row() for pair in group.pairs],
    }


def _overview(store: Store, levels: Collection[Level], written: Written) -> str:
    rows = "".join(
        f"<tr><td>{level}</td><td>{one.groups}</td><td>{one.images}</td>"
        f"<td>{one.bytes / 2**20:,.1f} MiB</td><td>{html.escape(MEANINGS[level])}</td></tr>"
        for level, one in counts(store).items()
    )
    left_out = (
        f" {written.left_out} groups are not shown here; all are in duplicates.json."
        if written.left_out
        else ""
    )
    chosen = ", ".join(level for level in LEVELS if level in levels)
    return (
        "<table><tr><th>level</th><th>groups</th><th>images</th><th>to win</th><th></th></tr>"
        f"{rows}</table><p>The best picture of a group has a frame. What differs is marked. "
        f"ids_to_delete.txt names {written.to_delete} images: all but the best of {chosen}. "
        f"Nothing was deleted.{left_out}</p>"
    )


def _group(store: Store, found: StoredGroup) -> str:
    group, reasons = found.group, found.group.reasons or {}
    facts = facts_of(store, store.images_by_id(group.images).values())
    best = group.images[0]
    regions: dict[int, list[Sequence[int]]] = {}
    said: dict[int, list[str]] = {at: list(reasons.get(at, ())) for at in group.images}
    for pair in group.pairs:
        if best not in (pair.a, pair.b):
            continue
        other = pair.other(best)
        said.setdefault(other, []).append(_words(pair))
        place = 0 if other == pair.a else 1
        regions[other] = [one[place] for one in pair.regions]
    figures = _figures(store, group.images, facts, regions, said, best)
    return f"<article><div class=row>{figures}</div></article>"


def _pair(store: Store, pair: Pair) -> str:
    ids = pair.a, pair.b
    facts = facts_of(store, store.images_by_id(ids).values())
    regions = {at: [one[place] for one in pair.regions] for place, at in enumerate(ids)}
    figures = _figures(store, ids, facts, regions, {}, None)
    return f"<article><p>{_words(pair)}</p><div class=row>{figures}</div></article>"


def _words(pair: Pair) -> str:
    changes = ", ".join(pair.changes)
    shared = (
        "" if pair.overlap is None else f", shows {pair.overlap[0]:.0%} and {pair.overlap[1]:.0%}"
    )
    sure = f"confidence {pair.confidence:.2f}"
    return f"{pair.relation}{', ' if changes else ''}{changes}{shared}, {sure}"


def _figures(
    store: Store,
    ids: Iterable[int],
    facts: Mapping[int, Facts],
    regions: Mapping[int, Sequence[Sequence[int]]],
    said: Mapping[int, Sequence[str]],
    best: int | None,
) -> str:
    parts = []
    previews = store.previews(sorted(facts))
    for at in ids:
        if at not in facts:
            continue
        one = facts[at]
        image = one.image
        jpeg = previews[at].jpeg if at in previews else None
        size = f"{one.bytes:,} bytes" if one.bytes else ""
        lines = [f"<b>{at}</b> {html.escape(_name(one))}"]
        lines.append(" · ".join(filter(None, (f"{image.width}×{image.height}", one.format, size))))
        lines += [f"<small>{html.escape(why)}</small>" for why in said.get(at, ())]
        frame = _frame(jpeg, (image.width, image.height), regions.get(at, ()))
        kind = " class=best" if at == best else ""
        caption = "<br>".join(lines)
        parts.append(f"<figure{kind}>{frame}<figcaption>{caption}</figcaption></figure>")
    return "".join(parts)


def _name(facts: Facts) -> str:
    name = facts.image.upload_name or facts.image.file_name
    return name.encode("utf-8", "replace").decode()


def _frame(jpeg: bytes | None, size: tuple[int, int], boxes: Sequence[Sequence[int]]) -> str:
    if jpeg is None:
        return "<p>no preview</p>"
    shown = "".join(
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}"/>'
        for x, y, width, height in boxes
    )
    overlay = (
        f'<svg viewBox="0 0 {size[0]} {size[1]}" preserveAspectRatio="none">{shown}</svg>'
        if shown
        else ""
    )
    data = base64.b64encode(_small(jpeg)).decode()
    return f'<div class=frame><img alt="" src="data:image/jpeg;base64,{data}">{overlay}</div>'


def _small(jpeg: bytes) -> bytes:
    """A preview reduced for the report; as it is where it can't be read."""
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        return jpeg
    factor = SHOWN_SIDE / max(pixels.shape[:2])
    if factor < 1:
        pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def _document(title: str, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{title}</h1>\n{body}\n</html>\n"
    )
