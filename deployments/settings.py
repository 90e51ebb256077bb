"""The arguments of the applications in `serve_config.yaml`, and what the environment adds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from models.types import Options

STARTING = "AMBIENCE_STARTING"
"""Names a file that is there until all applications of the configuration are deployed."""
MAX_SHARDS = 64
AUTO = "auto"
Trainable = Literal["whitening", "trained"]
TRAINABLE: tuple[Trainable, ...] = get_args(Trainable)
"""Options of an index that name what a training made, and the folders of the data folder for it."""
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 44444


class ModelArgs(Options):
    """A model that is to take the place of a retriever's own."""

    extractor: str
    options: dict[str, Any] = Field(default_factory=dict)
    index: dict[str, Any] = Field(default_factory=dict)


class RetrieverArgs(Options):
    """Arguments of a retriever application."""

    extractor: str
    """A file of `models/extractors/`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the extractor; changing one begins a new feature space."""
    index: dict[str, Any] = Field(default_factory=dict)
    """Options of the index."""
    store: str | None = None
    """A store URL; by default the one of AMBIENCE_STORE."""
    completion_interval: float = Field(2.0, gt=0)
    """Seconds between looks for pending pictures."""
    next: ModelArgs | None = None
    """Its features are made beside the others, until `ambience model switch`."""
    shards: int = Field(1, ge=1, le=MAX_SHARDS)
    """Deployments that the pictures are split over, by image id."""
    beside: tuple[str, ...] = ()
    """Deployments of another number of shards, which go on until these are ready: `ambience deploy`
    says so itself."""

    def models(self) -> tuple[RetrieverArgs, ...]:
        """The arguments of a retriever of each of the models alone, the next one's last."""
        alone = self.model_copy(update={"next": None})
        if self.next is None:
            return (alone,)
        return alone, alone.model_copy(update=dict(self.next))


class AnnotatorArgs(Options):
    """Arguments of an annotator application; its name is that of its annotations."""

    annotator: str
    """A file of `models/annotators/`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the annotator."""
    store: str | None = None
    """A store URL; by default the one of AMBIENCE_STORE."""
    completion_interval: float = Field(2.0, gt=0)
    """Seconds between looks for pictures to annotate."""


class IngressArgs(Options):
    """Arguments of the ingress application."""

    listen: bool = True
    """Bind AMBIENCE_HOST:AMBIENCE_PORT in the replica; false leaves HTTP to Serve's proxy."""
    store: str | None = None
    required: tuple[str, ...] = ("phash",)
    """Retrievers that must be ready for /readyz."""
    deadline: float = Field(30.0, gt=0)
    """Seconds within which every request is answered."""
    retriever_deadline: float = Field(10.0, gt=0)
    """Seconds that one retriever may take of a search."""
    add_deadline: float = Field(5.0, gt=0)
    """Seconds that an add waits for extractors; what is missing then is completed later."""
    upload_deadline: float = Field(120.0, gt=0)
    """Seconds within which a request's body must have come."""
    import_check_unavailable: Literal["error", "block"] = "error"
    """What the gallery's duplicate check gets when phash can't answer: 503, or a block."""
    previews: bool = True
    """Keep a small JPEG of each picture, for thumbnails and later models."""
    max_upload_bytes: int = Field(64 * 2**20, gt=0)
    max_pixels: int = Field(100_000_000, gt=0)
    max_requests: int = Field(64, gt=0)
    """Requests in flight; further ones get 503 with Retry-After."""
    requests_per_minute: int | None = Field(None, gt=0)
    """Per client address."""
    read_keys: tuple[str, ...] = ()
    """API keys that may search; when none is configured, no key is asked for."""
    write_keys: tuple[str, ...] = ()
    """API keys that may also add and delete."""
    cors_origins: tuple[str, ...] = ()


def data_folder() -> Path:
    """Where the pictures' features live: AMBIENCE_DATA, by default `./data`."""
    return Path(os.environ.get("AMBIENCE_DATA", "data")).absolute()


def training_file(what: Trainable, given: str, name: str, fingerprint: str) -> Path:
    """Where what a training made of a retriever lies: as configured or, for `auto`, in the data
    folder.

    Its name tells the feature space: it never serves another model's features.
    """
    if given == AUTO:
        return data_folder() / what / f"{name}-{fingerprint}.npz"
    return Path(given)


def training_files(index: Mapping[str, Any], name: str, fingerprint: str) -> dict[Trainable, Path]:
    """Where all that these options of an index ask for lies."""
    asked = {what: index[what] for what in TRAINABLE if index.get(what)}
    return {what: training_file(what, given, name, fingerprint) for what, given in asked.items()}


def with_training_files(index: Mapping[str, Any], name: str, fingerprint: str) -> dict[str, Any]:
    """Options of an index that name files in the place of `auto`."""
    made = training_files(index, name, fingerprint)
    return {**index, **{what: str(path) for what, path in made.items()}}


def snapshots_folder() -> Path:
    """Where the retrievers' indexes are kept between two lives of their replicas."""
    return data_folder() / "snapshots"


def store_url(given: str | None) -> str:
    """The store of this service: as configured, AMBIENCE_STORE, or LMDB in the data folder."""
    return given or os.environ.get("AMBIENCE_STORE") or f"lmdb:{data_folder() / 'store'}"


def all_deployed() -> bool:
    """Whether the start of the service has come to its last application."""
    starting = os.environ.get(STARTING)
    return starting is None or not Path(starting).exists()


def address() -> tuple[str, int]:
    """AMBIENCE_HOST and AMBIENCE_PORT."""
    host = os.environ.get("AMBIENCE_HOST", DEFAULT_HOST)
    return host, int(os.environ.get("AMBIENCE_PORT", DEFAULT_PORT))
