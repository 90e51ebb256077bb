"""Writes stored features as the old services stored them, for tools that read those."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cluster.jobs.sources import Bad
from cluster.jobs.transfer.environments import LONGEST_NAME, MAX_ID, OldImage, old_bytes, write
from indexes.store.base import Space, Store
from models.base import Extractor


@dataclass(slots=True)
class Outcome:
    """The outcome of an export."""

    written: int = 0
    bad: list[Bad] = field(default_factory=list)
    """Images that the format can't hold, by id, and why."""


def export(
    store: Store,
    space: Space,
    extractor: Extractor,
    method: str,
    folder: Path,
    progress: Callable[[int], None],
) -> Outcome:
    """Write all features of a space, of one moment, into a new folder.

    `method` is the extractor's name, which names the environment. `progress` receives the number of
    images so far. Raises InvalidInput if the folder has such data already.
    """
    outcome = Outcome()
    seen: set[str] = set()

    def batches() -> Iterator[list[OldImage]]:
        with store.scan(space) as scan:
            for rows in scan.batches:
                images = store.images_by_id([image_id for image_id, _ in rows])
                batch = []
                for image_id, row in rows:
                    image = images.get(image_id)
                    name = f"{image_id}.online" if image is None else image.file_name
                    features = old_bytes(extractor, extractor.from_row(row))
                    one = OldImage(image_id, name, features)
                    if reason := _refusal(one, seen):
                        outcome.bad.append(Bad(str(image_id), reason))
                    else:
                        seen.add(name)
                        batch.append(one)
                yield batch
                outcome.written += len(batch)
                progress(outcome.written)

    write(folder, method, batches())
    return outcome


def _refusal(one: OldImage, seen: set[str]) -> str | None:
    if one.image_id > MAX_ID:
        return f"its id is above {MAX_ID}"
    if len(one.name_bytes) > LONGEST_NAME:
        return f"its file name has more than {LONGEST_NAME} bytes"
    if one.file_name in seen:
        return f"another image has the same file name, {one.file_name}"
    return None
