"""Redirects what Ray writes to a process's standard output and error to a file.

Ray's Python code prints warnings that the raylet sends to every driver, whatever `log_to_driver`
says, and its C++ code writes to file descriptor 2. So both descriptors are redirected.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Terminal:
    """The original standard output and error, for what a person must read."""

    out: TextIO
    err: TextIO


@contextlib.contextmanager
def output_in(log: Path) -> Iterator[Terminal]:
    """Redirect both descriptors to the emptied file until the end; an exception is reported after
    that.

    Processes that are started meanwhile inherit the redirection.
    """
    log.write_bytes(b"")
    with contextlib.ExitStack() as stack:
        out, err = (
            stack.enter_context(os.fdopen(os.dup(number), "w", buffering=1)) for number in (1, 2)
        )
        stack.callback(_lead_to, out.fileno(), err.fileno())
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        _lead_to(file, file)
        os.close(file)
        yield Terminal(out, err)


def _lead_to(out: int, err: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(out, 1)
    os.dup2(err, 2)
