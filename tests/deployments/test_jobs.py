"""Batch jobs as others see them in the store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import jobs
from deployments.jobs import JobCancelled, running_job
from indexes.store.base import Store
from indexes.store.url import open_store
from models.errors import Conflict, StoreUnavailable, UnknownName
from tests.indexes.store.forks import wait_for

WAITING = """
import sys, time
from deployments.jobs import running_job
with running_job("backfill", "/pictures") as job:
    job.begin("indexing", 100)
    job.update(7)
    time.sleep(100)
"""

INTERRUPTED = f"""
import signal
from deployments import jobs
signal.signal(signal.SIGINT, signal.default_int_handler)
jobs.BEAT_SECONDS, jobs.PATIENCE_SECONDS = 0.01, 0.1
try:
    {WAITING.strip().replace(chr(10), chr(10) + "    ")}
except jobs.JobCancelled:
    print("cancelled")
"""
"""A process of its own, because it interrupts its main thread."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store in which jobs of this process, and of its children, are recorded."""
    url = f"lmdb:{tmp_path / 'store'}"
    monkeypatch.setenv("AMBIENCE_STORE", url)
    opened = open_store(url)
    yield opened
    opened.close()


def only(store: Store) -> jobs.JobStatus:
    """Return the one job."""
    (found,) = jobs.jobs(store)
    return found


def waiting() -> subprocess.Popen[bytes]:
    """Start a job that waits, in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", WAITING], stderr=subprocess.DEVNULL)


def test_others_see_how_far_a_job_is_and_what_came_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BEAT_SECONDS", 0.01)
    with running_job("backfill", "/pictures") as job:
        assert only(store).state == "running"
        job.begin("indexing", 100)
        job.update(16)
        time.sleep(0.05)
        job.update(48, slowest="reading")
        wait_for(lambda: only(store).done == 48, 5)
        row = only(store).row()
        assert (row["kind"], row["source"], row["step"]) == ("backfill", "/pictures", "indexing")
        assert (row["total"], row["slowest"]) == (100, "reading")
        assert 32 / 5 < row["rate"] <= 32 / 0.05
        assert row["eta_seconds"] == pytest.approx(52 / row["rate"], abs=0.1)
        job.report({"indexed": 100})
    row = only(store).row()
    assert row["state"] == "finished"
    assert row["report"] == {"indexed": 100}
    assert row["began"] <= row["ended"] <= time.time()


def test_the_record_is_written_once_a_second_however_often_a_job_reports(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_job("backfill") as job:
        written = []
        write = type(store).write_records
        monkeypatch.setattr(
            type(store), "write_records", lambda *given: (written.append(1), write(*given))
        )
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            job.update(job.status.done + 1)
    assert 1 <= len(written) <= 3


def test_a_cancelled_job_ends_at_its_next_progress(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BEAT_SECONDS", 0.01)
    done = []

    def work() -> None:
        with running_job("backfill") as job:
            jobs.cancel(store, job.status.job_id)
            for number in range(1000):
                done.append(number)
                job.update(number)
                time.sleep(0.01)

    with pytest.raises(JobCancelled, match="resume"):
        work()
    assert 0 < len(done) < 1000
    assert only(store).state == "cancelled"
    assert "job-cancel" not in store.record_kinds()
    with pytest.raises(Conflict, match="cancelled"):
        jobs.cancel(store, only(store).job_id)
    with pytest.raises(UnknownName):
        jobs.cancel(store, "none")


def test_a_cancelled_job_that_waits_is_interrupted(store: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE)
    wait_for(lambda: bool(jobs.jobs(store)) and only(store).done == 7, 30)
    jobs.cancel(store, only(store).job_id)
    printed, _ = process.communicate(timeout=60)
    assert printed == b"cancelled\n"
    assert only(store).state == "cancelled"


def test_an_error_is_the_report_of_a_failed_job(store: Store) -> None:
    with pytest.raises(StoreUnavailable), running_job("fsck"):
        raise StoreUnavailable("the disk is full")
    assert only(store).state == "failed"
    assert only(store).report == {"error": "the disk is full"}


def test_ctrl_c_cancels(store: Store) -> None:
    process = waiting()
    wait_for(lambda: bool(jobs.jobs(store)) and only(store).done == 7, 30)
    process.send_signal(signal.SIGINT)
    process.wait(30)
    assert only(store).state == "cancelled"


def test_a_job_whose_process_was_killed_has_failed(store: Store) -> None:
    process = waiting()
    wait_for(lambda: bool(jobs.jobs(store)) and only(store).done == 7, 30)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = only(store)
    assert found.state == "running"  # So far nobody can know.
    lost = found.as_seen(found.seen + jobs.LOST_SECONDS)
    assert (lost.state, lost.ended) == ("failed", found.seen)
    assert lost.report is not None
    assert "ended" in lost.report["error"]


def test_the_newest_jobs_come_first_and_the_oldest_are_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "KEPT", 3)
    for number in range(6):
        with running_job("export", str(number)):
            pass
    assert [one.source for one in jobs.jobs(store)] == ["5", "4", "3", "2"]
