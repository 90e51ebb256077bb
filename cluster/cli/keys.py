"""`ambience key`: make API keys."""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated

import typer
import yaml

from cluster.cli.console import err
from deployments.keys import KeyArgs, Role

app = typer.Typer(help="Make API keys.")


@app.command(epilog="**Example**\n\n    ambience key gallery --role write >> keys.yaml")
def key(
    name: Annotated[str, typer.Argument(help="Its name in the access log.")],
    role: Annotated[Role, typer.Option(help="What it may do.")] = "read",
    rate: Annotated[int | None, typer.Option(min=1, help="Most requests a minute.")] = None,
    tag: Annotated[
        str | None, typer.Option(help="Only images with this tag in their metadata exist for it.")
    ] = None,
) -> None:
    """Make an API key: itself on standard error, its entry for `keys_file` on standard output."""
    secret = secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    made = KeyArgs(name=name, sha256=digest, role=role, requests_per_minute=rate, tag=tag)
    err.print(f"The key, which is stored nowhere: {secret}", soft_wrap=True, markup=False)
    print(yaml.safe_dump([made.model_dump(exclude_none=True)], sort_keys=False), end="")
