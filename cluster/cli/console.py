"""Code that the commands share: where they print, and how they call the service."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from cluster.service.data_folder import NotRunning, http_url, running_service
from cluster.service.ray_folder import token_file
from deployments.settings import address, data_folder
from models.errors import AmbienceError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[Path | None, typer.Option(help="The YAML of all applications.")]


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


def call_service(method: str, url: str, body: Any = None, **content: Any) -> Any:
    if content.get("files") is None and body is not None:
        content = {"json": body}
    key = os.environ.get("AMBIENCE_API_KEY") or _own_key(url)
    headers = {"X-API-Key": key} if key else {}
    try:
        answer = httpx.request(method, url, headers=headers, timeout=60, **content)
    except httpx.HTTPError as exc:
        raise NotRunning(f"no answer from {url} ({exc}); start it with `ambience serve`") from exc
    if answer.status_code == 401:
        raise AmbienceError(f"{_detail(answer)}; give the key as AMBIENCE_API_KEY")
    if answer.status_code >= 400:
        raise AmbienceError(_detail(answer))
    return answer.json() if answer.content else None


def _own_key(url: str) -> str | None:
    """The key that the running service over AMBIENCE_DATA made for its owner."""
    try:
        running = running_service(data_folder())
        same = url.startswith(f"{running.url}/")
        return token_file(running.ray_folder).read_text() if same else None
    except (NotRunning, OSError):
        return None


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text[:200]}"


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_table(table: Table) -> None:
    """Print a table at its natural width, so that narrow output wraps or cuts no cell."""
    unlimited = out.options.update(max_width=sys.maxsize)
    table.width = Measurement.get(out, unlimited, table).maximum
    out.print(table, soft_wrap=True)
