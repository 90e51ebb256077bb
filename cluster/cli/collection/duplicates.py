"""`ambience duplicates`: find, report and delete duplicates."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cluster.cli.console import Config, Json, default_config, err, out, print_json, print_table
from cluster.service import environment
from cluster.service.applications import read_config
from cluster.service.data_folder import make_private
from deployments.jobs import RunningJob, running_job
from deployments.settings import address, data_folder, store_url
from indexes.duplicates.catalogue import Counts, counts
from indexes.duplicates.levels import LEVELS, MEANINGS, Level
from indexes.store.base import Store
from indexes.store.url import open_store
from models.errors import InvalidInput
from models.machine import cores

if TYPE_CHECKING:
    from cluster.jobs.duplicates.applying import Applied
    from cluster.jobs.duplicates.following import DuplicateFinder, Outcome
    from cluster.jobs.duplicates.report import Written

app = typer.Typer()

LOOK_SECONDS = 5.0
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


@app.command(
    epilog="**Examples**\n\n    ambience duplicates\n\n"
    "    ambience duplicates --follow\n\n"
    "    ambience duplicates --try resize\n\n"
    "    ambience duplicates --apply --level bytes --level pixels"
)
def duplicates(
    level: Annotated[
        list[str],
        typer.Option(
            help="Level to delete, and to list in ids_to_delete.txt (repeat): "
            + ", ".join(LEVELS)
            + "."
        ),
    ] = ["bytes", "pixels"],  # noqa: B006
    apply: Annotated[
        bool, typer.Option("--apply", help="Delete all but the best of each group, after asking.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Go on with what comes, until Ctrl-C; `--apply` deletes automatic levels only.",
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder of the report; default: in the data folder.", file_okay=False),
    ] = None,
    tried: Annotated[
        Level | None,
        typer.Option("--try", help="Only write a contact sheet of this level, to try its rule."),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Find duplicates among the stored images, and group them by what they are.

    Compares what is new since the last run. Writes duplicates.html with the pictures side by side,
    duplicates.json and ids_to_delete.txt. Deletes nothing without `--apply`; what it deletes comes
    back by an undo for 30 days.
    """
    if apply and not yes and not follow and not sys.stdin.isatty():
        raise InvalidInput("--apply asks on a terminal; without one add --yes", "yes")
    levels = _levels(level)
    _use_one_thread_each()
    environment.prepare(data_folder(), *address())
    make_private(data_folder())
    folder = report or data_folder() / "duplicates"
    with closing(open_store(store_url(None))) as store:
        if tried is not None:
            _write_sheet(store, folder / f"try-{tried}.html", tried, as_json)
            return
        with ThreadPoolExecutor(cores()) as threads, running_job("duplicates") as job:
            finder = _finder(store, config, threads, job)
            outcome = finder.run()
            job.report(_numbers(outcome))
            if follow:
                _follow(store, finder, apply, as_json)
                return
            from cluster.jobs.duplicates.report import write_report

            applied = _applied(store, levels, yes) if apply else None
            written = write_report(store, folder, levels)
        _print(store, outcome, written, applied, as_json)


def _use_one_thread_each() -> None:
    """Replace this process by one whose matrix products and index searches take one thread each.

    Pictures are compared in as many threads as there are cores. If each product took all cores,
    too, they would wait for each other, and take three times as long. The libraries read this when
    they are loaded, which was before this command was known.
    """
    if not os.environ.keys() >= set(THREADS):
        os.environ.update({name: "1" for name in THREADS if name not in os.environ})
        os.execv(sys.executable, sys.orig_argv)


def _levels(given: Sequence[str]) -> list[Level]:
    for name in given:
        if name not in LEVELS:
            raise InvalidInput(f"no level {name!r}; there are {', '.join(LEVELS)}", "level")
    return [level for level in LEVELS if level in given]


def _finder(
    store: Store,
    config: Path | None,
    threads: ThreadPoolExecutor,
    job: RunningJob,
) -> DuplicateFinder:
    from cluster.jobs.duplicates.following import DuplicateFinder
    from cluster.jobs.duplicates.proposers import make_proposers

    proposers = make_proposers(read_config(config or default_config()), store)
    begun: list[int] = []

    def note(done: int, total: int) -> None:
        if begun != [total]:
            begun[:] = [total]
            job.begin("comparing", total)
        job.update(done)

    return DuplicateFinder(store, proposers, threads, note)


def _follow(store: Store, finder: DuplicateFinder, apply: bool, as_json: bool) -> None:
    """Repeat passes as the store changes, until an interrupt."""
    from cluster.jobs.duplicates.applying import apply as delete
    from cluster.jobs.duplicates.applying import automatic_levels

    ended = threading.Event()
    while True:
        if apply:
            delete(store, automatic_levels(store), lambda *_: False)
        head = store.head()
        outcome = finder.run()
        if outcome.new:
            if as_json:
                print_json(_numbers(outcome))
            else:
                out.print(f"{time.strftime('%H:%M:%S')} {_said(outcome)}", soft_wrap=True)
        store.wait(head, LOOK_SECONDS, ended)


def _applied(store: Store, levels: Sequence[Level], yes: bool) -> Applied:
    from cluster.jobs.duplicates.applying import apply

    def asked(level: Level, groups: int) -> bool:
        found = counts(store)[level]
        words = (
            f"Delete {found.images - groups} images of level {level} ({MEANINGS[level]}) and keep "
            f"the best of {groups} groups?"
        )
        return yes or typer.confirm(words)

    return apply(store, levels, asked)


def _write_sheet(store: Store, path: Path, level: Level, as_json: bool) -> None:
    from cluster.jobs.duplicates.report import write_contact_sheet

    pairs = write_contact_sheet(store, path, level)
    if as_json:
        print_json({"contact_sheet": str(path), "pairs": pairs})
    else:
        out.print(f"{pairs} pairs of level {level} are shown in {path}.", soft_wrap=True)


def _print(
    store: Store, outcome: Outcome, written: Written, applied: Applied | None, as_json: bool
) -> None:
    found = counts(store)
    if as_json:
        files = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(written).items()
        }
        levels = {level: one._asdict() for level, one in found.items()}
        deleted = {} if applied is None else {"applied": asdict(applied)}
        print_json({**_numbers(outcome), "levels": levels, "report": files, **deleted})
        return
    _print_levels(found)
    out.print(_said(outcome), soft_wrap=True)
    if applied is not None:
        out.print(f"{len(applied.deleted)} images were deleted.", soft_wrap=True)
    out.print(f"The report is {written.html}.", soft_wrap=True)
    if outcome.left_out:
        err.print(f"{outcome.left_out} unlikely candidates were not compared.", soft_wrap=True)


def _print_levels(found: dict[Level, Counts]) -> None:
    table = Table("level", "groups", "images", "MiB to win", "")
    for level, one in found.items():
        if one.groups:
            size = f"{one.bytes / 2**20:.1f}"
            table.add_row(level, str(one.groups), str(one.images), size, MEANINGS[level])
    if table.row_count:
        print_table(table)
    else:
        out.print("No duplicates.")


def _numbers(outcome: Outcome) -> dict[str, object]:
    return {**asdict(outcome), "pairs": dict(outcome.pairs)}


def _said(outcome: Outcome) -> str:
    pairs = ", ".join(f"{count} {level}" for level, count in outcome.pairs.items()) or "no pairs"
    return f"{outcome.images} images, {outcome.new} of them new: {pairs}."
