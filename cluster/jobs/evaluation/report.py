"""Writes an evaluation: one HTML file, its plots as PNG, and JSON."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from cluster.jobs.evaluation.figures import FUSED, Figures
from cluster.jobs.evaluation.proposals import Measured, Proposal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "evaluation.html"
NUMBERS = "evaluation.json"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  color-scheme: light dark; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; background: white; }
"""


def write_report(folder: Path, found: Figures, proposal: Proposal) -> Path:
    """Write all files into a folder, which is made; returns the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = {"figures": asdict(found), "proposal": asdict(proposal)}
    (folder / NUMBERS).write_bytes(orjson.dumps(shown, option=orjson.OPT_INDENT_2))
    plots = {"recall": _recall_plot(found), "calibration": _calibration_plot(found)}
    images = {name: _png(plot) for name, plot in plots.items()}
    for name, data in images.items():
        (folder / f"{name}.png").write_bytes(data)
    page = folder / PAGE
    page.write_text(_page(found, proposal, images))
    return page


def _page(found: Figures, proposal: Proposal, images: Mapping[str, bytes]) -> str:
    names = (FUSED, *found.retrievers)
    recall = [
        (
            alteration,
            *(f"{row[name].at_1:.2f} / {row[name].at_10:.2f}" for name in names),
            f"{found.false_hits[alteration]:.3f}",
        )
        for alteration, row in found.recall.items()
    ]
    sure = [(name, f"{found.calibration_error[name]:.3f}") for name in names]
    times = [
        (stage, f"{middle:.1f}", f"{high:.1f}")
        for stage, (middle, high) in found.milliseconds.items()
    ]
    before, after = proposal.before, proposal.after
    weights = ", ".join(f"{name} {weight:g}" for name, weight in proposal.weights.items())
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Evaluation</title>",
        f"<style>{STYLE}</style><h1>How well altered copies are found</h1>",
        f"<p>{found.pictures} pictures of the collection were altered and searched for. A cell "
        "has recall@1 / recall@10: the share of copies whose picture is first, and among the "
        "first ten.",
        _table(("copy", *names, "with a false verified hit"), recall),
        _image(images["recall"], "Recall at 1 by copy and retriever"),
        "<h2>Is a confidence what it says?</h2>",
        "<p>The expected calibration error is the mean distance between the confidence of hits and "
        "the share of them that is right. A hit is right if it is the picture, or if the unaltered "
        "picture finds it, too.",
        _table(("", "calibration error"), sure),
        _image(images["calibration"], "Share of right hits by confidence"),
        "<h2>Time</h2>",
        _table(("milliseconds", "median", "95th percentile"), times),
        "<h2>Proposal</h2>",
        f"<p>min_confidence {proposal.min_confidence:g}; weights: {weights or 'as they are'}. "
        "It was chosen on one half of the pictures; these are the figures of the other half.",
        _table(("", "as shipped", "proposed"), _compared(before, after)),
        "<p><code>ambience evaluate --apply</code> puts it to use, <code>--reset</code> takes it "
        "back.</html>",
    ]
    return "\n".join(parts)


def _compared(before: Measured, after: Measured) -> list[tuple[str, ...]]:
    rows = {
        "copies found": (before.found, after.found),
        "searches with a wrong hit": (before.wrong, after.wrong),
        "mean reciprocal rank": (before.reciprocal_rank, after.reciprocal_rank),
    }
    return [(name, f"{one:.3f}", f"{other:.3f}") for name, (one, other) in rows.items()]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><thead>{row(head, 'th')}</thead><tbody>{body}</tbody></table>"


def _image(data: bytes, about: str) -> str:
    source = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(about)}" src="data:image/png;base64,{source}">'


def _recall_plot(found: Figures) -> Figure:
    names = (FUSED, *found.retrievers)
    cells = np.array([[row[name].at_1 for name in names] for row in found.recall.values()])
    figure = _figure(2 + 0.9 * len(names), 1 + 0.3 * len(cells))
    axes = figure.subplots()
    axes.imshow(cells, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(cells)), list(found.recall))
    for (down, across), value in np.ndenumerate(cells):
        ink = "black" if value > 0.6 else "white"
        axes.text(across, down, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
    axes.set_title("recall@1")
    return figure


def _calibration_plot(found: Figures) -> Figure:
    figure = _figure(5, 5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    for name, bins in found.calibration.items():
        axes.plot([one.confidence for one in bins], [one.right for one in bins], "o-", label=name)
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend()
    return figure


def _figure(width: float, height: float) -> Figure:
    # Without pyplot, which would look for a screen and keep every figure.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    target: Any = io.BytesIO()
    figure.savefig(target, format="png", dpi=110)
    data: bytes = target.getvalue()
    return data
