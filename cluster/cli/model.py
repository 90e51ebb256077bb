"""`ambience model …`: change the model of a retriever."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cluster.cli.console import (
    SHOWN_BAD,
    Config,
    Hours,
    Json,
    MaxRate,
    Readers,
    default_config,
    err,
    open_client,
    out,
    pace_of,
    print_json,
)
from cluster.service import environment
from cluster.service.data_folder import NotRunning, has_service, make_private
from deployments.jobs import running_job
from deployments.settings import address, data_folder

if TYPE_CHECKING:
    from cluster.jobs.model_change import Comparison, QueryChange

app = typer.Typer(help="Change the model of a retriever.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A retriever with a `next` model, such as global.")]


@app.command(epilog="**Example**\n\n    ambience model compare global --sample 500")
def compare(
    name: Name,
    sample: Annotated[
        int, typer.Option(min=1, help="Number of stored images used as queries.")
    ] = 200,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show how the next model's answers differ: how many of the 10 nearest images both models
    find."""
    from cluster.jobs import model_change

    make_private(data_folder())
    with running_job("model compare", name) as job:
        done = model_change.compare(_read(config), name, sample)
        counts = {"pictures": done.pictures, "sample": done.sample, "overlap": done.overlap}
        job.report(counts)
    if as_json:
        _print_compared(done)
        return
    out.print(
        f"Of {done.pictures} pictures that both models of {name} have features of, {done.sample} "
        f"as queries: overlap@{model_change.DEPTH} is {done.overlap:.3f}.",
        soft_wrap=True,
    )
    table = Table("query", "overlap", "now", "next", title="changed most")
    for one in done.changed:
        now, following = (_listed(done, ids) for ids in (one.own, one.next))
        table.add_row(_listed(done, [one.image_id]), f"{one.overlap:.1f}", now, following)
    out.print(table)


@app.command(epilog="**Example**\n\n    ambience model complete global --max-rate 20")
def complete(
    name: Annotated[str, typer.Argument(help="A retriever, such as global.")],
    config: Config = None,
    workers: Readers = None,
    max_rate: MaxRate = None,
    window: Hours = None,
    as_json: Json = False,
) -> None:
    """Make the features that stored images lack, from what is kept of their pictures: the upload,
    the file or, where the method takes it, the preview. Run it again to resume.

    The service does so by itself, one image after the other; this uses all cores and GPUs.
    """
    environment.prepare(data_folder(), *address())
    from cluster.jobs import runner

    pace = pace_of(max_rate, window)
    kinds = config or default_config()
    outcome = runner.complete(name, kinds, data_folder(), workers, as_json, pace)
    if as_json:
        bad = [asdict(one) for one in outcome.bad]
        print_json({"completed": outcome.done, "already": outcome.already, "bad": bad})
    else:
        for one in outcome.bad[:SHOWN_BAD]:
            err.print(f"{one.path}: {one.reason}", soft_wrap=True)
        out.print(
            f"{outcome.done} completed, {outcome.already} complete already, "
            f"{len(outcome.bad)} bad.",
            soft_wrap=True,
        )


@app.command(
    epilog="**Examples**\n\n    ambience model switch global\n\n"
    "    ambience model switch global --back"
)
def switch(
    name: Name,
    back: Annotated[bool, typer.Option("--back", help="Switch back.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Switch even if images lack its features.")
    ] = False,
    config: Config = None,
) -> None:
    """Let searches use the next model from now on, in all replicas at once and after restarts."""
    from cluster.jobs import model_change

    make_private(data_folder())
    with running_job("model switch", name) as job:
        done = model_change.switch(_read(config), name, back, force, _state(name))
        job.report({"fingerprint": done.fingerprint, "lacking": done.lacking})
    lacking = f"; {done.lacking} pictures lack features of it" if done.lacking else ""
    out.print(f"Searches of {name} use {done.fingerprint} now{lacking}.", soft_wrap=True)


@app.command(epilog="**Example**\n\n    ambience model drop global")
def drop(name: Name, config: Config = None) -> None:
    """Remove the features of models that the config no longer names."""
    from cluster.jobs import model_change

    make_private(data_folder())
    with running_job("model drop", name) as job:
        dropped = model_change.drop(_read(config), name, _state(name))
        job.report({"dropped": dropped})
    out.print(f"Dropped the old features of {dropped} pictures.")


def _read(config: Config) -> dict[str, Any]:
    from cluster.service.applications import read_config

    return read_config(config or default_config())


def _state(name: str) -> dict[str, Any] | None:
    """State of the retriever in the running service; None when no service runs.

    Raises NotRunning when a service runs but does not answer.
    """
    try:
        with open_client() as client:
            rows = client.retrievers()
    except NotRunning:
        if has_service(data_folder()):
            raise
        return None
    return next((dict(row) for row in rows if row["name"] == name), {})


def _print_compared(done: Comparison) -> None:
    def named(image_id: int) -> dict[str, Any]:
        return {"image_id": image_id, "file_name": done.names.get(image_id, "")}

    def row(one: QueryChange) -> dict[str, Any]:
        lists = {"own": [*map(named, one.own)], "next": [*map(named, one.next)]}
        return named(one.image_id) | {"overlap": one.overlap} | lists

    shown = {"pictures": done.pictures, "sample": done.sample, "overlap": done.overlap}
    print_json(shown | {"changed": [row(one) for one in done.changed]})


def _listed(done: Comparison, image_ids: Any) -> str:
    return ", ".join(f"{image_id} {done.names.get(image_id, '')}".strip() for image_id in image_ids)
