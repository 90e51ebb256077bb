"""`ambience import` and `ambience export`: features as the old services stored them, or whole
collections as Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

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
LOCAL = "local"
METHODS = ("phash", "color", "backbone", "clip")
"""Extractors that make what the old services stored."""

Points = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Of local: the old service's PostgreSQL, with its table img_points."
    ),
]
Name = Annotated[str | None, typer.Argument(help="A retriever of the config, such as phash.")]


@app.command(
    name="import",
    epilog="**Examples**\n\n    ambience import phash /old/phash\n\n"
    "    ambience import color /old/color --pictures /srv/gallery\n\n"
    "    ambience import local /old/local --points postgresql://old/points\n\n"
    "    ambience import --parquet collection.parquet",
)
def bring_in(
    name: Name = None,
    folder: Annotated[
        Path | None,
        typer.Argument(help="The old service's folder, with its LMDB environments.", exists=True),
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option(help="What `export --parquet` wrote, not NAME and FOLDER.", exists=True),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Where the files of its file names are. With it a later backfill only makes what "
            "is missing.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    points: Points = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Bring in the features of an old service, or a whole collection from Parquet, under the same
    ids, without recomputing them.

    A running service finds them at once. Run it again to resume. Exit status 1 if nothing could be
    brought in.
    """
    from cluster.jobs.transfer.environments import opened
    from cluster.jobs.transfer.importing import Importer, row_from
    from cluster.jobs.transfer.parquet import import_parquet
    from cluster.jobs.transfer.points import SPACE, checked_points, opened_points
    from cluster.jobs.transfer.records import import_records, records_file

    old = _of_old_service(name, folder, parquet)
    _check_points(old, points)
    with (
        _store() as store,
        running_job("import", f"{old.name} from {old.folder}" if old else str(parquet)) as job,
        err.status("importing …") as status,
    ):
        if old is None:
            assert parquet is not None
            done = import_parquet(store, parquet, _progress(job, status))
            if (records := records_file(parquet)).exists():
                import_records(store, records, done)
        else:
            given = read_config(config or default_config())
            limits, progress = decode_limits(given), _progress(job, status)
            if points is not None:
                importer = Importer(store, SPACE, checked_points, pictures, limits)
                opening = opened_points(old.folder, points)
            else:
                method, extractor = _extractor(given, old.name)
                space = Space(old.name, extractor.fingerprint)
                importer = Importer(store, space, row_from(extractor), pictures, limits)
                opening = opened(old.folder, method)
            with opening as batches:
                done = importer.run(batches, progress)
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


@app.command(
    epilog="**Examples**\n\n    ambience export image_text /old/image_text\n\n"
    "    ambience export --parquet collection.parquet"
)
def export(
    name: Name = None,
    folder: Annotated[
        Path | None, typer.Argument(help="A folder without such data.", file_okay=False)
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option(
            help="A new file (*.parquet), or a folder for several, instead of NAME and FOLDER: "
            "all that is stored of every image."
        ),
    ] = None,
    points: Points = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write the features of a retriever as the old services stored them, in LMDB environments, or a
    whole collection as Parquet.

    Features for the old services are those of the model that searches use.
    """
    from cluster.jobs.transfer.environments import write
    from cluster.jobs.transfer.exporting import Outcome, old_from
    from cluster.jobs.transfer.exporting import export as send
    from cluster.jobs.transfer.parquet import export_parquet
    from cluster.jobs.transfer.points import MOST_POINTS_ID, SPACE, checked_points, write_points
    from cluster.jobs.transfer.records import export_records, records_file

    old = _of_old_service(name, folder, parquet)
    _check_points(old, points)
    with (
        _store() as store,
        running_job("export", f"{old.name} to {old.folder}" if old else str(parquet)) as job,
        err.status("exporting …") as status,
    ):
        if old is None:
            assert parquet is not None
            done = Outcome(export_parquet(store, parquet, _progress(job, status)))
            export_records(store, records_file(parquet))
        elif points is not None:
            into = partial(write_points, old.folder, points)
            progress = _progress(job, status)
            done = send(store, SPACE, checked_points, into, progress, MOST_POINTS_ID)
        else:
            method, extractor = _extractor(read_config(config or default_config()), old.name)
            space = Space(old.name, extractor.fingerprint)
            into = partial(write, old.folder, method)
            done = send(store, space, old_from(extractor), into, _progress(job, status))
        job.report(asdict(done) | {"bad": len(done.bad)})
    if as_json:
        print_json(asdict(done))
        return
    _print_bad(done.bad)
    target = parquet or folder
    out.print(f"{done.written} written to {target}, {len(done.bad)} left out.", soft_wrap=True)


class _OldService(NamedTuple):
    """A retriever, and the folder of the old service that it takes the place of."""

    name: str
    folder: Path


def _of_old_service(
    name: str | None, folder: Path | None, parquet: Path | None
) -> _OldService | None:
    """What NAME and FOLDER name; None for Parquet. Raises BadParameter unless it is one of both."""
    if parquet is None and name is not None and folder is not None:
        return _OldService(name, folder)
    if parquet is None or name is not None:
        raise typer.BadParameter("give either NAME and FOLDER, or --parquet")
    return None


def _check_points(old: _OldService | None, points: str | None) -> None:
    """Raises BadParameter unless a database of points is given for `local`, and for it alone."""
    if (old is not None and old.name == LOCAL) != (points is not None):
        raise typer.BadParameter(
            f"--points is the PostgreSQL database with the table img_points, for {LOCAL!r} alone"
        )


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
