"""Annotations of an upload, asked of the annotators' replicas; nothing is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.directory.entry import Known
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.wire import AnnotateAnswer
from models.errors import AmbienceError, RetrieverUnavailable
from models.pictures.decoding import Picture
from models.types import Pixels, View


async def annotate(
    gateway: Gateway, data: bytes, names: Sequence[str] | None, report: Report
) -> dict[str, dict[str, Any]]:
    """What these annotators, or all, say of a picture, by name; the report says who is missing.

    Raises UnknownName, and what decoding raises.
    """
    until = time.monotonic() + gateway.args.deadline
    chosen = list(gateway.retrievers.enabled("annotator")) if names is None else names
    knowns = [gateway.retrievers.known(name, "annotator") for name in dict.fromkeys(chosen)]
    ready = [known for known in knowns if known.reason is None]
    report.missing.update({known.name: known.reason for known in knowns if known.reason})
    views = {known.description.view for known in ready if known.description is not None}

    def seen(picture: Picture) -> Mapping[View, Pixels]:
        return {view: picture.view(view) for view in views}

    with report.timed("decode"):
        pictures = await gateway.decoder.decode(data, then=seen)
    said: dict[str, dict[str, Any]] = {}

    async def one(known: Known) -> None:
        assert known.description is not None
        try:
            with report.timed(known.name):
                answer = await _ask(gateway, known, pictures[known.description.view], until)
        except AmbienceError as exc:
            report.missing[known.name] = str(exc)
            return
        report.answered.add(known.name)
        said[known.name] = {**answer.row, "fingerprint": answer.fingerprint}

    await asyncio.gather(*(one(known) for known in ready))
    return {name: said[name] for name in sorted(said)}


async def _ask(gateway: Gateway, known: Known, pixels: Pixels, until: float) -> AnnotateAnswer:
    try:
        return await gateway.retrievers.annotate(known, pixels, _left(until))
    except RetrieverUnavailable:
        # The replica that was asked may be gone: look again, once.
        if await gateway.retrievers.describe(known) is None:
            raise
        return await gateway.retrievers.annotate(known, pixels, _left(until))


def _left(until: float) -> float:
    return max(0.01, until - time.monotonic())
