"""Tombstones as text: JSON lines, which hold everything, and lists of PDQ hashes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import orjson

from deployments.tombstones import pdq, records
from deployments.tombstones.records import RememberedPicture, Tombstone
from indexes.store.base import Store
from models.errors import InvalidInput
from models.pictures.decoding import decode

T = TypeVar("T")
Entry = tuple[Tombstone, RememberedPicture | None]


def all_tombstones(store: Store) -> Iterator[Tombstone]:
    """All tombstones, by id."""
    after = ""
    while page := records.listed(store, after, records.AT_ONCE):
        yield from page
        after = page[-1].tombstone_id


def json_lines(store: Store) -> Iterator[str]:
    """A JSON object for each tombstone, with its picture."""
    for page in _batches(all_tombstones(store)):
        pictures = records.pictures(store, [one.tombstone_id for one in page])
        for one in page:
            picture = pictures.get(one.tombstone_id)
            row = one.row() | ({} if picture is None else {"picture": picture.row()})
            yield orjson.dumps(row).decode()


def pdq_lines(store: Store) -> Iterator[str]:
    """A line `hash,quality,note` for each tombstone whose hash is known or can be made of its
    preview; pictures with hardly any content are left out."""
    for page in _batches(all_tombstones(store)):
        pictures = records.pictures(store, [one.tombstone_id for one in page])
        for one in page:
            note = " ".join((one.note or one.tombstone_id).split())
            preview = getattr(pictures.get(one.tombstone_id), "preview", None)
            if one.pdq is not None:
                yield f"{one.pdq},100,{note}"
            elif preview is not None:
                line = pdq.line_of(decode(preview).preview, note)
                if line is not None:
                    yield line


def read_json(lines: Iterable[str]) -> Iterator[Entry]:
    """Tombstones of JSON lines. Raises InvalidInput that names the line."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            picture = row.pop("picture", None)
            remembered = None if picture is None else RememberedPicture.of(picture)
            yield records.tombstone_of(row), remembered
        except (InvalidInput, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise InvalidInput(f"line {number}: no tombstone: {exc}") from exc


def read_pdq(lines: Iterable[str]) -> Iterator[Entry]:
    """Tombstones of a list of PDQ hashes. Raises InvalidInput that names the line."""
    for one in pdq.read_list(iter(lines)):
        yield one, None


def bring_in(store: Store, entries: Iterable[Entry]) -> int:
    """Write tombstones, in transactions of some. Returns their number."""
    count = 0
    for some in _batches(entries):
        records.remember(store, dict(some))
        count += len({one.tombstone_id for one, _ in some})
    return count


def _batches(values: Iterable[T]) -> Iterator[list[T]]:
    left = iter(values)
    while some := list(islice(left, records.AT_ONCE)):
        yield some
