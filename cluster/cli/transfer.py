"""`ambience import` and `ambience export`: features as the old services stored them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.status import Status

from cluster.cli.console import Config, Json, default_config, err, out, print_json
from cluster.jobs.sources import Bad
from cluster.service import environment
from cluster.service.applications import RETRIEVER, built_by, decode_limits, read_config
from cluster.service.data_folder import make_private
from deployments.jobs import RunningJob, running_job
from deployments.settings import address, data_folder, store_url
from indexes.store.base import Space, Store
from indexes.store.url import open_store
from models.base import Extractor
from models.errors import UnknownName
from models.registry import make_extractor

app = typer.Typer()

SHOWN_BAD = 20
METHODS = ("phash", "color", "backbone", "clip")
"""Extractors that make what the old services stored."""

Name = Annotated[str, typer.Argument(help="A retriever of the config, such as phash.")]


@app.command(
    name="import",
    epilog="**Examples**\n\n    ambience import phash /old/phash\n\n"
    "    ambience import color /old/color --pictures /srv/gallery",
)
def bring_in(
    name: Name,
    folder: Annotated[
        Path,
        typer.Argument(help="The old service's folder, with its LMDB environments.", exists=True),
    ],
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Where the files of its file names are. With it a later backfill only makes what "
            "is missing.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Bring in the features of an old service, under the same ids, without recomputing them.

    A running service finds them at once. Run it again to resume. Exit status 1 if nothing could be
    brought in.
    """
    from cluster.jobs.transfer.importing import Importer

    given = read_config(config or default_config())
    with (
        _store() as store,
        running_job("import", f"{name} from {folder}") as job,
        err.status("importing …") as status,
    ):
        method, extractor = _extractor(given, name)
        importer = Importer(store, name, extractor, pictures, decode_limits(given))
        done = importer.run(folder, method, _progress(job, status))
        job.report(asdict(done) | {"bad": len(done.bad)})
    if as_json:
        print_json(asdict(done))
    else:
        _print_bad(done.bad)
        out.print(
            f"{done.added} added, {done.extended} extended, {done.already} there already, "
            f"{len(done.bad)} left out.",
            soft_wrap=True,
        )
    if done.bad and not (done.added or done.extended or done.already):
        raise typer.Exit(1)


@app.command(epilog="**Example**\n\n    ambience export image_text /old/image_text")
def export(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="A folder without such data.", file_okay=False)],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write the features of a retriever as the old services stored them, in LMDB environments.

    They are those of the model that searches use.
    """
    from cluster.jobs.transfer.exporting import export as write

    given = read_config(config or default_config())
    with (
        _store() as store,
        running_job("export", f"{name} to {folder}") as job,
        err.status("exporting …") as status,
    ):
        method, extractor = _extractor(given, name)
        space = Space(name, extractor.fingerprint)
        done = write(store, space, extractor, method, folder, _progress(job, status))
        job.report(asdict(done) | {"bad": len(done.bad)})
    if as_json:
        print_json(asdict(done))
        return
    _print_bad(done.bad)
    out.print(f"{done.written} written to {folder}, {len(done.bad)} left out.", soft_wrap=True)


def _progress(job: RunningJob, status: Status) -> Callable[[int], None]:
    def note(images: int) -> None:
        status.update(f"{images} images")
        job.update(images)

    return note


@contextmanager
def _store() -> Iterator[Store]:
    environment.prepare(data_folder(), *address())
    make_private(data_folder())
    with closing(open_store(store_url(None))) as store:
        yield store


def _extractor(config: dict[str, Any], name: str) -> tuple[str, Extractor]:
    """The method of a retriever's own model, with its weights' identity known."""
    retrievers = built_by(RETRIEVER, config)
    known = [one for one, args in retrievers.items() if args["extractor"] in METHODS]
    if name not in known:
        raise UnknownName(
            f"the old services stored no features like those of {name!r}; this config has "
            f"{', '.join(known) or 'none'}"
        )
    args = retrievers[name]
    extractor = make_extractor(args["extractor"], args.get("options"))
    extractor.find(fetch=True)
    return args["extractor"], extractor


def _print_bad(bad: list[Bad]) -> None:
    for one in bad[:SHOWN_BAD]:
        err.print(f"{one.path}: {one.reason}", soft_wrap=True)
    if len(bad) > SHOWN_BAD:
        err.print(f"… and {len(bad) - SHOWN_BAD} more")
