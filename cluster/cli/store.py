"""`ambience store …`: move stored data."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from cluster.cli.console import Json, err, out, print_json
from deployments.jobs import running_job
from indexes.store.copying import copy_store
from indexes.store.url import open_store

app = typer.Typer(help="Move stored data.", no_args_is_help=True)

EXIT_INCOMPLETE = 1


@app.command(
    epilog="**Example**\n\n"
    "    ambience store copy lmdb:data/store postgresql://ambience@db/ambience"
)
def copy(
    source: Annotated[str, typer.Argument(help="The URL of a store; it may be in use.")],
    target: Annotated[str, typer.Argument(help="The URL of the store that becomes equal to it.")],
    as_json: Json = False,
) -> None:
    """Make TARGET equal to SOURCE, then compare both.

    Run it while the service is running, and again after stopping the service to copy the last
    changes; then start the service with AMBIENCE_STORE=TARGET. Exit status 1 when SOURCE kept
    changing.
    """
    with (
        closing(open_store(source)) as one,
        closing(open_store(target)) as other,
        running_job("store copy", f"{_named(source)} to {_named(target)}", source) as job,
        err.status("comparing …") as status,
    ):

        def note(count: int) -> None:
            status.update(f"{count} compared")
            job.update(count)

        job.begin("comparing", one.count())
        copied = copy_store(one, other, note, job.record)
        job.report(asdict(copied))
    if as_json:
        print_json(asdict(copied))
    else:
        verdict = (
            f"both hold the same, checksum {copied.checksum}"
            if copied.complete
            else "the source went on changing: stop what writes to it and run this again"
        )
        out.print(
            f"{copied.images} images: {copied.written} written, {copied.removed} removed; "
            f"{verdict}.",
            soft_wrap=True,
        )
    if not copied.complete:
        raise typer.Exit(EXIT_INCOMPLETE)


def _named(url: str) -> str:
    """The URL of a store without a password."""
    scheme, at, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if at else url
