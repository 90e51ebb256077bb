"""The states of retrievers and annotators, as returned by GET /v1/retrievers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from deployments.directory.entry import DirectoryEntry
from deployments.directory.retrievers import RetrieverDirectory
from deployments.wire import Description

UNKNOWN: dict[str, Any] = {
    "kind": "retriever",
    "state": "unavailable",
    "count": 0,
    "applied_seq": 0,
    "bytes": 0,
    "index": "",
    "fingerprint": "",
    "extractor": "",
}


async def state_rows(directory: RetrieverDirectory) -> list[dict[str, Any]]:
    """Current states; one that does not answer is `unavailable`, with the reason.

    A retriever with two models is shown under the one that searches use; the other is `next` or,
    after the switch, `previous`; but not to a key that is limited to a tag.
    """
    entries = await directory.describe_all()
    used = await directory.with_active_models(entries)
    if directory.tag is not None:
        return [_row(one, directory.tag) for one in used]
    rows = [_row(one) for one in used]
    others = [_other_row(directory, *both) for both in zip(entries, used, strict=True)]
    for row, other in zip(rows, await asyncio.gather(*others), strict=True):
        row.update(other)
    return rows


def _row(entry: DirectoryEntry, tag: str | None = None) -> dict[str, Any]:
    row = UNKNOWN | {"name": entry.name, "kind": entry.kind, "replicas": entry.replicas}
    if entry.description is not None:
        shown = entry.description if tag is None else entry.description.limited_to(tag)
        row |= shown.row()
    if entry.unreachable_reason is not None:
        row |= {"state": "unavailable", "reason": entry.unreachable_reason}
    return row


async def _other_row(
    directory: RetrieverDirectory, entry: DirectoryEntry, used: DirectoryEntry
) -> dict[str, Any]:
    if entry.next is None or entry.unreachable_reason is not None:
        return {}
    answers = await directory.describe_replicas(entry)
    if used is entry:
        return {"next": _of_all([[one and one.next for one in shard] for shard in answers])}
    return {"previous": _of_all(answers)}


def _of_all(shards: Sequence[Sequence[Description | None]]) -> dict[str, Any]:
    """The state of one model over all replicas: ready when all are, with the details of the last
    one."""
    replicas = [one for answers in shards for one in answers]
    there = [[one for one in answers if one is not None] for answers in shards]
    flat = [one for shard in there for one in shard]
    ready = sum(one.state == "ready" for one in flat)
    whole = all(shards) and ready == len(replicas)
    shown: dict[str, Any] = {
        "state": "ready" if whole else "loading",
        "count": sum(min((one.count for one in shard), default=0) for shard in there),
        "bytes": sum(max((one.bytes for one in shard), default=0) for shard in there),
    }
    if flat:
        last = min(flat, key=lambda one: one.state == "ready")
        shown |= {"extractor": last.extractor, "fingerprint": last.fingerprint}
    if not whole:
        reasons = [one.reason for one in flat if one.reason]
        said = f": {reasons[0]}" if reasons else ""
        shown["reason"] = f"ready in {ready} of {len(replicas)} replicas{said}"
    return shown
