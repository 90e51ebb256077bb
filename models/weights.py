"""Where weights come from: a local path, then the usual caches, then where they are published.

Nothing here imports torch, so that a retriever whose weights can't be had costs little.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models.errors import RetrieverUnavailable

CONNECT_SECONDS = 5.0
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class HubWeights:
    """Files of a Hugging Face repository at one revision, or of a local folder laid out like it."""

    name: str
    repo: str
    """`owner/name`, or the path of a folder."""
    revision: str
    files: tuple[str, ...]
    """Names or patterns such as `*.safetensors`; those that are not there are left out."""


@dataclass(frozen=True, slots=True)
class UrlWeights:
    """One file, as published at a URL; `path` is where the owner has put it instead."""

    name: str
    url: str
    sha256: str | None
    """Of the published file; None where no one has published it: then any file is taken. A file at
    `path` may be another, trained by the owner."""
    path: str | None = None


Weights = HubWeights | UrlWeights


@dataclass(frozen=True, slots=True)
class Located:
    """Weights on this machine: a folder (HubWeights) or a file (UrlWeights)."""

    name: str
    path: Path
    sha256: str
    """Of the file, or of all files of the folder."""


def locate(weights: Weights, fetch: bool) -> Located:
    """Find weights here or, with `fetch`, get them; raises RetrieverUnavailable saying why not."""
    if isinstance(weights, UrlWeights):
        return _located_file(weights, fetch)
    folder = Path(weights.repo).expanduser()
    if not folder.is_dir():
        if folder.is_absolute():
            raise RetrieverUnavailable(f"there is no folder {folder} of weights")
        folder = _hub_folder(weights, fetch)
    return Located(weights.name, folder, _hash_of(_chosen(folder, weights.files)))


def _chosen(folder: Path, patterns: Iterable[str]) -> list[Path]:
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    if not found:
        raise RetrieverUnavailable(f"{folder} holds none of {', '.join(patterns)}")
    return sorted(found)


def _hub_folder(weights: HubWeights, fetch: bool) -> Path:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(int(CONNECT_SECONDS)))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    what = f"{weights.repo} at {weights.revision[:12]}"
    try:
        found = snapshot_download(
            weights.repo,
            revision=weights.revision,
            allow_patterns=list(weights.files),
            local_files_only=not fetch,
        )
    except LocalEntryNotFoundError as exc:
        where = "can't be fetched from the hub" if fetch else "is not on this machine"
        raise RetrieverUnavailable(f"{what} {where}") from exc
    except (HfHubHTTPError, OSError, ValueError) as exc:
        raise RetrieverUnavailable(f"{what} can't be fetched from the hub: {_short(exc)}") from exc
    return Path(found)


def _located_file(weights: UrlWeights, fetch: bool) -> Located:
    if weights.path is not None:
        path = Path(weights.path).expanduser()
        if not path.is_file():
            raise RetrieverUnavailable(f"there is no file {path} of weights")
        return Located(weights.name, path, _hash_of([path]))
    path = torch_cache() / weights.url.rpartition("/")[2]
    if not path.is_file():
        if not fetch:
            raise RetrieverUnavailable(f"{path.name} is not on this machine")
        _download(weights, path)
    sha256 = _hash_of([path])
    if weights.sha256 not in (None, sha256):
        raise RetrieverUnavailable(
            f"{path} is not the published file: its sha256 is {sha256}, not {weights.sha256}; "
            "delete it, and it is fetched again"
        )
    return Located(weights.name, path, sha256)


def torch_cache() -> Path:
    """The folder in which torch.hub keeps checkpoints: `$TORCH_HOME/hub/checkpoints`."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def _download(weights: UrlWeights, path: Path) -> None:
    """Beside its place, then renamed, so that nobody sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(weights.url, timeout=CONNECT_SECONDS) as answer,
            tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file,
        ):
            shutil.copyfileobj(answer, file, CHUNK)
        os.replace(file.name, path)
    except (OSError, urllib.error.URLError) as exc:
        raise RetrieverUnavailable(f"{weights.url} can't be fetched: {_short(exc)}") from exc


def _hash_of(paths: Iterable[Path]) -> str:
    """SHA-256 of one file, or of the names and digests of several."""
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    if len(digests) == 1:
        return digests[0][1]
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests)
    return hashlib.sha256(lines.encode()).hexdigest()


def _short(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0][:200]
