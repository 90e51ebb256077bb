"""Locate the weights of models: at a local path, else in a carried folder or the usual caches, else
where published.

This module does not import torch, so a retriever whose weights are missing costs little.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import RetrieverUnavailable

CONNECT_SECONDS = 5.0
CHUNK = 1 << 20
CARRIED = "AMBIENCE_WEIGHTS"
"""Name of an environment variable with a folder that `ambience weights fetch --to` has written."""
CONFIG = "serve_config.yaml"
"""Name of the file in which owners set paths of their own weights."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".onnx")


@dataclass(frozen=True, slots=True)
class HubWeights:
    """Files of a Hugging Face repository at one revision, or of a local folder with the same
    layout."""

    name: str
    repo: str
    """`owner/name`, or the path of a folder."""
    revision: str
    files: tuple[str, ...]
    """Names or patterns such as `*.json`; missing files are skipped. Names that end in one of
    WEIGHT_SUFFIXES are alternatives, best first: only the first that exists with all of its shards
    is taken. If there is none, the weights count as missing."""


@dataclass(frozen=True, slots=True)
class UrlWeights:
    """One file that is published at a URL; `path` is the owner's own copy."""

    name: str
    url: str
    sha256: str | None
    """SHA-256 of the published file; None where no hash is published. Then any file is accepted,
    and the fingerprint tells different files apart. A file at `path` is not compared with it,
    because the owner may have trained another one."""
    path: str | None = None


Weights = HubWeights | UrlWeights


def carried_path(weights: Weights, folder: Path) -> Path:
    """Path of weights in a carried folder: of a repository's folder, or of a file."""
    if isinstance(weights, UrlWeights):
        return folder / weights.url.rpartition("/")[2]
    return folder / weights.repo.replace("/", "--") / weights.revision


@dataclass(frozen=True, slots=True)
class Located:
    """Weights found on this machine: a folder (HubWeights) or a file (UrlWeights)."""

    name: str
    path: Path
    sha256: str
    """SHA-256 of the file, or of the selected files of the folder (see `_hash_of`)."""
    files: tuple[Path, ...]
    """The file, or the selected files of the folder."""


def locate(weights: Weights, fetch: bool) -> Located:
    """Find weights on this machine or, with `fetch`, download them. Raises RetrieverUnavailable
    with the reason."""
    if isinstance(weights, UrlWeights):
        return _locate_file(weights, fetch)
    folder = Path(weights.repo).expanduser()
    if not folder.is_dir():
        if _is_a_path(weights.repo):
            raise RetrieverUnavailable(f"there is no folder {folder} of weights")
        return _locate_snapshot(weights, fetch)
    files = matching_files(folder, weights.files)
    if not files:
        raise RetrieverUnavailable(f"{folder} holds no whole {' or '.join(weights.files)}")
    return _located(weights, folder, files)


def _is_a_path(name: str) -> bool:
    """Whether a name can only mean a folder: repositories are named `owner/name`."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def is_local(weights: Weights) -> bool:
    """Whether the owner has named a file or folder of this machine."""
    if isinstance(weights, UrlWeights):
        return weights.path is not None
    folder = Path(weights.repo).expanduser()
    return folder.is_absolute() or folder.is_dir()


def _located(weights: Weights, path: Path, files: Sequence[Path]) -> Located:
    return Located(weights.name, path, _hash_of(files), tuple(files))


def _carried() -> Path | None:
    folder = os.environ.get(CARRIED)
    return Path(folder).expanduser() if folder else None


def matching_files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The files of a folder that match `HubWeights.files`, sorted; empty unless the weights are
    complete."""
    weights, others = _split_patterns(patterns)
    found = {path for pattern in others for path in folder.glob(pattern) if path.is_file()}
    alternatives = ([*folder.glob(pattern)] for pattern in weights)
    chosen = next((files for files in alternatives if files and _is_complete(files)), [])
    return sorted(found.union(chosen)) if chosen or not weights else []


def _split_patterns(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    weights = [pattern for pattern in patterns if pattern.endswith(WEIGHT_SUFFIXES)]
    return weights, [pattern for pattern in patterns if pattern not in weights]


def _is_complete(files: Sequence[Path]) -> bool:
    """Whether every shard `…-00001-of-00003.…` is present."""
    counts = (re.search(r"-of-(\d+)\.", path.name) for path in files)
    return all(int(count[1]) <= len(files) for count in counts if count)


def _locate_snapshot(weights: HubWeights, fetch: bool) -> Located:
    what = f"{weights.repo} at {weights.revision[:12]}"
    if (carried := _carried()) is not None:
        folder = carried_path(weights, carried)
        if files := matching_files(folder, weights.files):
            return _located(weights, folder, files)
    try:
        folder, files = _snapshot(weights)
        if not files and fetch:
            _fetch_snapshot(weights, what)
            folder, files = _snapshot(weights)
    except ImportError as exc:
        raise RetrieverUnavailable(
            f"{exc.name} is not installed: install ambience[neural]"
        ) from exc
    if not files:
        raise RetrieverUnavailable(f"{what} is not on this machine; {_hub_remedy()}")
    return _located(weights, folder, files)


def _snapshot(weights: HubWeights) -> tuple[Path, list[Path]]:
    """The revision's folder in the hub's cache and the selected files in it; it does not contact
    the hub."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE, "models--" + weights.repo.replace("/", "--"))
    ref = cache / "refs" / weights.revision
    commit = ref.read_text().strip() if ref.is_file() else weights.revision
    folder = cache / "snapshots" / commit
    return folder, matching_files(folder, weights.files)


def _fetch_snapshot(weights: HubWeights, what: str) -> None:
    """Download into the hub's cache. The weights come last, so that a process that finds them also
    finds the other files."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    heavy, others = _split_patterns(weights.files)
    try:
        if not constants.HF_HUB_OFFLINE:
            _check_reachable(constants.ENDPOINT)
        if others:
            snapshot_download(weights.repo, revision=weights.revision, allow_patterns=others)
        for pattern in heavy:
            snapshot_download(weights.repo, revision=weights.revision, allow_patterns=[pattern])
            if _snapshot(weights)[1]:
                return
    except RevisionNotFoundError as exc:
        raise RetrieverUnavailable(
            f"the hub knows no revision {weights.revision} of {weights.repo}; correct the line "
            f"`revision: {weights.revision}` in {CONFIG}"
        ) from exc
    except RepositoryNotFoundError as exc:
        raise RetrieverUnavailable(
            f"the hub lets nobody without a login read {weights.repo}, if it exists; correct the "
            f"line `model: {weights.repo}` in {CONFIG}"
        ) from exc
    except LocalEntryNotFoundError as exc:
        raise RetrieverUnavailable(
            f"{what} can't be fetched from the hub; {_hub_remedy()}"
        ) from exc
    except (HfHubHTTPError, OSError, ValueError) as exc:
        raise RetrieverUnavailable(
            f"{what} can't be fetched from the hub ({_first_line(exc)}); {_hub_remedy()}"
        ) from exc


def _hub_remedy() -> str:
    return f"{_CARRY}, or name a local folder as its `model` in {CONFIG}"


def _check_reachable(url: str) -> None:
    """Raise OSError unless the server answers within CONNECT_SECONDS; DNS and the hub's own client
    may take minutes."""
    failures: list[BaseException] = [TimeoutError(f"no answer in {CONNECT_SECONDS:.0f} s")]

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=CONNECT_SECONDS).close()
        except urllib.error.HTTPError:
            pass
        except (OSError, ValueError) as exc:
            failures[0] = exc
            return
        failures.clear()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(CONNECT_SECONDS)
    if failures:
        raise OSError(f"{url}: {_first_line(failures[0])}")


def _locate_file(weights: UrlWeights, fetch: bool) -> Located:
    if weights.path is not None:
        path = Path(weights.path).expanduser()
        if not path.is_file():
            raise RetrieverUnavailable(f"there is no file {path} of weights")
        return _located(weights, path, [path])
    path = carried_path(weights, _carried() or torch_cache())
    if not path.is_file():
        path = torch_cache() / path.name
    if not path.is_file():
        if not fetch:
            raise RetrieverUnavailable(f"{path.name} is not on this machine; {_file_remedy()}")
        _download(weights, path)
    found = _located(weights, path, [path])
    if weights.sha256 not in (None, found.sha256):
        raise RetrieverUnavailable(
            f"{path} is not the published file: its sha256 is {found.sha256}, not "
            f"{weights.sha256}; delete it, so that it is downloaded again"
        )
    return found


def torch_cache() -> Path:
    """The folder in which torch.hub keeps checkpoints: `$TORCH_HOME/hub/checkpoints`."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def _download(weights: UrlWeights, path: Path) -> None:
    """Download beside the target, verify, then rename, so that no reader sees a partial or wrong
    file."""
    try:
        _check_reachable(weights.url)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside:
            part = Path(aside, path.name)
            with (
                urllib.request.urlopen(weights.url, timeout=CONNECT_SECONDS) as answer,
                part.open("wb") as file,
            ):
                shutil.copyfileobj(answer, file, CHUNK)
                if file.tell() != int(answer.headers.get("Content-Length", file.tell())):
                    raise OSError("the download ended early")
            sha256 = _hash_of([part])
            if weights.sha256 not in (None, sha256):
                raise RetrieverUnavailable(
                    f"{weights.url} gave another file, not the published one: its sha256 is "
                    f"{sha256}, not {weights.sha256}"
                )
            os.replace(part, path)
    except OSError as exc:
        raise RetrieverUnavailable(
            f"{weights.url} can't be fetched ({_first_line(exc)}); {_file_remedy()}"
        ) from exc


def _file_remedy() -> str:
    return f"{_CARRY}, or name a local copy in {CONFIG}"


_CARRY = (
    "run `ambience weights fetch --to FOLDER` on a machine with a network and set "
    f"{CARRIED}=FOLDER here"
)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of(paths: Iterable[Path]) -> str:
    """SHA-256 of one file, or of the names and digests of several."""
    digests = [(path.name, sha256_of(path)) for path in paths]
    if len(digests) == 1:
        return digests[0][1]
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests)
    return hashlib.sha256(lines.encode()).hexdigest()


REPLACE = f"put whole files there, or name others in {CONFIG}"
"""What to do about files that can't be read."""


def broken(exc: BaseException) -> str:
    """Why files of weights can't be read, in one line.

    Texts of libraries about pickles are left out: they advise to run the code in the file.
    """
    text = " ".join(str(exc).split())[:300] or type(exc).__name__
    if "pickle" in text or "weights_only" in text or isinstance(exc, EOFError):
        return "a file is damaged, or no file of weights"
    return text


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0][:200]
