"""`ambience train`: train indexes on the stored features."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cluster.cli.console import Config, Json, default_config, out, print_json
from cluster.service import environment
from cluster.service.data_folder import make_private
from deployments.jobs import running_job
from deployments.settings import address, data_folder


class _ByName(TyperGroup):
    """Make `ambience train NAME` mean `ambience train lists NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["lists", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_ByName, help="Train indexes on stored features.", no_args_is_help=True)


@app.command(epilog="**Example**\n\n    ambience train image_text")
def lists(
    name: Annotated[str, typer.Argument(help="A retriever of vectors, such as global, or local.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Train the inverted lists of a retriever, for collections of a million images and more.

    `ambience train NAME` is enough. A running service builds a new index beside the old one and
    swaps them without a gap. An interrupted training resumes when it is run again.
    """
    environment.prepare(data_folder(), *address())
    from cluster.jobs import runner

    done = runner.train(name, config or default_config(), data_folder(), quiet=as_json)
    if as_json:
        print_json(asdict(done) | {"path": str(done.path)})
        return
    out.print(
        f"Training {done.version} of {name}: {done.lists} lists, trained on {done.points} rows of "
        f"{done.pictures} pictures, in {done.path}.",
        soft_wrap=True,
    )


@app.command(epilog="**Example**\n\n    ambience train whitening global")
def whitening(
    name: Annotated[str, typer.Argument(help="A retriever of vectors, such as global.")],
    dimensions: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of directions; default: all.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Fit PCA whitening to the stored features of a retriever.

    A running service builds a new index beside the old one and swaps them without a gap.
    """
    from cluster.jobs import training
    from cluster.service.applications import read_config

    make_private(data_folder())
    with running_job("train whitening", name) as job:
        done = training.train_whitening(read_config(config or default_config()), name, dimensions)
        job.report(asdict(done) | {"path": str(done.path)})
    if as_json:
        print_json(asdict(done) | {"path": str(done.path)})
        return
    out.print(
        f"Whitening {done.version} of {name}: {done.dimensions} directions of {done.pictures} "
        f"pictures, in {done.path}.",
        soft_wrap=True,
    )
