"""The entry point of the command `ambience`."""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    """Run the command line, or say what to install for it."""
    try:
        command_line = importlib.import_module("cluster.cli.main")
    except ModuleNotFoundError as exc:
        print(
            f"ambience: {exc.name} is not installed; the client alone is. "
            "For the command line and the service: pip install 'ambience[serve]'",
            file=sys.stderr,
        )
        sys.exit(1)
    command_line.main()
