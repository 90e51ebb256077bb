"""The command line."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ambience.calls import AddOptions, Query
from cluster.cli import backup, keys, tombstones
from cluster.cli import jobs as job_commands
from cluster.cli import model as model_commands
from cluster.cli import store as store_commands
from cluster.cli import train as train_commands
from cluster.cli import weights as weights_commands
from cluster.cli.collection import duplicates, evaluate, fsck, transfer
from cluster.cli.console import (
    SHOWN_BAD,
    Config,
    Hours,
    Json,
    MaxRate,
    Readers,
    default_config,
    err,
    json_of,
    open_client,
    out,
    pace_of,
    print_json,
    service_url,
)
from cluster.cli.tables import print_hits, print_states
from cluster.jobs.failures import expected_error, keep_traceback
from cluster.jobs.sources import IGNORED, Ids
from cluster.service import environment
from cluster.service import supervisor as service
from cluster.service.data_folder import NotRunning, end_leftovers, is_alive, running_service
from deployments.settings import address, data_folder

if TYPE_CHECKING:
    from cluster.jobs.annotate import Outcome

app = typer.Typer(
    help="Image search for a photo gallery. Start with `ambience serve`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(train_commands.app, name="train")
app.add_typer(job_commands.app, name="jobs")
app.add_typer(tombstones.app, name="tombstones")
app.add_typer(model_commands.app, name="model")
app.add_typer(store_commands.app, name="store")
app.add_typer(weights_commands.app, name="weights")
for top_level in (backup, duplicates, evaluate, fsck, keys, transfer):
    app.add_typer(top_level.app)

EXIT_ERROR, EXIT_NOTHING, EXIT_NOT_RUNNING = 1, 3, 4
STOP_SECONDS = 60.0
MOST_DELETED = 100
"""Ids in one request."""

NoKeys = Annotated[
    bool,
    typer.Option(
        "--no-keys", envvar="AMBIENCE_NO_KEYS", help="Listen on a network without API keys."
    ),
]
ImageFile = Annotated[Path, typer.Argument(help="A picture.", exists=True, dir_okay=False)]


@app.command(
    epilog="**Examples**\n\n    ambience serve\n\n"
    "    AMBIENCE_PORT=8080 AMBIENCE_DATA=/srv/ambience ambience serve"
)
def serve(
    config: Config = None,
    reindex: Annotated[
        bool, typer.Option(help="Accept changed extractor options; backfill afterwards.")
    ] = False,
    no_keys: NoKeys = False,
) -> None:
    """Run the service in the foreground until Ctrl-C.

    AMBIENCE_DATA (./data) is the data folder; AMBIENCE_HOST (127.0.0.1) and AMBIENCE_PORT (44444)
    are the address.
    """
    host, port = address()
    service.serve(config or default_config(), data_folder(), host, port, reindex, no_keys)


@app.command(epilog="**Example**: edit serve_config.yaml, then\n\n    ambience deploy")
def deploy(
    config: Config = None,
    reindex: Annotated[bool, typer.Option(help="Accept changed extractor options.")] = False,
    no_keys: NoKeys = False,
) -> None:
    """Apply an edited config to the running service; only what changed restarts."""
    service.deploy(config or default_config(), data_folder(), reindex, no_keys)
    out.print("Deployed.")


@app.command(
    epilog="**Examples**\n\n    ambience manifest | kubectl apply -f -\n\n"
    "    ambience manifest serve > cluster.yaml && serve deploy cluster.yaml"
)
def manifest(
    kind: Annotated[
        Literal["rayservice", "serve"],
        typer.Argument(help="For KubeRay, or for `serve deploy` on any other Ray cluster."),
    ] = "rayservice",
    config: Config = None,
) -> None:
    """Print the applications of the config for a cluster, behind Serve's own proxies."""
    from cluster.manifests import printing
    from cluster.service.applications import read_config

    printed = printing.rayservice if kind == "rayservice" else printing.serve_config
    print(printed(read_config(config or default_config())), end="")


@app.command(epilog="**Example**\n\n    ambience stop")
def stop() -> None:
    """Stop the service over AMBIENCE_DATA."""
    data = data_folder()
    running = running_service(data)
    os.kill(running.pid, signal.SIGTERM)
    until = time.monotonic() + STOP_SECONDS
    while is_alive(running.pid) and time.monotonic() < until:
        time.sleep(0.1)
    if is_alive(running.pid):
        os.kill(running.pid, signal.SIGKILL)
    end_leftovers(data, patience=1)
    out.print("Stopped.")


@app.command(epilog="**Example**\n\n    ambience status --json")
def status(as_json: Json = False) -> None:
    """Show the state of all retrievers and annotators."""
    with open_client() as client:
        rows = client.retrievers()
    url = service_url()
    if as_json:
        print_json({"url": url, "retrievers": rows})
    else:
        print_states(url, rows)


@app.command(epilog="**Examples**\n\n    ambience add cat.jpg\n\n    ambience add cat.jpg --id 7")
def add(
    image: ImageFile,
    image_id: Annotated[
        int | None, typer.Option("--id", help="Image id; default: the next free one.")
    ] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object to store with it.")] = None,
    as_json: Json = False,
) -> None:
    """Add or replace an image."""
    options: AddOptions = {"metadata": json_of(metadata)} if metadata else {}
    with open_client() as client:
        answer = client.add(image, image_id, **options)
    if as_json:
        print_json(answer)
        return
    waiting = [name for name, row in answer["retrievers"].items() if row["state"] == "pending"]
    later = f" (later: {', '.join(waiting)})" if waiting else ""
    part = "; the file is cut short or damaged" if answer.get("truncated") else ""
    out.print(f"Added as image {answer['image_id']}{later}{part}.")


@app.command(
    epilog="**Examples**\n\n    ambience delete 7 8 9\n\n"
    "    ambience delete 7 --remember --note 'not mine'"
)
def delete(
    image_ids: Annotated[list[int], typer.Argument(help="Ids.")],
    remember: Annotated[
        bool, typer.Option("--remember", help="Recognise the pictures when they come back.")
    ] = False,
    note: Annotated[str, typer.Option(help="With --remember: why.")] = "",
) -> None:
    """Delete images from every retriever."""
    with open_client() as client:
        for start in range(0, len(image_ids), MOST_DELETED):
            some = image_ids[start : start + MOST_DELETED]
            client.delete_many(some, remember=remember, note=note)
    out.print(f"Deleted {', '.join(map(str, image_ids))}.")


@app.command(
    epilog="**Examples**\n\n    ambience search cat.jpg\n\n"
    "    ambience search --text 'dog at the sea'\n\n    ambience search --id 7 -k 5 --json"
)
def search(
    image: Annotated[
        Path | None, typer.Argument(help="A picture.", exists=True, dir_okay=False)
    ] = None,
    image_id: Annotated[
        int | None, typer.Option("--id", help="A stored image to search by.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Words to search by; all three may be mixed.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Maximum number of hits.")] = 20,
    retriever: Annotated[
        list[str] | None, typer.Option(help="Only these retrievers (repeat).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search by a picture, by words, or by both. Exit status 3 when nothing is found."""
    query: Query = {"k": k}
    if text is not None:
        query["text"] = text
    if retriever:
        query["retrievers"] = dict.fromkeys(retriever, 1.0)
    if image_id is not None:
        query["image_ids"] = [image_id]
    pictures = [] if image is None else [image]
    with open_client() as client:
        answer = client.search(*pictures, **query)
    if as_json:
        print_json(answer)
    else:
        print_hits(answer["hits"])
    if not answer["hits"]:
        raise typer.Exit(EXIT_NOTHING)


@app.command(
    epilog="**Examples**\n\n    ambience backfill ~/Pictures\n\n"
    "    ambience backfill /srv/gallery --ids filename\n\n"
    "    ambience backfill s3://bucket/pictures --json"
)
def backfill(  # noqa: PLR0913, PLR0917
    source: Annotated[
        str, typer.Argument(help="A folder, a list or a Parquet file of paths, or a URI.")
    ],
    ids: Annotated[
        Ids, typer.Option(help="Ids from `{id}.jpg`, or the next free ones.")
    ] = "sequential",
    config: Config = None,
    workers: Readers = None,
    bad_files: Annotated[
        Path | None,
        typer.Option(help="Where to list files that can't be read; default: in the data folder."),
    ] = None,
    ignore: Annotated[
        list[str],
        typer.Option(help="Names to leave out (repeat), instead of these; '' for none."),
    ] = list(IGNORED),  # noqa: B006
    max_rate: MaxRate = None,
    window: Hours = None,
    as_json: Json = False,
) -> None:
    """Index the pictures of a folder. Run it again to resume, or to index new files.

    A running service finds them at once. Files that can't be read are listed with their reasons and
    do not stop the run.
    """
    environment.prepare(data_folder(), *address())
    from cluster.jobs import runner

    kinds = config or default_config()
    folder = data_folder()
    pace = pace_of(max_rate, window)
    outcome = runner.backfill(source, ids, kinds, folder, workers, as_json, pace, ignore)
    listed = bad_files or folder / "backfill-bad-files.tsv"
    runner.write_bad_files(listed, [*outcome.bad, *outcome.notes])
    if as_json:
        bad = [{"path": one.path, "reason": one.reason} for one in outcome.bad]
        notes = [{"path": one.path, "note": one.reason} for one in outcome.notes]
        counts = {"indexed": outcome.done, "already": outcome.already, "ignored": outcome.ignored}
        print_json({**counts, "left_out": dict(outcome.left_out), "bad": bad, "notes": notes})
        return
    for one in outcome.bad[:SHOWN_BAD]:
        err.print(f"{one.path}: {one.reason}", soft_wrap=True)
    more = f"; bad files are listed in {listed}" if outcome.bad or outcome.notes else ""
    out.print(
        f"{outcome.done} indexed, {outcome.already} there already, {len(outcome.bad)} bad{more}.",
        soft_wrap=True,
    )
    if outcome.left_out or outcome.ignored:
        left = {**outcome.left_out, "ignored by name": outcome.ignored}
        out.print(f"Left out: {', '.join(f'{left[kind]} {kind}' for kind in left if left[kind])}.")


@app.command(
    epilog="**Examples**\n\n    ambience annotate\n\n"
    "    ambience annotate --only caption --write ~/gallery"
)
def annotate(
    only: Annotated[
        list[str] | None, typer.Option(help="Only these annotators of the config (repeat).")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            help="The gallery's folder: id_tags.txt and id_caption.txt go to its folder `import`, "
            "if it has one, else there.",
            file_okay=False,
        ),
    ] = None,
    config: Config = None,
    workers: Readers = None,
    max_rate: MaxRate = None,
    window: Hours = None,
    as_json: Json = False,
) -> None:
    """Make the captions, tags and texts that stored images lack. Run it again to resume.

    Each image is read from its preview, its kept upload or its file. Annotations that a person has
    edited stay. Exit status 1 when no annotator is available and no file is to be written.
    """
    environment.prepare(data_folder(), *address())
    from cluster.jobs import runner

    kinds, folder, pace = config or default_config(), data_folder(), pace_of(max_rate, window)
    outcome = runner.annotate(only or [], kinds, folder, workers, as_json, pace)
    written = runner.write_annotations(write) if write is not None else {}
    if as_json:
        bad = [{"image_id": one.image_id, "reason": one.reason} for one in outcome.bad]
        said = {"annotated": outcome.done, "already": outcome.already, "bad": bad}
        print_json(said | {"unavailable": outcome.unavailable, "written": written})
    else:
        _print_annotated(outcome, written)
    if outcome.unavailable and not (outcome.done or outcome.already or written):
        raise typer.Exit(EXIT_ERROR)


def _print_annotated(outcome: Outcome, written: dict[str, int]) -> None:
    for name, reason in outcome.unavailable.items():
        err.print(f"{name} is left out: {reason}", soft_wrap=True)
    for one in outcome.bad[:SHOWN_BAD]:
        err.print(f"image {one.image_id}: {one.reason}", soft_wrap=True)
    files = "".join(f"; {count} entries in {name}" for name, count in written.items())
    out.print(
        f"{outcome.done} annotated, {outcome.already} there already, "
        f"{len(outcome.bad)} bad{files}.",
        soft_wrap=True,
    )


def main() -> None:
    """Entry point: every error becomes one sentence and an exit status."""
    environment.keep_compiled(data_folder())
    try:
        app()
    except NotRunning as exc:
        err.print(f"ambience: {exc}", soft_wrap=True, markup=False)
        sys.exit(EXIT_NOT_RUNNING)
    except Exception as exc:  # noqa: BLE001 (its traceback is kept)
        known = expected_error(exc)
        sentence = str(known) if known is not None else keep_traceback(exc, data_folder())
        err.print(f"ambience: {sentence}", soft_wrap=True, markup=False)
        sys.exit(EXIT_ERROR)
