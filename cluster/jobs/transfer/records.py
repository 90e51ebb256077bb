"""What an owner has decided, as Parquet beside the images: decisions on duplicates, rules,
tombstones.

A row is a record of the store: kind, key and value. What jobs find anew, such as groups, is left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.jobs.sources import Bad
from cluster.jobs.transfer.importing import Outcome
from deployments.tombstones.records import (
    PICTURE,
    TOMBSTONE,
    RememberedPicture,
    change,
    tombstone_of,
)
from indexes.duplicates.best import RULES
from indexes.duplicates.catalogue import regroup_all_later
from indexes.duplicates.connected import VERDICTS
from indexes.duplicates.decisions import DECISIONS, Decision
from indexes.duplicates.kept import KEPT, KeptImage
from indexes.store.base import Store
from indexes.store.records import RecordKey
from models.errors import InvalidInput

READ = 64
SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), False),
        pa.field("key", pa.string(), False),
        pa.field("value", pa.large_binary(), False),
    ],
    {b"ambience": b'{"layout":1,"records":true}'},
)
_CHECKS: Mapping[str, Callable[[bytes], Any]] = {
    KEPT: KeptImage.decode,
    DECISIONS: Decision.decode,
    VERDICTS: lambda value: orjson.loads(value)["decision"],
    RULES: orjson.loads,
    # Before the tombstones, which replicas follow.
    PICTURE: lambda value: RememberedPicture.of(orjson.loads(value)),
    TOMBSTONE: tombstone_of,
}
"""The kinds that travel, in the order in which they are written, and what reads each."""


def records_file(target: Path) -> Path:
    """The file of the records that belongs to a Parquet file, or folder, of images."""
    if target.suffix == ".parquet":
        return target.with_suffix(".records.parquet")
    return target / "records.parquet"


def export_records(store: Store, target: Path) -> int:
    """Write the records into a new file; none if there are none. Returns their number."""
    count, partial = 0, target.with_name(target.name + ".partial")
    with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
        for rows in _pages(store):
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
            count += len(rows)
    if count:
        partial.rename(target)
    else:
        partial.unlink()
    return count


def import_records(store: Store, source: Path, outcome: Outcome) -> int:
    """Bring in the records of a file; those that the store has already stay as they are. Returns
    the number of new ones, and adds what is damaged to the outcome.

    Raises InvalidInput for a file that is none of `export_records`.
    """
    added = 0
    try:
        with pq.ParquetFile(source) as file:
            if not file.schema_arrow.equals(SCHEMA, check_metadata=True):
                raise InvalidInput(f"{source} was not written by `ambience export --parquet`")
            for batch in file.iter_batches(READ):
                added += _bring_in(store, batch.to_pylist(), outcome)
    except (pa.ArrowException, OSError) as exc:
        raise InvalidInput(f"{source} can't be read: {exc}") from exc
    if added:
        store.write_records(regroup_all_later())
    return added


def _pages(store: Store) -> Iterator[list[dict[str, Any]]]:
    for kind in _CHECKS:
        after = ""
        while page := store.records(kind, after, READ):
            after = page[-1].key
            yield [{"kind": kind, "key": one.key, "value": one.value} for one in page]


def _bring_in(store: Store, rows: list[dict[str, Any]], outcome: Outcome) -> int:
    whole = [row for row in rows if _is_whole(row, outcome)]
    added = 0
    for kind in dict.fromkeys(row["kind"] for row in whole):
        given = {row["key"]: row["value"] for row in whole if row["kind"] == kind}
        there = store.records_by_key(kind, list(given))
        new = {RecordKey(kind, key): value for key, value in given.items() if key not in there}
        if new and kind == TOMBSTONE:
            change(store, lambda: new)  # noqa: B023
        elif new:
            store.write_records(new)
        added += len(new)
    return added


def _is_whole(row: Mapping[str, Any], outcome: Outcome) -> bool:
    try:
        _CHECKS[row["kind"]](row["value"])
    except (ValueError, KeyError, TypeError, IndexError, InvalidInput) as exc:
        name = f"{row['kind'][:80]} {row['key'][:80]}"
        outcome.bad.append(Bad(name, f"the record is damaged: {type(exc).__name__}"))
        return False
    return True
