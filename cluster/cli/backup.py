"""`ambience backup` and `ambience restore`."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.console import out
from cluster.service.data_folder import locked
from deployments.jobs import forget_running, running_job
from deployments.settings import TRAINABLE, data_folder, store_url
from indexes.store.lmdb.backup import back_up, check, restore
from indexes.store.url import open_store
from models.errors import InvalidInput

app = typer.Typer(help="Back up and restore.")

FILE = "backup.json"
FOLDER = Annotated[Path, typer.Argument(help="The backup's folder.", file_okay=False)]
POSTGRES = (
    "the store is PostgreSQL's: use `pg_dump --schema=ambience --format=custom` and `pg_restore`"
)


@app.command(epilog="**Example**\n\n    ambience backup /mnt/backups/monday")
def backup(folder: FOLDER) -> None:
    """Back up the store and the trained files to a new folder, also while the service runs."""
    source = _store_folder()
    if not (source / "data.mdb").exists():
        raise InvalidInput(f"there is no store in {source}")
    with running_job("backup", str(folder)) as job:
        with closing(open_store(store_url(None))) as store:
            job.begin("copying and reading back", store.count())
        state = back_up(source, folder / "store", job.update)
        job.update(state.images)
        for name in TRAINABLE:
            if (data_folder() / name).is_dir():
                shutil.copytree(data_folder() / name, folder / name)
        taken = {"taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        (folder / FILE).write_text(json.dumps(taken | asdict(state), indent=2))
        job.report({"images": state.images})
    out.print(f"{state.images} images are backed up in {folder}.", soft_wrap=True)


@app.command("restore", epilog="**Example**\n\n    ambience restore /mnt/backups/monday --replace")
def restore_backup(
    folder: FOLDER,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the images that there are.")
    ] = False,
) -> None:
    """Verify a backup and put it into the data folder of a service that doesn't run."""
    target = _store_folder()
    images = _verified(folder)
    with locked(data_folder(), "127.0.0.1", 0):
        if (target / "data.mdb").exists() and not replace:
            raise InvalidInput(f"there is a store in {target}; --replace replaces it")
        restore(folder / "store", target)
        for name in TRAINABLE:
            if (folder / name).is_dir():
                shutil.copytree(folder / name, data_folder() / name, dirs_exist_ok=True)
        with closing(open_store(store_url(None))) as store:
            forget_running(store)
        with running_job("restore", str(folder)) as job:
            job.report({"images": images})
    out.print(f"{images} images are restored; start the service.", soft_wrap=True)


def _verified(folder: Path) -> int:
    """The number of images of a whole backup. Raises AmbienceError for another."""
    try:
        made = json.loads((folder / FILE).read_text())
        images, sha256 = int(made["images"]), str(made["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InvalidInput(f"{folder} holds no finished backup: {exc!r}") from exc
    check(folder / "store", sha256)
    return images


def _store_folder() -> Path:
    scheme, _, rest = store_url(None).partition(":")
    if scheme != "lmdb":
        raise InvalidInput(POSTGRES)
    return Path(rest)
