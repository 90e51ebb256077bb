"""Writes stored features as the old services stored them, for tools that read those."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from cluster.jobs.sources import Bad
from cluster.jobs.transfer.environments import LONGEST_NAME, MAX_ID, OldImage, old_bytes
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
    old_features: Callable[[bytes], bytes],
    write: Callable[[Iterator[Sequence[OldImage]]], None],
    progress: Callable[[int], None],
    most_id: int = MAX_ID,
) -> Outcome:
    """Write all features of a space, of one moment.

    `old_features` makes of a stored row what an old service has; `write` takes batches of images.
    `progress` receives the number of images so far. Raises what `write` raises.
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
                    one = OldImage(image_id, name, old_features(row))
                    if reason := _refusal(one, seen, most_id):
                        outcome.bad.append(Bad(str(image_id), reason))
                    else:
                        seen.add(name)
                        batch.append(one)
                yield batch
                outcome.written += len(batch)
                progress(outcome.written)

    write(batches())
    return outcome


def old_from(extractor: Extractor) -> Callable[[bytes], bytes]:
    """How a row of this extractor becomes an old service's bytes."""
    return lambda row: old_bytes(extractor, extractor.from_row(row))


def _refusal(one: OldImage, seen: set[str], most_id: int) -> str | None:
    if one.image_id > most_id:
        return f"its id is above {most_id}"
    if len(one.name_bytes) > LONGEST_NAME:
        return f"its file name has more than {LONGEST_NAME} bytes"
    if one.file_name in seen:
        return f"another image has the same file name, {one.file_name}"
    return None
