"""Run batch jobs: join the Ray of the running service, else start one for the job.

Import it after `environment.prepare`, because Ray reads its environment when it is imported.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import ray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cluster.jobs import annotate as annotating
from cluster.jobs import fsck as checking
from cluster.jobs import model_change
from cluster.jobs.backfill import Outcome, plan, retriever_specs, run, spaces_of, write_bad_files
from cluster.jobs.pace import Pace
from cluster.jobs.pipeline import Piece, Stage, slowest
from cluster.jobs.resources import Resources
from cluster.jobs.settings import JobSettings
from cluster.jobs.sources import IGNORED, Ids
from cluster.jobs.training import Lists, train_lists
from cluster.jobs.word_features import RememberedFeatures, text_features
from cluster.service import environment
from cluster.service.applications import decode_limits, read_config
from cluster.service.data_folder import NotRunning, job_log, make_private, running_service
from cluster.service.local_ray import start_ray, stop_ray
from cluster.service.ray_folder import ray_folder, token_file
from cluster.service.terminal import output_in
from deployments.jobs import RunningJob, running_job
from deployments.settings import store_url
from indexes.inverted.learning import Step
from indexes.store.url import open_store
from models.errors import UnknownName
from models.types import TextFeatures

__all__ = [
    "annotate",
    "backfill",
    "complete",
    "fsck",
    "train",
    "write_annotations",
    "write_bad_files",
]


def backfill(
    source: str,
    ids: Ids,
    config: Path,
    data: Path,
    workers: int | None,
    quiet: bool,
    pace: Pace,
    ignore: Sequence[str] = IGNORED,
) -> Outcome:
    """Index what the source holds and the store lacks. Raises AmbienceError."""
    given = read_config(config)
    kinds = retriever_specs(given)
    make_private(data)
    where = source if "://" in source else str(Path(source).absolute())
    with running_job("backfill", where) as job:
        with contextlib.closing(open_store(store_url(None))) as store:
            todo = plan(where, ids, store, spaces_of(kinds), ignore)
        outcome = todo.outcome()
        if todo.todo:
            with _ray(data) as err, _pieces("indexing", len(todo.todo), quiet, err, job) as note:
                outcome = run(todo, kinds, _settings(given, workers, pace), note)
        counts = {"indexed": outcome.done, "already": outcome.already, "bad": len(outcome.bad)}
        job.report(counts | {"left_out": dict(outcome.left_out), "ignored": outcome.ignored})
        return outcome


def complete(
    name: str, config: Path, data: Path, workers: int | None, quiet: bool, pace: Pace
) -> Outcome:
    """Make the features of a retriever's models that stored images lack. Raises AmbienceError."""
    given = read_config(config)
    kinds = model_change.specs_of(given, name)
    make_private(data)
    with running_job("model complete", name) as job:
        with contextlib.closing(open_store(store_url(None))) as store:
            todo = model_change.completion(store, kinds)
        outcome = todo.outcome()
        if todo.todo:
            with _ray(data) as err, _pieces("completing", len(todo.todo), quiet, err, job) as note:
                settings = _settings(given, workers, pace)
                outcome = run(todo, kinds, settings, note, model_change.StoredReader)
        counts = {"completed": outcome.done, "already": outcome.already, "bad": len(outcome.bad)}
        job.report(counts)
        return outcome


def fsck(
    source: str,
    ids: Ids,
    config: Path,
    data: Path,
    heal: bool,
    quiet: bool,
    ignore: Sequence[str] = IGNORED,
) -> checking.Report:
    """Compare what the source holds with the store. Raises AmbienceError."""
    given = read_config(config)
    kinds = retriever_specs(given)
    make_private(data)
    where = source if "://" in source else str(Path(source).absolute())
    with (
        running_job("fsck", where) as job,
        contextlib.closing(open_store(store_url(None))) as store,
    ):
        todo, findings = checking.plan(where, ids, store, ignore)
        if todo:
            with _ray(data) as err, _pieces("checking", len(todo), quiet, err, job) as note:
                settings = _settings(given, None, Pace())
                findings += checking.run(todo, kinds, settings, heal, note)
        ids_of_files = {image_id for _, image_id in todo}
        folder = checking.folder_of(where)
        findings += checking.look_through(store, kinds, folder, ids_of_files)
        if heal:
            checking.heal_store(store, findings)
        report = checking.Report(len(todo), store.count(), findings, heal)
        counts = {"files": report.files, "images": report.images, "healed": heal}
        job.report(counts | {"left": len(report.left), "counts": dict(report.counts)})
        return report


def annotate(
    only: Sequence[str],
    config: Path,
    data: Path,
    workers: int | None,
    quiet: bool,
    pace: Pace,
) -> annotating.Outcome:
    """Annotate the stored images that lack an annotation. Raises AmbienceError."""
    given = read_config(config)
    specs = annotating.annotator_specs(given)
    for name in set(only) - {spec.name for spec in specs}:
        known = ", ".join(spec.name for spec in specs) or "none"
        raise UnknownName(f"{config} has no annotator {name!r}; there are {known}")
    chosen = [spec for spec in specs if not only or spec.name in only]
    make_private(data)
    with contextlib.ExitStack() as stack:
        job = stack.enter_context(running_job("annotate", ", ".join(only) or None))
        connect = cache(lambda: stack.enter_context(_ray(data)))
        with contextlib.closing(open_store(store_url(None))) as store:
            asking = [_with_source(spec, given, store.active(), connect) for spec in chosen]
            fingerprints, unavailable = annotating.resolve_fingerprints(asking)
            todo = list(annotating.images_lacking(store, fingerprints))
            already = store.count() - len(todo) if fingerprints else 0
        outcome = annotating.Outcome()
        if todo:
            available = [spec for spec in asking if spec.name in fingerprints]
            note = stack.enter_context(_pieces("annotating", len(todo), quiet, connect(), job))
            outcome = annotating.run(todo, available, _settings(given, workers, pace), note)
        outcome.already, outcome.unavailable = already, unavailable
        counts = {"annotated": outcome.done, "already": already, "bad": len(outcome.bad)}
        job.report(counts | {"unavailable": unavailable})
    return outcome


def _with_source(
    spec: annotating.AnnotatorSpec,
    config: Mapping[str, Any],
    active: Mapping[str, str],
    connect: Callable[[], Any],
) -> annotating.AnnotatorSpec:
    """The annotator with the retriever that it asks, if it asks one; `connect` connects Ray."""
    asked = spec.make().asks()
    if asked is None:
        return spec

    def ask(texts: Sequence[str]) -> TextFeatures:
        connect()
        return text_features(asked, config, active.get(asked), texts)

    return replace(spec, source=RememberedFeatures(ask))


def _settings(config: Mapping[str, Any], workers: int | None, pace: Pace) -> JobSettings:
    return JobSettings(store_url(None), Resources.of_ray(workers), pace, decode_limits(config))


def train(name: str, config: Path, data: Path, quiet: bool) -> Lists:
    """Train a retriever's inverted lists on the stored features. Raises AmbienceError."""
    make_private(data)
    with (
        running_job("train", name) as job,
        _ray(data) as err,
        _progress("training", 1, quiet, err) as (progress, task),
    ):

        def note(step: Step) -> None:
            what, done, total = step
            progress.update(task, description=what, completed=done, total=total)
            if what != job.status.step:
                job.begin(what, total)
            job.update(done, total)

        done = train_lists(read_config(config), name, note)
        job.report(asdict(done) | {"path": str(done.path)})
        return done


def write_annotations(folder: Path) -> dict[str, int]:
    """Write the gallery's files from all annotations in the store. Returns the number of entries by
    path."""
    store = open_store(store_url(None))
    try:
        return annotating.write_files(store, folder)
    finally:
        store.close()


class Slowest(ProgressColumn):
    """Progress column: the stage that all others wait for."""

    def render(self, task: Task) -> Text:
        name = task.fields.get("slowest")
        return Text(f"slowest: {name}" if name else "", no_wrap=True, overflow="ellipsis")


class Speed(ProgressColumn):
    """Progress column: images per second; empty before the first batch."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} pictures/s" if task.speed else "")


@contextlib.contextmanager
def _pieces(
    what: str, total: int, quiet: bool, err: TextIO, job: RunningJob
) -> Iterator[Callable[[Piece[Any], Sequence[Stage]], None]]:
    """A function that takes finished pieces and shows the progress, with the slowest stage."""
    with _progress(what, total, quiet, err) as (progress, task):
        seconds: Counter[str] = Counter()
        job.begin(what, total)

        def note(piece: Piece[Any], stages: Sequence[Stage]) -> None:
            seconds.update(piece.seconds)
            longest = slowest(seconds, stages)
            progress.update(task, advance=len(piece.result), slowest=longest)
            job.update(job.status.done + len(piece.result), slowest=longest)

        yield note


@contextlib.contextmanager
def _progress(what: str, total: int, quiet: bool, err: TextIO) -> Iterator[tuple[Progress, TaskID]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
        Slowest(),
    )
    with Progress(*columns, console=Console(file=err), disable=quiet) as progress:
        yield progress, progress.add_task(what, total=total)


@contextlib.contextmanager
def _ray(data: Path) -> Iterator[TextIO]:
    """Connect Ray: the running service's, the cluster's, or one that ends with the job.

    Yields the original standard error, because what Ray writes there goes to the job's log
    meanwhile.
    """
    with output_in(job_log(data)) as terminal, contextlib.ExitStack() as stack:
        try:
            # KubeRay sets the cluster's address in every process of a pod.
            address = os.environ.get(environment.OF_A_CLUSTER)
            if not address:
                running = running_service(data)
                address = running.ray_address
                environment.use_token(token_file(running.ray_folder))
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except NotRunning:
            del os.environ[environment.MARK]  # A service that starts meanwhile must not end us.
            folder = stack.enter_context(ray_folder())
            environment.use_token(folder.token)
            stack.callback(stop_ray)  # Before the start, which may be interrupted.
            with _interrupts_wait():
                start_ray(folder.path)
        stack.callback(ray.shutdown)
        yield terminal.err


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Delay Ctrl-C until Ray has started: an interrupt during its start makes it crash.

    Afterwards SIGTERM ends the job in order, instead of Ray's handler.
    """
    asked: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if asked:
        raise KeyboardInterrupt
