"""What Ray writes to a process's standard output and error goes to a file instead.

Its Python code prints warnings that the raylet sends to every driver, whatever `log_to_driver`
says; its C++ code writes to file descriptor 2. So both descriptors lead to the file.
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
    """Standard output and error as they were: what a person must read goes there."""

    out: TextIO
    err: TextIO


@contextlib.contextmanager
def output_in(log: Path) -> Iterator[Terminal]:
    """Both descriptors lead to the emptied file until the end; an error that ends it is told then.

    Processes that are started meanwhile inherit that.
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
