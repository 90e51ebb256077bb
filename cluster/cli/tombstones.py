"""`ambience tombstones`: pictures that were deleted to stay away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cluster.cli.console import Json, out, print_json, print_table
from cluster.service.data_folder import make_private
from deployments.settings import data_folder, store_url
from deployments.tombstones import lists, records
from indexes.store.base import Store
from indexes.store.url import open_store

app = typer.Typer(
    help="Pictures that were deleted with `--remember`: list, export, import, forget.",
    invoke_without_command=True,
)
PAGE = 256

Pdq = Annotated[
    bool, typer.Option("--pdq", help="A list of PDQ hashes: `hash,quality,note` a line.")
]


@app.callback(epilog="**Example**\n\n    ambience tombstones")
def listed(context: typer.Context, as_json: Json = False) -> None:
    """List them."""
    if context.invoked_subcommand is not None:
        return
    with _store() as store:
        rows = [one.row() for one in lists.all_tombstones(store)]
    if as_json:
        print_json({"tombstones": rows})
        return
    table = Table("tombstone", "deleted", "image", "file", "note")
    for row in rows:
        when = time.strftime("%Y-%m-%d", time.localtime(row["created"]))
        image, file = str(row.get("image_id", "")), row.get("file_name", "")
        table.add_row(row["tombstone_id"], when, image, file, row["note"])
    print_table(table)


@app.command(
    epilog="**Examples**\n\n    ambience tombstones export banned.jsonl\n\n"
    "    ambience tombstones export banned.pdq --pdq"
)
def export(
    path: Annotated[Path, typer.Argument(help="The file to write.", dir_okay=False)],
    pdq: Pdq = False,
) -> None:
    """Write all, with preview and features: a JSON object a line, which `import` reads back."""
    with _store() as store, path.open("w") as file:
        count = 0
        for line in lists.pdq_lines(store) if pdq else lists.json_lines(store):
            file.write(line + "\n")
            count += 1
    out.print(f"{count} written to {path}.")


@app.command(
    name="import",
    epilog="**Examples**\n\n    ambience tombstones import banned.jsonl\n\n"
    "    ambience tombstones import list.csv --pdq",
)
def bring_in(
    path: Annotated[Path, typer.Argument(help="The file to read.", exists=True, dir_okay=False)],
    pdq: Pdq = False,
) -> None:
    """Bring in tombstones; those that are there already are replaced.

    A running service knows them at once. Run it again to resume.
    """
    with _store() as store, path.open() as file:
        count = lists.bring_in(store, lists.read_pdq(file) if pdq else lists.read_json(file))
    out.print(f"{count} brought in.")


@app.command(
    epilog="**Example**\n\n    ambience tombstones forget 9f86d081884c7d659a2feaa0c55ad015"
)
def forget(
    tombstone_ids: Annotated[list[str], typer.Argument(help="Ids of `ambience tombstones`.")],
) -> None:
    """Let pictures come back."""
    with _store() as store:
        for tombstone_id in tombstone_ids:
            records.forget(store, tombstone_id)
    out.print(f"{len(tombstone_ids)} forgotten.")


@contextmanager
def _store() -> Iterator[Store]:
    make_private(data_folder())
    with closing(open_store(store_url(None))) as store:
        yield store
