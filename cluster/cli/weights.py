"""`ambience weights …`: the weights of models, also for a machine without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cluster.cli.console import Config, Json, default_config, err, print_json, print_table

if TYPE_CHECKING:
    from cluster.jobs.weights import NeededWeights

app = typer.Typer(help="List and fetch the weights of models.", no_args_is_help=True)

EXIT_INCOMPLETE = 1


@app.command(name="list", epilog="**Example**\n\n    ambience weights list --json")
def list_(config: Config = None, as_json: Json = False) -> None:
    """Show what the config needs: ids, revisions, bytes, SHA-256 and where they lie."""
    from cluster.jobs.weights import needed_weights

    _print(list(needed_weights(_read(config), fetch=False)), as_json)


@app.command(
    epilog="**Examples**\n\n    ambience weights fetch\n\n"
    "    ambience weights fetch --config serve_config.gpu.yaml --to /media/stick/weights"
)
def fetch(
    to: Annotated[
        Path | None, typer.Option(help="A folder to carry to a machine without a network.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Fetch what the config needs and this machine lacks.

    With --to it is copied into a folder as well, without links. Set AMBIENCE_WEIGHTS to that folder
    on the other machine; `sha256sum -c SHA256SUMS` checks it there. Exit status 1 when something
    can't be fetched.
    """
    from cluster.jobs.weights import carry, needed_weights, write_sums
    from models.weights import is_local

    needed = []
    sums: dict[str, str] = {}
    for one in needed_weights(_read(config), fetch=True):
        needed.append(one)
        if to is not None and one.found is not None and not is_local(one.weights):
            sums |= carry(one, to)
    if to is not None and sums:
        write_sums(sums, to)
    _print(needed, as_json)
    if any(one.found is None for one in needed):
        raise typer.Exit(EXIT_INCOMPLETE)


def _read(config: Path | None) -> dict[str, Any]:
    from cluster.service.applications import read_config

    return read_config(config or default_config())


def _print(needed: list[NeededWeights], as_json: bool) -> None:
    rows = [one.row() for one in needed]
    if as_json:
        print_json(rows)
        return
    table = Table("application", "id", "revision", "MB", "sha256", "where")
    for one, row in zip(needed, rows, strict=True):
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:,.1f}"
        digest = "" if one.found is None else one.found.sha256[:12]
        where = row["path"] or "not on this machine"
        table.add_row(row["application"], row["id"], row["revision"][:12], size, digest, where)
    print_table(table)
    for row in rows:
        if row["reason"]:
            err.print(f"{row['application']}: {row['reason']}", soft_wrap=True)
