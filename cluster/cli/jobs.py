"""`ambience jobs`: what runs, what has run, and how to end it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any

import typer
from rich.table import Table

from cluster.cli.console import Json, out, print_json, print_table
from cluster.service.data_folder import make_private
from deployments import jobs
from deployments.settings import data_folder, store_url
from indexes.store.base import Store
from indexes.store.url import open_store

app = typer.Typer(help="Show and cancel batch jobs.", invoke_without_command=True)
SHOWN = 20


@app.callback(
    epilog="**Examples**\n\n    ambience jobs\n\n"
    "    ambience jobs cancel 20261130T084512.120-3f9a1c"
)
def listed(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = SHOWN,
    as_json: Json = False,
) -> None:
    """Show batch jobs, newest first, with state, progress and outcome.

    They are read from the store, so jobs on other machines of a cluster are listed, too.
    """
    if context.invoked_subcommand is not None:
        return
    with _store() as store:
        rows = [one.row() for one in jobs.jobs(store, limit)]
    if as_json:
        print_json({"jobs": rows})
        return
    if not rows:
        out.print("No job has run.")
        return
    table = Table("job", "command", "state", "began", "done", "says")
    for row in rows:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["began"]))
        kind = " ".join(filter(None, (row["kind"], row.get("source"))))
        table.add_row(row["job_id"], kind, row["state"], began, _progress(row), _says(row))
    print_table(table)


@app.command()
def cancel(
    job_id: Annotated[str, typer.Argument(help="An id of `ambience jobs`.")],
) -> None:
    """Ask a job to end. What it has committed stays; the same command resumes it."""
    with _store() as store:
        found = jobs.cancel(store, job_id)
    out.print(f"{found.kind} is asked to end.")


@contextmanager
def _store() -> Iterator[Store]:
    make_private(data_folder())
    with closing(open_store(store_url(None))) as store:
        yield store


def _progress(row: dict[str, Any]) -> str:
    if row.get("total") is None:
        return str(row["done"]) if row["done"] else ""
    return f"{row['done']}/{row['total']}"


def _says(row: dict[str, Any]) -> str:
    if row["state"] != "running":
        return ", ".join(f"{name} {value}" for name, value in row.get("report", {}).items())
    said = [row.get("step", "")]
    if row.get("rate"):
        said.append(f"{row['rate']:g}/s")
    if "eta_seconds" in row:
        said.append(f"{row['eta_seconds']:.0f} s left")
    if row.get("slowest"):
        said.append(f"slowest: {row['slowest']}")
    return ", ".join(filter(None, said))
