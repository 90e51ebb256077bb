"""Code that the commands share: where they print, and how they call the service."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ambience.client import Client
from ambience.problems import Forbidden, Problem, ServiceUnreachable
from cluster.service.data_folder import NotRunning, http_url, running_service
from cluster.service.ray_folder import token_file
from deployments.settings import address, data_folder
from models.errors import AmbienceError, InvalidInput

if TYPE_CHECKING:
    from cluster.jobs.pace import Pace

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[Path | None, typer.Option(help="The YAML of all applications.")]
Readers = Annotated[
    int | None, typer.Option(min=1, help="Processes that read pictures; default: one per core.")
]
MaxRate = Annotated[
    float | None, typer.Option(min=0.001, help="At most so many pictures a second.")
]
Hours = Annotated[
    str | None,
    typer.Option(metavar="HH:MM-HH:MM", help="Work only in these hours, such as 22:00-06:00."),
]
SHOWN_BAD = 20
"""Bad pictures that are printed."""


def pace_of(max_rate: float | None, window: str | None) -> Pace:
    """The pace of a job. Raises InvalidInput for a window that is none."""
    from cluster.jobs.pace import Pace, Window

    return Pace(max_rate, None if window is None else Window.parse(window))


def default_config() -> Path:
    """`serve_config.yaml` in the current folder, else the one beside the sources."""
    here = Path("serve_config.yaml")
    return here if here.exists() else Path(__file__).parents[2] / "serve_config.yaml"


def service_url() -> str:
    """URL of the service over AMBIENCE_DATA; without one, AMBIENCE_HOST and AMBIENCE_PORT."""
    try:
        return running_service(data_folder()).url
    except NotRunning:
        return http_url(*address())


@contextlib.contextmanager
def open_client() -> Iterator[Client]:
    """A client of the service. What it raises inside of this context is an AmbienceError."""
    url = service_url()
    key = os.environ.get("AMBIENCE_API_KEY") or _own_key(url)
    try:
        with Client(url, key=key, retries=2) as client:
            yield client
    except ServiceUnreachable as exc:
        raise NotRunning(f"{exc}; start it with `ambience serve`") from exc
    except Forbidden as exc:
        raise AmbienceError(f"{exc}; give the key as AMBIENCE_API_KEY") from exc
    except Problem as exc:
        raise AmbienceError(exc.detail) from exc


def _own_key(url: str) -> str | None:
    """The key that the running service over AMBIENCE_DATA made for its owner."""
    try:
        running = running_service(data_folder())
        same = url == running.url
        return token_file(running.ray_folder).read_text() if same else None
    except (NotRunning, OSError):
        return None


def json_of(text: str) -> Any:
    """The JSON value of an option. Raises InvalidInput."""
    try:
        return json.loads(text)
    except ValueError as exc:
        raise InvalidInput(f"not JSON: {exc}") from exc


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_table(table: Table) -> None:
    """Print a table at its natural width, so that narrow output wraps or cuts no cell."""
    unlimited = out.options.update(max_width=sys.maxsize)
    table.width = Measurement.get(out, unlimited, table).maximum
    out.print(table, soft_wrap=True)
