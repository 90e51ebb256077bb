"""Tables that commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from cluster.cli.console import out, print_table

MEASURES = ("distance", "inliers")


def print_states(url: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each model, and below the table the full reason of each that has one."""
    table = Table("retriever", "state", "pictures", "index", "MiB", "change", "runs on", title=url)
    reasons = {}
    for row in rows:
        for which in ("", *sorted(row.keys() & {"next", "previous"})):
            one = row[which] if which else row
            name = f"  its {which} model" if which else row["name"]
            index, change = ("", "") if which else (row["index"], str(row["applied_seq"]))
            size = f"{one['bytes'] / 2**20:.1f}"
            where = "" if which else _placement(row)
            table.add_row(name, one["state"], str(one["count"]), index, size, change, where)
            if one.get("reason"):
                reasons[f"{row['name']}, its {which} model" if which else name] = one["reason"]
    print_table(table)
    for name, reason in reasons.items():
        out.print(f"{name}: {reason}", soft_wrap=True, markup=False)


def _placement(row: Mapping[str, Any]) -> str:
    """Where a retriever runs, such as `2 × 8 threads` or `1 × cuda`; empty if nowhere yet."""
    where, threads = row.get("device", "cpu"), row.get("threads", 1)
    if where == "cpu":
        where = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{row['replicas']} × {where}" if row["replicas"] else ""


def print_hits(hits: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each hit, with what each retriever says of it."""
    if not hits:
        out.print("Nothing found.")
        return
    table = Table("image", "score", "why")
    for hit in hits:
        why = [" ".join((hit["relation"], *hit.get("changes", ())))] if "relation" in hit else []
        for name, row in hit["retrievers"].items():
            shown = [f"{key} {value:g}" for key, value in row.items() if key in MEASURES]
            shown += ["mirrored"] if row.get("mirrored") else []
            shown += [f"{one['as']} “{one['found']}”" for one in row.get("matched", ())]
            why.append(f"{name}: {', '.join(shown)}")
        table.add_row(str(hit["image_id"]), f"{hit['score']:.4f}", "; ".join(why))
    out.print(table)
