"""Arguments of the applications in `serve_config.yaml`, and what the environment adds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, IPvAnyNetwork, TypeAdapter

from deployments.keys import KeyArgs
from models.pictures.limits import DecodeLimits
from models.types import Options

STARTING = "AMBIENCE_STARTING"
"""Name of an environment variable with a file that exists until all applications are deployed. It
lists those of the configuration, as `PlannedApplications`."""
MAX_SHARDS = 64
AUTO = "auto"
Trainable = Literal["whitening", "trained"]
TRAINABLE: tuple[Trainable, ...] = get_args(Trainable)
"""Index options that name a trained file, and the folders of these files in the data folder."""
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 44444


class ModelArgs(Options):
    """A model that is to replace a retriever's own."""

    extractor: str
    options: dict[str, Any] = Field(default_factory=dict)
    index: dict[str, Any] = Field(default_factory=dict)


class RetrieverArgs(Options):
    """Arguments of a retriever application."""

    extractor: str
    """Name of a file in `models/extractors/`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the extractor; changing one begins a new feature space."""
    index: dict[str, Any] = Field(default_factory=dict)
    """Options of the index."""
    store: str | None = None
    """A store URL; by default that of AMBIENCE_STORE."""
    completion_interval: float = Field(2.0, gt=0)
    """Seconds between looks for pending images."""
    next: ModelArgs | None = None
    """The next model: its features are made beside the others, until `ambience model switch`."""
    shards: int = Field(1, ge=1, le=MAX_SHARDS)
    """Number of deployments over which the images are split by id."""
    beside: tuple[str, ...] = ()
    """Deployments of another number of shards that run until these are ready; `ambience deploy`
    sets it."""

    def models(self) -> tuple[RetrieverArgs, ...]:
        """Arguments of one retriever for each of the models, the next one's last."""
        alone = self.model_copy(update={"next": None})
        if self.next is None:
            return (alone,)
        return alone, alone.model_copy(update=dict(self.next))


class AnnotatorArgs(Options):
    """Arguments of an annotator application; its name is the name of its annotations."""

    annotator: str
    """Name of a file in `models/annotators/`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the annotator."""
    store: str | None = None
    """A store URL; by default that of AMBIENCE_STORE."""
    completion_interval: float = Field(2.0, gt=0)
    """Seconds between looks for images to annotate."""


class PlannedApplication(Options):
    """An application of the configuration that may not be deployed yet."""

    kind: Literal["retriever", "annotator"]
    of_pictures: bool = True
    """Whether it has features of pictures, so that every image wants them."""


PlannedApplications = TypeAdapter(dict[str, PlannedApplication])


class ImportCheckArgs(Options):
    """What the gallery's import check refuses."""

    blocks: tuple[Literal["same", "edited", "part"], ...] = ("same",)
    """Relations to a stored image that block an import."""
    bans: tuple[Literal["same", "edited", "part"], ...] = ("same", "edited", "part")
    """Relations to a picture that was deleted to stay away by which it is recognised."""
    adds: bool = False
    """Whether every add, not only the check, refuses such pictures."""


class IngressArgs(Options):
    """Arguments of the ingress application."""

    model_config = ConfigDict(hide_input_in_errors=True)

    listen: bool = True
    """Whether the replica binds AMBIENCE_HOST:AMBIENCE_PORT; false leaves HTTP to Serve's proxy."""
    store: str | None = None
    required: tuple[str, ...] = ("phash",)
    """Retrievers that must be ready for /readyz."""
    deadline: float = Field(30.0, gt=0)
    """Seconds within which every request is answered."""
    retriever_deadline: float = Field(10.0, gt=0)
    """Seconds that one retriever may take for a search."""
    add_deadline: float = Field(5.0, gt=0)
    """Seconds that an add waits for extractors; missing features are completed later."""
    upload_deadline: float = Field(120.0, gt=0)
    """Seconds within which a request's body must arrive."""
    min_upload_rate: int = Field(32 * 2**10, gt=0)
    """Bytes a second at which a body must arrive, after its first seconds."""
    max_receiving_bytes: int = Field(512 * 2**20, gt=0)
    """Bytes of all bodies in memory, arriving or in work; further ones get 503 unread."""
    max_uploads_per_client: int = Field(64, gt=0)
    """Bodies of one client address that may arrive at once."""
    import_check: ImportCheckArgs = ImportCheckArgs()
    import_check_unavailable: Literal["error", "block"] = "error"
    """Answer of the gallery's duplicate check when phash can't answer: 503 (`error`), or a
    block."""
    previews: bool = True
    """Whether to keep a small JPEG of each image, for thumbnails and later models."""
    max_upload_bytes: int = Field(64 * 2**20, gt=0)
    max_pixels: int = Field(100_000_000, gt=0)
    """Pixels that decoding one picture holds; a large JPEG is reduced while it is decoded."""
    max_header_pixels: int = Field(500_000_000, gt=0)
    """Pixels of one picture, however few of them decoding holds."""
    max_requests: int = Field(64, gt=0)
    """Maximum number of requests in flight; further ones get 503 with Retry-After."""
    requests_per_minute: int | None = Field(None, gt=0)
    """Rate limit per client address."""
    read_keys: tuple[str, ...] = ()
    """API keys that may search; without any key configured, none is required."""
    write_keys: tuple[str, ...] = ()
    """API keys that may also add and delete."""
    keys: tuple[KeyArgs, ...] = ()
    """API keys by name, as hashes; with any of them, reading needs one, too."""
    keys_file: str | None = None
    """A YAML file with more of them, which is read again when it changes; by default that of
    AMBIENCE_KEYS_FILE."""
    trusted_clients: tuple[IPvAnyNetwork, ...] = ()
    """Addresses and networks whose requests need no key, unless a proxy has forwarded them."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Addresses and networks of proxies whose `X-Forwarded-For` names the client."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the API, such as `https://photos.example.org`."""
    allowed_hosts: tuple[str, ...] = ("ambience",)
    """Names of the service beside loopback and the host that it binds; `.example.org` stands for
    all names that end so, `*` for any."""

    access_log: Literal["off", "text", "json"] = "text"
    """Whether requests are logged, in `access.log` of the data folder, and how."""
    access_log_bytes: int = Field(16 * 2**20, gt=0)
    """Size at which the access log is rotated; three earlier files stay."""

    def keys_path(self) -> Path | None:
        """The file with keys, if there is one."""
        given = self.keys_file or os.environ.get("AMBIENCE_KEYS_FILE")
        return Path(given) if given else None

    def has_keys(self) -> bool:
        """Whether changes need an API key."""
        return bool(self.keys or self.read_keys or self.write_keys or self.keys_path())

    def decode_limits(self) -> DecodeLimits:
        """Limits on the pictures that are decoded."""
        return DecodeLimits(
            max_bytes=self.max_upload_bytes,
            max_pixels=self.max_pixels,
            max_header_pixels=self.max_header_pixels,
        )


def data_folder() -> Path:
    """The data folder: AMBIENCE_DATA, by default `./data`."""
    return Path(os.environ.get("AMBIENCE_DATA", "data")).absolute()


def training_file(what: Trainable, given: str, name: str, fingerprint: str) -> Path:
    """Path of a retriever's trained file: as configured or, for `auto`, in the data folder.

    The file name includes the feature space, so that it never serves another model's features.
    """
    if given == AUTO:
        return data_folder() / what / f"{name}-{fingerprint}.npz"
    return Path(given)


def training_files(index: Mapping[str, Any], name: str, fingerprint: str) -> dict[Trainable, Path]:
    """Paths of all trained files that these index options ask for."""
    asked = {what: index[what] for what in TRAINABLE if index.get(what)}
    return {what: training_file(what, given, name, fingerprint) for what, given in asked.items()}


def with_training_files(index: Mapping[str, Any], name: str, fingerprint: str) -> dict[str, Any]:
    """Index options with paths in place of `auto`."""
    made = training_files(index, name, fingerprint)
    return {**index, **{what: str(path) for what, path in made.items()}}


def snapshots_folder() -> Path:
    """Folder of the snapshots of the retrievers' indexes."""
    return data_folder() / "snapshots"


def store_url(given: str | None) -> str:
    """The store's URL: as configured, AMBIENCE_STORE, or LMDB in the data folder."""
    return given or os.environ.get("AMBIENCE_STORE") or f"lmdb:{data_folder() / 'store'}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def all_deployed() -> bool:
    """Whether the start of the service has reached its last application."""
    starting = os.environ.get(STARTING)
    return starting is None or not Path(starting).exists()


def planned_applications() -> dict[str, PlannedApplication]:
    """The applications of the configuration, by name, until all are deployed; then none."""
    try:
        return PlannedApplications.validate_json(Path(os.environ[STARTING]).read_bytes())
    except (KeyError, FileNotFoundError):
        return {}


def address() -> tuple[str, int]:
    """The address from AMBIENCE_HOST and AMBIENCE_PORT."""
    host = os.environ.get("AMBIENCE_HOST", DEFAULT_HOST)
    return host, int(os.environ.get("AMBIENCE_PORT", DEFAULT_PORT))
