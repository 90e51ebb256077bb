"""Annotations of an upload, made by the annotators' replicas; nothing is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.directory.entry import DirectoryEntry
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.wire import AnnotateAnswer
from models.errors import AmbienceError, RetrieverUnavailable
from models.pictures.decoding import Picture
from models.types import Pixels, View


async def annotate(
    gateway: Gateway, data: bytes, names: Sequence[str] | None, report: Report
) -> dict[str, dict[str, Any]]:
    """Annotations of a picture by these annotators, or by all, by name; the report names missing
    ones.

    Raises UnknownName, and what decoding raises.
    """
    until = time.monotonic() + gateway.args.deadline
    entries_named = list(gateway.directory.enabled("annotator")) if names is None else names
    entries = [gateway.directory.entry(name, "annotator") for name in dict.fromkeys(entries_named)]
    ready = [entry for entry in entries if entry.reason is None]
    report.missing.update({entry.name: entry.reason for entry in entries if entry.reason})
    views = {entry.description.view for entry in ready if entry.description is not None}

    def seen(picture: Picture) -> Mapping[View, Pixels]:
        report.truncated = picture.truncated
        return {view: picture.view(view) for view in views}

    with report.timed("decode"):
        pictures = await gateway.decoder.decode(data, then=seen)
    said: dict[str, dict[str, Any]] = {}

    async def one(entry: DirectoryEntry) -> None:
        assert entry.description is not None
        try:
            with report.timed(entry.name):
                answer = await _annotate_once(
                    gateway, entry, pictures[entry.description.view], until
                )
        except AmbienceError as exc:
            report.missing[entry.name] = str(exc)
            return
        report.answered.add(entry.name)
        said[entry.name] = {**answer.row, "fingerprint": answer.fingerprint}

    await asyncio.gather(*(one(entry) for entry in ready))
    return {name: said[name] for name in sorted(said)}


async def _annotate_once(
    gateway: Gateway, entry: DirectoryEntry, pixels: Pixels, until: float
) -> AnnotateAnswer:
    try:
        return await gateway.directory.annotate(entry, pixels, _remaining(until))
    except RetrieverUnavailable:
        # The called replica may be gone: refresh the entry and retry once.
        if await gateway.directory.describe(entry) is None:
            raise
        return await gateway.directory.annotate(entry, pixels, _remaining(until))


def _remaining(until: float) -> float:
    return max(0.01, until - time.monotonic())
