"""Whole collections as Parquet: everything that is stored of each image, one row an image.

Features are the bytes that the store keeps, in one column for each feature space; the column's
metadata names its kind and fingerprint. The metadata of a file has the active fingerprints and the
id counter. Rows are written and read in groups of bounded size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.jobs.sources import Bad
from cluster.jobs.transfer.importing import Outcome
from cluster.jobs.transfer.records import records_file
from indexes.store.annotations import read_annotations
from indexes.store.base import ANNOTATIONS, Image, Space, Store
from indexes.store.checks import check_writes, dump_metadata
from indexes.store.complete import (
    CompleteImage,
    complete_images,
    completed,
    original_of,
    write_annotations,
    write_of,
)
from models.errors import InvalidInput, PreconditionFailed
from models.types import FileFacts

LAYOUT = 1
ABOUT = b"ambience"
"""Key of a file's metadata."""
READ = 64
"""Images that are read at a time."""
GROUP_BYTES, GROUP_IMAGES = 32 << 20, 1024
"""A group of rows ends with the image that reaches either."""
FILE_IMAGES = 50_000
"""Images in one file of a folder."""
ATTEMPTS = 5
FEATURES = "features"
FIELDS = (
    pa.field("image_id", pa.int64(), False),
    pa.field("sha256", pa.string(), False),
    pa.field("width", pa.int32(), False),
    pa.field("height", pa.int32(), False),
    # Names of old files need not be UTF-8.
    pa.field("source", pa.binary(), False),
    pa.field("upload_name", pa.string()),
    pa.field("created", pa.float64(), False),
    pa.field("wanted", pa.list_(pa.string()), False),
    pa.field("metadata", pa.string(), False),
    pa.field("annotations", pa.string()),
    pa.field("format", pa.string()),
    pa.field("bytes", pa.int64()),
    pa.field("taken", pa.float64()),
    pa.field("exif_tags", pa.int32()),
    pa.field("quality", pa.int32()),
    pa.field("preview", pa.binary()),
    pa.field("original", pa.binary()),
)
_FACTS = ("format", "bytes", "taken", "exif_tags", "quality")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Row = dict[str, Any]


def export_parquet(store: Store, target: Path, progress: Callable[[int], None]) -> int:
    """Write all images into a new file, or into a folder without Parquet files. Returns their
    number.

    Each image is written as it was at one moment. `progress` receives the number of images so far.
    Raises InvalidInput if something is there already.
    """
    spaces = [space for space in store.spaces() if space != ANNOTATIONS]
    about = {"layout": LAYOUT, "active": store.active(), "next_id": store.reserve_ids(0)}
    schema = _schema(spaces, about)
    one_file = target.suffix == ".parquet"
    if target.exists() if one_file else any(target.glob("*.parquet")):
        raise InvalidInput(f"{target} is there already: name another one")
    rows = _rows(store, spaces)
    count, number, more = 0, 0, True
    while more:
        path = target if one_file else target / f"images-{number:05}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with _writer(path, schema) as writer:
            for group in _groups(rows):
                writer.write_table(pa.Table.from_pylist(group, schema))
                written += len(group)
                progress(count + written)
                if not one_file and written >= FILE_IMAGES:
                    break
            else:
                more = False
        count, number = count + written, number + 1
    return count


def import_parquet(store: Store, source: Path, progress: Callable[[int], None]) -> Outcome:
    """Bring in all images of a file or of the files in a folder, under their ids. Run it again to
    resume.

    An image that is there with the same content is extended by what it lacks; annotations, metadata
    and facts are replaced. Raises InvalidInput for a file that is none of `export_parquet`.
    """
    paths = [source]
    if source.is_dir():
        paths = sorted({*source.glob("*.parquet")} - {records_file(source)})
    if not paths:
        raise InvalidInput(f"there are no Parquet files in {source}")
    outcome, done = Outcome(), 0
    for path in paths:
        with _opened(path) as (file, spaces, about):
            store.reserve_ids(about["next_id"])
            # Read by groups, because a reader of the whole file keeps what it has read.
            for group in range(file.num_row_groups):
                for batch in file.read_row_group(group).to_batches(READ):
                    _bring_in(store, batch.to_pylist(), spaces, outcome)
                    done += batch.num_rows
                    progress(done)
            active = store.active()
            for kind, fingerprint in about["active"].items():
                if kind not in active:
                    store.activate(kind, fingerprint)
    return outcome


def _schema(spaces: Sequence[Space], about: Mapping[str, Any]) -> pa.Schema:
    columns = [
        pa.field(_column(space), pa.large_binary(), metadata=dict(space._asdict()))
        for space in spaces
    ]
    return pa.schema([*FIELDS, *columns], {ABOUT: orjson.dumps(about)})


def _column(space: Space) -> str:
    return f"{FEATURES}/{space.kind}/{space.fingerprint}"


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer of a file that appears only when it is whole."""
    partial = path.with_name(path.name + ".partial")
    with pq.ParquetWriter(
        partial, schema, compression="zstd", write_statistics=["image_id"]
    ) as writer:
        yield writer
    partial.rename(path)


def _rows(store: Store, spaces: Sequence[Space]) -> Iterator[Row]:
    after = -1
    while batch := complete_images(store, after, READ):
        after = batch[-1].image.image_id
        now = store.images_by_id([whole.image.image_id for whole in batch])
        for whole in batch:
            current = now.get(whole.image.image_id)
            settled = _settled(store, whole, current)
            if settled is not None:
                yield _row(settled, original_of(store, settled.image), spaces)


def _settled(store: Store, whole: CompleteImage, now: Image | None) -> CompleteImage | None:
    """An image all parts of which are of one moment; None if it was deleted meanwhile."""
    for _ in range(ATTEMPTS):
        if now is None:
            return None
        if now.version == whole.image.version:
            return whole
        (whole,) = completed(store, [now])
        now = store.image(now.image_id)
    raise PreconditionFailed(f"image {whole.image.image_id} does not rest: try again later")


def _row(whole: CompleteImage, original: bytes | None, spaces: Sequence[Space]) -> Row:
    image, annotations = whole.image, whole.features.get(ANNOTATIONS)
    facts = {} if image.facts is None else asdict(image.facts)
    return {
        "image_id": image.image_id,
        "sha256": image.sha256,
        "width": image.width,
        "height": image.height,
        "source": image.source.encode("utf-8", "surrogateescape"),
        "upload_name": image.upload_name,
        "created": image.created,
        "wanted": sorted(image.wanted),
        "metadata": dump_metadata(image.metadata).decode(),
        "annotations": None if annotations is None else annotations.decode(),
        **facts,
        "preview": whole.preview,
        "original": original,
        **{_column(space): whole.features.get(space) for space in spaces},
    }


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, bytes | str))
        if size >= GROUP_BYTES or len(group) >= GROUP_IMAGES:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pq.ParquetFile, dict[str, Space], dict[str, Any]]]:
    """A file, its feature spaces by column, and its metadata. Raises InvalidInput."""
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            about = orjson.loads((schema.metadata or {}).get(ABOUT, b"{}"))
            if about.get("layout") != LAYOUT:
                raise InvalidInput(f"{path} was not written by `ambience export --parquet`")
            for field in FIELDS:
                if field.name not in schema.names or schema.field(field.name).type != field.type:
                    raise InvalidInput(f"{path}: the column {field.name} is missing or of a type")
            yield file, _spaces(schema), about
    except (pa.ArrowException, orjson.JSONDecodeError, OSError) as exc:
        raise InvalidInput(f"{path} can't be read: {exc}") from exc


def _spaces(schema: pa.Schema) -> dict[str, Space]:
    found = {}
    for field in schema:
        told = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        if field.name.startswith(FEATURES + "/") and {"kind", "fingerprint"} <= told.keys():
            found[field.name] = Space(told["kind"], told["fingerprint"])
    return found


def _bring_in(
    store: Store, rows: Sequence[Row], spaces: Mapping[str, Space], outcome: Outcome
) -> None:
    images = []
    for row in rows:
        try:
            images.append((_image(row, spaces), row["original"]))
        except InvalidInput as exc:
            outcome.bad.append(Bad(str(row["image_id"]), str(exc)))
    there = store.images_by_id([whole.image.image_id for whole, _ in images])
    known = {one.image.image_id: one for one in completed(store, list(there.values()))}
    changed, writes = [], []
    for whole, original in images:
        at = whole.image.image_id
        stored = known.get(at)
        if stored is not None and stored.image.sha256 != whole.image.sha256:
            outcome.bad.append(Bad(str(at), "the store has another picture under this id"))
        elif stored is not None and stored.digest == whole.digest:
            outcome.already += 1
        else:
            version = 0 if stored is None else stored.image.version
            changed.append(whole)
            writes.append(replace(write_of(whole, original), if_version=version))
    for whole, receipt in zip(changed, store.put_many(writes), strict=True):
        write_annotations(store, receipt.image_id, receipt.generation, whole)
        if receipt.outcome == "created":
            outcome.added += 1
        else:
            outcome.extended += 1


def _image(row: Row, spaces: Mapping[str, Space]) -> CompleteImage:
    """Raises InvalidInput for values that no export writes."""
    try:
        metadata = orjson.loads(row["metadata"])
        annotations = row["annotations"]
        for said in read_annotations(annotations and annotations.encode()).values():
            if said["by"] not in ("machine", "person"):
                raise InvalidInput(f"annotations by {str(said['by'])[:20]!r}")
    except (ValueError, TypeError, AttributeError, KeyError) as exc:
        raise InvalidInput(f"its metadata or annotations are no JSON objects: {exc}") from exc
    sizes = row["width"], row["height"], row["bytes"] or 0
    if not isinstance(metadata, dict) or not _SHA256.fullmatch(row["sha256"]):
        raise InvalidInput("its metadata or sha256 are damaged")
    if min(sizes) < 0 or not math.isfinite(row["created"]):
        raise InvalidInput("its size or date makes no sense")
    told = {name: row[name] for name in _FACTS}
    features = {space: row[name] for name, space in spaces.items() if row[name] is not None}
    if annotations is not None:
        features[ANNOTATIONS] = annotations.encode()
    image = Image(
        image_id=row["image_id"],
        generation=0,
        sha256=row["sha256"],
        width=row["width"],
        height=row["height"],
        source=row["source"].decode("utf-8", "surrogateescape"),
        created=row["created"],
        wanted=frozenset(row["wanted"]),
        pending=frozenset(),
        metadata=metadata,
        upload_name=row["upload_name"],
        facts=FileFacts(**told) if told["format"] is not None else None,
    )
    whole = CompleteImage(image, features, row["preview"])
    check_writes([write_of(whole, None)])
    return whole
