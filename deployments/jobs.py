"""Batch jobs as others see them: records in the store with state, progress and outcome.

A job's process writes its record at most once a second and looks whether it is to end. One that
writes no more for LOST_SECONDS has died.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import orjson

from deployments.settings import store_url
from indexes.store.records import RecordKey, Records
from indexes.store.url import open_store
from models.errors import AmbienceError, Conflict, UnknownName

log = logging.getLogger(__name__)

State = Literal["running", "finished", "failed", "cancelled"]
JOB, CANCEL = "job", "job-cancel"
"""Kinds of records: of jobs, and of requests to end them."""
BEAT_SECONDS = 1.0
IDLE_SECONDS = 5.0
"""Seconds after which a record is written without progress."""
LOST_SECONDS = 30.0
"""Seconds without a write after which a job has died; clocks of machines differ by less."""
PATIENCE_SECONDS = 10.0
"""Seconds that a job has to end by itself before it is interrupted as by Ctrl-C."""
CANCELLED = "the job was cancelled; run it again to resume"
KEPT = 200
"""Number of ended jobs that are kept."""


class JobCancelled(Conflict):
    """The job was cancelled: run the same command again to resume it."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The record of a job."""

    job_id: str
    """Ids sort by the time at which their jobs began."""
    kind: str
    """The command, such as `backfill`."""
    began: float
    """Seconds since the epoch; so are `ended` and `seen`."""
    seen: float
    """When the job last wrote its record."""
    state: State = "running"
    source: str | None = None
    """What it works on: a folder, a retriever."""
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    ended: float | None = None
    step: str | None = None
    """What it does now."""
    done: int = 0
    total: int | None = None
    rate: float | None = None
    """What it does a second, since its step began."""
    slowest: str | None = None
    """The stage that the others wait for."""
    report: Mapping[str, Any] | None = None
    """Its outcome; of a failed job, the `error`."""

    def row(self) -> dict[str, Any]:
        """The job as JSON, without what is not known."""
        row = {name: value for name, value in asdict(self).items() if value is not None}
        if self.state == "running" and self.rate and self.total is not None:
            row["eta_seconds"] = round(max(0, self.total - self.done) / self.rate, 1)
        return row

    def as_seen(self, now: float) -> JobStatus:
        """The status, failed if its process is gone."""
        if self.state != "running" or now - self.seen < LOST_SECONDS:
            return self
        report = {**(self.report or {}), "error": "its process has ended without a word"}
        return replace(self, state="failed", ended=self.seen, report=report)


def jobs(store: Records, limit: int = KEPT) -> list[JobStatus]:
    """The jobs, those that began last first."""
    now = time.time()
    found = store.records(JOB, limit=10 * KEPT)
    return [_status(one.value).as_seen(now) for one in reversed(found)][:limit]


def job(store: Records, job_id: str) -> JobStatus:
    """One job. Raises UnknownName."""
    value = store.record(JOB, job_id)
    if value is None:
        raise UnknownName(f"no job {job_id[:80]!r}; `GET /v1/jobs` lists them", "job_id")
    return _status(value).as_seen(time.time())


def cancel(store: Records, job_id: str) -> JobStatus:
    """Ask a job to end. It does so at its next progress, or within seconds; what it has committed
    stays. Raises UnknownName, and Conflict if it has ended."""
    found = job(store, job_id)
    if found.state != "running":
        raise Conflict(f"job {job_id} has ended: {found.state}", "job_id")
    store.write_records({RecordKey(CANCEL, job_id): b"{}"})
    return found


class RunningJob:
    """A job in this process. Raises JobCancelled from `update` once it is to end."""

    def __init__(self, store: Records, kind: str, source: str | None) -> None:
        now = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
        job_id = f"{stamp}.{int(now * 1000) % 1000:03}-{secrets.token_hex(3)}"
        self._store = store
        self._status = JobStatus(job_id, kind, now, now, source=source)
        self._lock = threading.Lock()
        self._changed = False
        self._cancelled: float | None = None
        self._step_began = time.monotonic()
        self._first = 0
        self._over = threading.Event()
        self._write()
        _remove_old(store)
        self._beating = threading.Thread(target=self._beat, name="job", daemon=True)
        self._beating.start()

    @property
    def status(self) -> JobStatus:
        return self._status

    @property
    def record(self) -> RecordKey:
        """The name of its record."""
        return RecordKey(JOB, self._status.job_id)

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled is not None

    def begin(self, step: str, total: int | None) -> None:
        """Begin a step of `total` pieces of work."""
        self._step_began, self._first = time.monotonic(), 0
        self._set(step=step, done=0, total=total, rate=None, slowest=None)

    def update(self, done: int, total: int | None = None, slowest: str | None = None) -> None:
        """Say how far the step is. Raises JobCancelled."""
        seconds = time.monotonic() - self._step_began
        if not self._status.done:
            # What came first took the start of the workers, too.
            self._step_began, self._first, seconds = time.monotonic(), done, 0.0
        rate = round((done - self._first) / seconds, 3) if seconds > 0 else None
        whole = self._status.total if total is None else total
        self._set(done=done, total=whole, rate=rate, slowest=slowest)
        self.look()

    def look(self) -> None:
        """Raise JobCancelled if the job is to end."""
        if self.is_cancelled:
            raise JobCancelled(CANCELLED)

    def report(self, outcome: Mapping[str, Any]) -> None:
        """Say what came of it."""
        self._set(report=outcome)

    def end(self, state: State, error: str | None = None) -> None:
        """Write the final record. Raises StoreUnavailable."""
        self._over.set()
        self._beating.join()
        report = self._status.report
        if error is not None:
            report = {**(report or {}), "error": error}
        self._set(state=state, report=report, ended=time.time(), slowest=None)
        self._write({RecordKey(CANCEL, self._status.job_id): None})

    def _set(self, **changes: Any) -> None:
        with self._lock:
            self._status = replace(self._status, **changes)
            self._changed = True

    def _write(self, more: Mapping[RecordKey, bytes | None] = {}) -> None:
        with self._lock:
            self._status = replace(self._status, seen=time.time())
            self._changed = False
            value = orjson.dumps(asdict(self._status))
        self._store.write_records({self.record: value, **more})

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                if self._changed or time.time() - self._status.seen >= IDLE_SECONDS:
                    self._write()
                if self._store.record(CANCEL, self._status.job_id) is not None:
                    self._ask_to_end()
            except AmbienceError as exc:
                log.warning("the state of this job is not written: %s", exc)

    def _ask_to_end(self) -> None:
        if self._cancelled is None:
            self._cancelled = time.monotonic()
        elif time.monotonic() - self._cancelled > PATIENCE_SECONDS:
            # It waits for workers, or for its hours.
            self._cancelled = float("inf")
            # Not to the process: another thread might get it, and the main one wait on.
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)


@contextmanager
def running_job(
    kind: str, source: str | None = None, url: str | None = None
) -> Iterator[RunningJob]:
    """A job that others see in the store while this runs, and afterwards with its outcome.

    `url` names the store; None is the configured one, whose data folder must be there. Raises
    StoreUnavailable, and JobCancelled.
    """
    with closing(open_store(url or store_url(None))) as store:
        now = RunningJob(store, kind, source)
        try:
            yield now
        except (KeyboardInterrupt, SystemExit, JobCancelled) as exc:  # SIGTERM exits.
            _end(now, "cancelled")
            if now.is_cancelled and isinstance(exc, KeyboardInterrupt):
                raise JobCancelled(CANCELLED) from exc
            raise
        except BaseException as exc:
            said = str(exc).strip().splitlines()
            _end(now, "failed", said[0] if said else type(exc).__name__)
            raise
        _end(now, "finished")


def _end(now: RunningJob, state: State, error: str | None = None) -> None:
    try:
        now.end(state, error)
    except AmbienceError as exc:
        log.warning("that the job is %s could not be written: %s", state, exc)


def _status(value: bytes) -> JobStatus:
    return JobStatus(**orjson.loads(value))


def forget_running(store: Records) -> None:
    """Remove the records of running jobs, of which a restored backup has those that ran when it was
    made."""
    found = store.records(JOB, limit=10 * KEPT)
    gone = [one.key for one in found if _status(one.value).state == "running"]
    store.write_records({RecordKey(kind, one): None for one in gone for kind in (JOB, CANCEL)})


def _remove_old(store: Records) -> None:
    ended = [one for one in jobs(store, 10 * KEPT) if one.state != "running"]
    gone = [one.job_id for one in ended[KEPT:]]
    if gone:
        store.write_records({RecordKey(kind, one): None for one in gone for kind in (JOB, CANCEL)})
