"""The requests of /v1, and how their answers are read; both clients send the same ones."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, NotRequired, TypedDict, TypeVar, cast

import httpx

from ambience.answers import (
    Added,
    BatchOutcome,
    Changes,
    Comparison,
    DeletedImages,
    EditedImage,
    Image,
    ImagePage,
    RetrieverResults,
    RetrieverState,
    SearchResults,
)

T = TypeVar("T")
Picture = PathLike[str] | bytes | BinaryIO
"""A picture's file: its path, its bytes, or a file that is open for reading and can seek. Paths and
files are sent as they are read."""


class Conditions(TypedDict, total=False):
    """Conditions of a list of images."""

    tag: Sequence[str]
    """All of these tags."""
    metadata: Mapping[str, Any]
    file_name: str
    sha256: str
    formats: Sequence[str]
    """One of these encodings."""
    min_width: int
    min_height: int
    min_bytes: int
    max_bytes: int
    taken_after: str
    """ISO 8601; so are the other dates."""
    taken_before: str
    added_after: str
    added_before: str


class Query(TypedDict, total=False):
    """The fields of a search, as docs/reference/http.md explains them."""

    image_ids: Sequence[int]
    text: str
    composed: str
    negative: Mapping[str, Any]
    retrievers: Mapping[str, float]
    k: int
    min_confidence: float
    sort: Literal["relevance", "newest", "oldest"]
    collapse: bool
    cursor: str
    filter: Mapping[str, Any]
    region: tuple[float, float, float, float]
    explain: bool
    mirrored: bool
    min_seq: int
    stale_ok: bool


class AddOptions(TypedDict, total=False):
    """How images are added."""

    metadata: Mapping[str, Any]
    """Kept with the image."""
    unless_same: bool
    """Refuse a picture of which another image is a copy: DuplicatePicture."""
    idempotency_key: str
    """The same key within 24 hours adds the picture once; default: one of its own for each call."""


class BatchOptions(TypedDict, total=False):
    """How a batch is added; as of one image."""

    unless_same: bool
    idempotency_key: str


class Edit(TypedDict, total=False):
    """Changes of an image by a person; None removes an annotation or a key."""

    annotations: Mapping[str, Mapping[str, Any] | None]
    metadata: Mapping[str, Any]


class BatchItem(TypedDict):
    """What is said of one picture of a batch."""

    image_id: NotRequired[int]
    metadata: NotRequired[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    """The body, of a call without pictures."""
    pictures: Sequence[Picture] = ()
    form: Mapping[str, str] = field(default_factory=dict)
    """Fields beside the pictures."""
    is_idempotent: bool = True
    """Whether it does no more when sent twice, so that a failed attempt can be repeated."""

    @contextlib.contextmanager
    def content(self) -> Iterator[dict[str, Any]]:
        """What httpx sends; files are open, and at their beginnings, within this context."""
        if not self.pictures:
            yield {} if self.json is None else {"json": self.json}
            return
        with contextlib.ExitStack() as opened:
            parts = [("image", _part(picture, opened)) for picture in self.pictures]
            yield {"files": parts, "data": dict(self.form)}


def _part(picture: Picture, opened: contextlib.ExitStack) -> tuple[str, bytes | BinaryIO]:
    if isinstance(picture, bytes):
        return "image", picture
    if isinstance(picture, PathLike):
        path = Path(picture)
        return path.name, opened.enter_context(path.open("rb"))
    picture.seek(0)
    return "image", picture


def _json(answer: httpx.Response) -> Any:
    return answer.json()


def _nothing(answer: httpx.Response) -> None:
    del answer


def _listed(name: str) -> Callable[[httpx.Response], Any]:
    return lambda answer: answer.json()[name]


def add(picture: Picture, image_id: int | None, options: AddOptions) -> Call[Added]:
    """Add an image, or replace the one with this id."""
    form = {"metadata": json.dumps(options["metadata"])} if "metadata" in options else {}
    params = _unless(options)
    if image_id is not None:
        path = f"/v1/images/{image_id}"
        return Call("PUT", path, _json, params, pictures=[picture], form=form)
    return Call("POST", "/v1/images", _json, params, _once(options), None, [picture], form)


def add_many(
    pictures: Sequence[Picture], items: Sequence[BatchItem] | None, options: BatchOptions
) -> Call[list[BatchOutcome]]:
    """Add up to 100 images; each has an outcome of its own."""
    form = {} if items is None else {"items": json.dumps(items)}
    path, read = "/v1/images:batch", _listed("items")
    return Call("POST", path, read, _unless(options), _once(options), None, pictures, form)


def _unless(options: AddOptions | BatchOptions) -> dict[str, str]:
    return {"unless": "same"} if options.get("unless_same") else {}


def _once(options: AddOptions | BatchOptions) -> dict[str, str]:
    return {"Idempotency-Key": options.get("idempotency_key") or uuid.uuid4().hex}


def image(image_id: int) -> Call[Image]:
    """Everything that is known of an image."""
    return Call("GET", f"/v1/images/{image_id}", _json)


def thumbnail(image_id: int) -> Call[bytes]:
    """The stored preview, a JPEG."""
    return Call("GET", f"/v1/images/{image_id}/thumbnail", lambda answer: answer.content)


def edit(image_id: int, changes: Edit) -> Call[EditedImage]:
    """Edit annotations and metadata as a person."""
    return Call("PATCH", f"/v1/images/{image_id}", _json, json=changes)


def delete(image_id: int) -> Call[None]:
    """Delete an image; an unknown id is no error."""
    return Call("DELETE", f"/v1/images/{image_id}", _nothing)


def delete_many(image_ids: Sequence[int], remember: bool, note: str) -> Call[DeletedImages]:
    """Delete up to 1,000 images."""
    body: dict[str, Any] = {"ids": list(image_ids)}
    if remember:
        body |= {"remember": True, "note": note}
    return Call("POST", "/v1/images:delete", _json, json=body)


def list_images(cursor: str | None, limit: int, conditions: Conditions) -> Call[ImagePage]:
    """A page of images by ascending id."""
    params: dict[str, Any] = {"limit": limit, **conditions}
    if "metadata" in conditions:
        params["metadata"] = json.dumps(conditions["metadata"])
    if cursor is not None:
        params["cursor"] = cursor
    return Call("GET", "/v1/images", _json, params)


def search(pictures: Sequence[Picture], query: Query) -> Call[SearchResults]:
    """Search by pictures, stored images and text at once."""
    form = {"query": json.dumps(query)}
    return Call("POST", "/v1/search", _json, json=query, pictures=pictures, form=form)


def search_retriever(
    name: str, picture: Picture | None, parameters: Mapping[str, Any]
) -> Call[RetrieverResults]:
    """Search one retriever by its own parameters."""
    form = {
        key: given if isinstance(given, str) else json.dumps(given)
        for key, given in parameters.items()
    }
    pictures = [] if picture is None else [picture]
    path = f"/v1/retrievers/{name}/search"
    return Call("POST", path, _json, json=dict(parameters), pictures=pictures, form=form)


def compare(pictures: Sequence[Picture], image_ids: Sequence[int]) -> Call[Comparison]:
    """How two pictures relate: uploads and stored images, in that order."""
    body = {"image_ids": list(image_ids)}
    form = {"query": json.dumps(body)}
    return Call("POST", "/v1/compare", _json, json=body, pictures=pictures, form=form)


def retrievers() -> Call[list[RetrieverState]]:
    """The state of the retrievers and annotators."""
    return Call("GET", "/v1/retrievers", _listed("retrievers"))


def annotate(
    picture: Picture, annotators: Sequence[str] | None = None
) -> Call[dict[str, dict[str, Any]]]:
    """Annotations of a picture, by annotator; nothing is stored."""
    form = {} if annotators is None else {"annotators": ",".join(annotators)}
    return Call("POST", "/v1/annotate", _json, pictures=[picture], form=form)


def changes(after: int | None, limit: int, wait: float) -> Call[Changes]:
    """Images that changed after a `head`; None: the newest `head`."""
    params: dict[str, Any] = {"limit": limit, "wait": wait}
    if after is not None:
        params["after"] = after
    return Call("GET", "/v1/changes", _json, params)


def keep_changes(consumer: str, after: int) -> Call[None]:
    """Keep what a follower has still to read of the changes, for 24 hours."""
    body = {"consumer": consumer, "after": after}
    return Call("POST", "/v1/changes:keep", _nothing, json=body)


def next_page(query: Query, page: SearchResults) -> Query | None:
    """The query for the page after this one; None after the last."""
    cursor = page.get("next_cursor")
    return None if cursor is None else cast("Query", {**query, "cursor": cursor})
